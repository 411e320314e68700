"""Local means over large windows (TLC, arXiv 2112.04491), whose cost does not depend on the window.

Replaces `F.avg_pool2d` and `F.pad` in `spatial_mean` of `reference.py` by running sums along one axis after the other,
short enough for float32. On a CPU without gradients they are added up slice by slice: with PyTorch's cumulative sums an
image of 512 pixels takes 1.2 to 1.3 times as long.

Off (`kernels.disabled('sliding')`) the sums are always PyTorch's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lorair_arch.archs import kernels


def local_mean(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Mean over every window that lies inside the features.

    Args:
        x: [B, C, H, W].
        window: Height and width, at most H and W.

    Returns:
        [B, C, H - height + 1, W - width + 1].
    """
    # A loop over slices: a GPU would be given hundreds of tiny kernels, and `out=` knows no gradients.
    slides = x.device.type == 'cpu' and not torch.is_grad_enabled() and kernels.enabled('sliding')
    for dim, size in zip((2, 3), window):
        if size == x.shape[dim]:
            x = x.mean(dim, keepdim=True)
        else:
            x = _slide(x, dim, size) if slides else _difference(x, dim, size)
    return x


def _difference(x: Tensor, dim: int, size: int) -> Tensor:
    """Means along one axis as differences of cumulative sums."""
    steps = x.shape[dim] - size
    sums = x.cumsum(dim)
    means = sums.narrow(dim, size - 1, steps + 1) / size
    means.narrow(dim, 1, steps).sub_(sums.narrow(dim, 0, steps), alpha=1 / size)
    return means


def _slide(x: Tensor, dim: int, size: int) -> Tensor:
    """Means along one axis, slice after slice."""
    shape = list(x.shape)
    shape[dim] += 1 - size
    # As the features lie: so each slice of rows is one piece of memory.
    sums = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    slices, out = x.unbind(dim), sums.unbind(dim)
    torch.sum(x.narrow(dim, 0, size), dim, out=out[0])
    for i in range(1, len(out)):
        torch.add(out[i - 1], slices[i + size - 1], out=out[i]).sub_(slices[i - 1])
    return sums.div_(size)


def spread(x: Tensor, height: int, width: int, rows: slice = slice(None)) -> Tensor:
    """Replicates the border so that [B, C, h, w] becomes [B, C, height, width], its content centred.

    Args:
        x: Local means; a global mean, [B, C, 1, 1], stays as it is, and so does what has the size already.
        height, width: See above.
        rows: Gives these rows of the result alone: with all of them, the means would once more exist in full size.
    """
    if x.shape[2:].numel() == 1 or x.shape[2:] == (height, width):
        return x
    # F.pad for the rows that are wanted: indexing with clamped rows and columns takes 2.6 times as long
    top, left = (height - x.shape[2]) // 2, (width - x.shape[3]) // 2
    start, stop, _ = rows.indices(height)
    first, last = (min(max(row - top, 0), x.shape[2] - 1) for row in (start, stop - 1))
    above = min(max(top - start, 0), stop - start - 1)
    below = stop - start - above - (last + 1 - first)
    return F.pad(x[:, :, first : last + 1], (left, width - x.shape[3] - left, above, below), mode='replicate')
