"""Large features in strips, and sums in place, where there are no gradients.

Replaces the passes over whole features in `blocks`, `modulation` and `restore` of `reference.py`: what a strip needs in
between stays in the caches and never exists for the whole, and sums take the place of their first summand. Without, an
image of 1024 pixels takes 1.5 times as long, one of 512 with local means 1.2 times.

Off (`kernels.disabled('strips')`) functions see whole features, and sums are new tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorair_arch.archs import kernels
from lorair_arch.archs.kernels.local_mean import spread

# Numbers of a strip: some megabytes, which a CPU's caches hold; a GPU needs more to be busy.
_NUMBERS = {'cpu': 2**19, 'cuda': 2**26}

Place = tuple[slice, slice, slice]


def in_strips(function: Callable[..., Tensor], experts: object, x: Tensor, *more: Tensor, halo: int = 0) -> Tensor:
    """Gives `function(x, *more)`, of the shape of x.

    Args:
        function: Takes any rows of the features, and gives as many.
        experts: Those that it uses, or None. Strips are for networks without: each would merge the weights again.
        x: [B, C, H, W]; without gradients and halo the result may take its place.
        more: Features of the same size, or means over parts of them, which are spread over it.
        halo: Rows above and below of which `function` makes a row.
    """
    height, width = x.shape[2:]
    one_strip = x.numel() <= _NUMBERS.get(x.device.type, x.numel())  # spares the copies into the result
    if experts is not None or _whole() or one_strip:
        return function(x, *(spread(part, height, width) for part in more))
    # In place where no other strip reads these rows; with a halo the neighbours do.
    y = torch.empty_like(x) if halo else x
    for strip, seen, inner in strips(x, halo):
        images, _, rows = strip
        parts = [m[strip] if m.shape[2:] == x.shape[2:] else spread(m[images], height, width, rows) for m in more]
        y[strip] = function(x[seen], *parts)[inner]
    return y


def add_upsampled(skip: Tensor, up: nn.Module, x: Tensor) -> Tensor:
    """Adds the pixels of `up(x)`, four channels becoming four pixels, to the skip; without gradients in its place.

    Args:
        skip: [B, C, 2 H, 2 W].
        up: Gives 4 C channels.
        x: [B, 2 C, H, W].
    """
    if _whole():
        return skip + F.pixel_shuffle(up(x), 2)
    for strip, _, _ in strips(x):
        images, every, rows = strip
        skip[images, every, 2 * rows.start : 2 * rows.stop] += F.pixel_shuffle(up(x[strip]), 2)
    return skip


def _whole() -> bool:
    # Autograd keeps the features for the gradient: sums in place would destroy them.
    return torch.is_grad_enabled() or not kernels.enabled('strips')


def strips(x: Tensor, halo: int = 0) -> Iterator[tuple[Place, Place, Place]]:
    """Cuts [B, C, H, W] into whole images, or rows of one image: pieces that lie together in channels_last memory.

    Args:
        x: Features.
        halo: Rows above and below that belong to what a strip sees, where there are any.

    Yields:
        Indices: of a strip, of what it sees, and of the former within the latter.
    """
    batch, channels, height, width = x.shape
    # Devices of which nothing was measured run whole.
    most = _NUMBERS.get(x.device.type, x.numel()) // (channels * width)  # rows
    # Eight rows at least: one above and one below then cost a quarter more at most.
    images, rows = max(most // height, 1), min(max(most, 8), height)
    every = slice(None)
    for first in range(0, batch, images):
        some = slice(first, first + images)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            above, below = max(top - halo, 0), min(bottom + halo, height)
            inner = slice(top - above, bottom - above)
            yield (some, every, slice(top, bottom)), (some, every, slice(above, below)), (every, every, inner)
