"""Local mean over large windows, for images larger than the training crops (TLC, arXiv 2112.04491)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def window_size(train_size: int, feature_size: int, stride: int, multiple: int) -> int:
    """Gives the window of one axis: 1.5 times the training crop, in pixels of the features.

    Args:
        train_size: Side of the training crop, pixels.
        feature_size: Side of the features at hand.
        stride: Image pixels for each pixel of the features.
        multiple: The network pads images to a multiple of this.
    """
    train_feature_size = -(-train_size // multiple) * multiple // stride
    window = int(1.5 * train_size) * train_feature_size // train_size
    return min(window, feature_size)


def local_mean(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Mean over every window that lies inside the features.

    Running sums along one axis after the other: the cost does not depend on the window, and the sums stay short enough
    for float32.

    Args:
        x: [B, C, H, W].
        window: Height and width, at most H and W.

    Returns:
        [B, C, H - height + 1, W - width + 1].
    """
    in_place = x.device.type == 'cpu' and not torch.is_grad_enabled()
    for dim, size in zip((2, 3), window):
        if size == x.shape[dim]:
            x = x.mean(dim, keepdim=True)
        else:
            x = _slide(x, dim, size) if in_place else _difference(x, dim, size)
    return x


def _difference(x: Tensor, dim: int, size: int) -> Tensor:
    """Means along one axis as differences of cumulative sums."""
    steps = x.shape[dim] - size
    sums = x.cumsum(dim)
    means = sums.narrow(dim, size - 1, steps + 1) / size
    means.narrow(dim, 1, steps).sub_(sums.narrow(dim, 0, steps), alpha=1 / size)
    return means


def _slide(x: Tensor, dim: int, size: int) -> Tensor:
    """Means along one axis, slice after slice: on a CPU many times faster than PyTorch's cumulative sum."""
    shape = list(x.shape)
    shape[dim] += 1 - size
    sums = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    slices, out = x.unbind(dim), sums.unbind(dim)
    torch.sum(x.narrow(dim, 0, size), dim, out=out[0])
    for i in range(1, len(out)):
        torch.add(out[i - 1], slices[i + size - 1], out=out[i]).sub_(slices[i - 1])
    return sums.div_(size)


def pad_to(x: Tensor, height: int, width: int, rows: slice | None = None) -> Tensor:
    """Replicates the border so that [B, C, h, w] becomes [B, C, height, width], its content centred.

    Args:
        x: What is padded; a global mean, [B, C, 1, 1], stays as it is.
        height: See above.
        width: See above.
        rows: Gives these rows of the result alone.
    """
    if x.shape[2:].numel() == 1:
        return x
    top, left = (height - x.shape[2]) // 2, (width - x.shape[3]) // 2
    start, stop = (0, height) if rows is None else (rows.start, rows.stop)
    first, last = (min(max(row - top, 0), x.shape[2] - 1) for row in (start, stop - 1))
    above = min(max(top - start, 0), stop - start - 1)
    below = stop - start - above - (last + 1 - first)
    return F.pad(x[:, :, first : last + 1], (left, width - x.shape[3] - left, above, below), mode='replicate')
