"""Large features in strips: what a strip needs in between stays in the cache and never exists for the whole."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

# Numbers of a strip: some megabytes, which a CPU's caches hold; a GPU needs more to be busy.
_NUMBERS = {'cpu': 2**19, 'cuda': 2**26}

Place = tuple[slice, slice, slice]


def strips(x: Tensor, halo: int = 0) -> Iterator[tuple[Place, Place, Place]]:
    """Cuts [B, C, H, W] into whole images, or rows of one image: pieces that lie together in channels_last memory.

    Args:
        x: Features.
        halo: Rows above and below that a convolution needs beside those of the strip, where there are any.

    Yields:
        Indices: of a strip, of the strip with its halo, and of the former within the latter.
    """
    batch, channels, height, width = x.shape
    most = _NUMBERS.get(x.device.type, x.numel()) // (channels * width)  # rows
    images, rows = max(most // height, 1), min(max(most, 8), height)
    every = slice(None)
    for first in range(0, batch, images):
        some = slice(first, first + images)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            above, below = max(top - halo, 0), min(bottom + halo, height)
            inner = slice(top - above, bottom - above)
            yield (some, every, slice(top, bottom)), (some, every, slice(above, below)), (every, every, inner)
