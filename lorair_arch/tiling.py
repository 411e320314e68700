"""Restores an image in overlapping tiles, so that the memory of the network does not grow with the image."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

OVERLAP = 8  # neighbours share an eighth of their side


def restore_tiled(restore: Callable[[Tensor], Tensor], image: Tensor, tile: int) -> Tensor:
    """Restores tile by tile and blends the tiles where they overlap.

    Args:
        restore: Restores [1, 3, h, w] of any size.
        image: [1, 3, H, W].
        tile: Side of the tiles in pixels. An image that fits into one is restored in one piece.

    Returns:
        [1, 3, H, W].
    """
    rows, columns = (_place(length, tile) for length in image.shape[-2:])
    out = torch.zeros_like(image)
    for top, row_weights in rows:
        for left, column_weights in columns:
            area = ..., slice(top, top + len(row_weights)), slice(left, left + len(column_weights))
            out[area] += restore(image[area]) * row_weights[:, None] * column_weights
    return out


def _place(length: int, tile: int) -> list[tuple[int, Tensor]]:
    """Spreads tiles evenly along one axis.

    Returns:
        The start of each tile, and the weight of each of its pixels. Over a whole axis the weights sum to 1; towards
        a neighbour they fall smoothly to 0, where a tile has seen the least of its surroundings.
    """
    overlap, size = max(tile // OVERLAP, 1), min(tile, length)
    count = max(1, math.ceil((length - overlap) / (tile - overlap)))
    starts = [round(i * (length - size) / max(count - 1, 1)) for i in range(count)]
    ramp = torch.sin((torch.arange(overlap) + 0.5) / overlap * math.pi / 2) ** 2
    weights = torch.ones(count, size)
    if count > 1:
        weights[1:, :overlap] *= ramp
        weights[:-1, -overlap:] *= ramp.flip(0)
    total = torch.zeros(length)
    for start, weight in zip(starts, weights):
        total[start : start + size] += weight
    return [(start, weight / total[start : start + size]) for start, weight in zip(starts, weights)]
