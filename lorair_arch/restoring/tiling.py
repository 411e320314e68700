"""Restores an image in overlapping tiles, so that the memory of the network does not grow with the image.

A tile gives what the whole image would give if it starts where the network's strides do, sees enough beyond what it is
used for, and has the means over space of the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lorair_arch.archs.nafblock import SpatialMean

Window = Callable[[slice, slice], Tensor]

# Neighbours share an eighth of their side or more, at least so many pixels.
_PART, _LEAST = 8, 16
_GOLDEN = 0.6180339887498949  # its multiples, modulo 1, spread evenly however many there are


class Span(NamedTuple):
    """A tile along one axis.

    Attributes:
        seen: The pixels of the image that the network sees.
        core: The tile's own part, within what is seen: the cores of all tiles cover the axis once.
        weights: Of each pixel of the tile in the result. Over the axis they sum to 1; towards a neighbour they fall
            smoothly to 0 before the tile ends, where it has seen the least of its surroundings.
    """

    seen: slice
    core: slice
    weights: Tensor


def restore_bands(
    net: nn.Module, window: Window, size: tuple[int, int], prior: Tensor, logits: Tensor | None, tile: int | None
) -> Iterator[tuple[slice, Tensor]]:
    """Restores an image from top to bottom: tile by tile, each with the means of the whole image, blended in overlaps.

    Args:
        net: A `LoRAIR` in evaluation mode.
        window: Gives a part of the image by its rows and columns, [1, 3, h, w] in [0, 1] on the network's device; more
            of it is never held than one tile.
        size: (H, W).
        prior: Of the whole image, [1, P].
        logits: Of the whole image, [1, E], or None.
        tile: Side of the tiles in pixels, at least `smallest_tile(net)`; rounded down to a multiple of `net.multiple`.
            An image that fits into one is restored in one piece; so is any with None.

    Yields:
        Rows of the image, and what they have become, [1, 3, rows, W]; in one piece on the network's device, else on the
        CPU. Every row once.
    """
    net = net.runner(logits)  # once for all tiles, which share the image's experts
    rows, columns = (place(length, tile or length + net.multiple, net.multiple) for length in size)
    tiles = [(row, column) for row in rows for column in columns]

    def restore(row: Span, column: Span) -> Tensor:
        return net(window(row.seen, column.seen), prior, logits)

    if len(tiles) == 1:
        yield slice(0, size[0]), restore(*tiles[0])
        return
    with TileMeans(net) as means:
        # A first pass for the means alone: a sample of the tiles is not enough.
        for row, column in means.beforehand(tiles):
            restore(row, column)
        shared = torch.zeros(1, 3, 0, size[1])
        for row, below in zip(rows, [*rows[1:], None]):
            band = torch.zeros(1, 3, row.seen.stop - row.seen.start, size[1])
            band[..., : shared.shape[2], :] = shared
            for column in columns:
                restored = restore(row, column).float().cpu()
                band[..., column.seen] += restored * row.weights[:, None] * column.weights
            stop = below.seen.start if below else size[0]
            done = stop - row.seen.start
            yield slice(row.seen.start, stop), band[..., :done, :]
            shared = band[..., done:, :]


def smallest_tile(net: nn.Module) -> int:
    """Gives the smallest side of tiles, in pixels: neighbours share a half of it at most."""
    # Twice the least overlap of 16 pixels, or of one stride of the network.
    return max(32, 2 * net.multiple)


def place(length: int, tile: int, multiple: int) -> list[Span]:
    """Spreads tiles evenly along one axis, at multiples of the network's stride.

    Args:
        length: Of the axis, in pixels.
        tile: Longest side of a tile.
        multiple: What the network pads to; starts and all sides but the last are multiples of it.
    """
    tile -= tile % multiple
    if length <= tile:
        return [Span(slice(0, length), slice(0, length), torch.ones(length))]
    overlap = math.ceil(max(tile / _PART, _LEAST) / multiple) * multiple
    last = math.ceil((length - tile) / multiple)  # starts are counted in multiples
    gaps = math.ceil(last * multiple / (tile - overlap))
    # At multiples of the stride: elsewhere the network's grid would lie differently than in the whole image.
    starts = [round(i * last / gaps) * multiple for i in range(gaps + 1)]
    stops = [min(start + tile, length) for start in starts]
    shared = list(zip(starts[1:], stops))  # what each tile shares with the next
    # Cores meet in the middle of what neighbours share, at strides too: features are counted once.
    cuts = [0, *((start + stop) // 2 // multiple * multiple for start, stop in shared), length]
    weights, total = [], torch.zeros(length)
    for i, (start, stop) in enumerate(zip(starts, stops)):
        pixels = torch.arange(start, stop)
        rising = _ramp(pixels, *shared[i - 1]) if i else 1
        falling = 1 - _ramp(pixels, *shared[i]) if i < gaps else 1
        weights.append(rising * falling * torch.ones(len(pixels)))
        total[start:stop] += weights[-1]
    return [
        Span(slice(start, stop), slice(low - start, high - start), weight / total[start:stop])
        for start, stop, low, high, weight in zip(starts, stops, cuts, cuts[1:], weights)
    ]


class TileMeans:
    """Gives the blocks of a network the means of the whole image, as long as it is entered.

    Means over windows (`local_pool_size`) are left alone: they are taken of a block's surroundings in any case.

    Args:
        net: The network that runs the tiles.
    """

    def __init__(self, net: nn.Module) -> None:
        self._all = [m for m in net.modules() if isinstance(m, SpatialMean) and m.window.train_size is None]
        self._sums: dict[nn.Module, tuple[Tensor, int]] = {}
        self._cores: tuple[slice, slice] | None = None

    def __enter__(self) -> TileMeans:
        self._hooks = [mean.register_forward_hook(self._replace) for mean in self._all]
        return self

    def __exit__(self, *_) -> None:
        for hook in self._hooks:
            hook.remove()

    def beforehand(self, tiles: list[tuple[Span, Span]]) -> Iterator[tuple[Span, Span]]:
        """Gives the tiles, rows and columns, to be run one by one beforehand, and counts the means of their cores.

        Their order soon has seen all parts of the image.
        """
        for i in sorted(range(len(tiles)), key=lambda i: i * _GOLDEN % 1) if self._all else ():
            self._cores = tiles[i][0].core, tiles[i][1].core
            yield tiles[i]
        self._cores = None

    def _replace(self, mean: SpatialMean, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        total, count = self._sums.get(mean, (0, 0))
        if self._cores:
            stride, multiple = mean.window.stride, mean.window.multiple
            rows, columns = (
                slice(core.start // stride, math.ceil(core.stop / multiple) * multiple // stride)
                for core in self._cores
            )  # up to where the network pads the image
            features = inputs[0][:, :, rows, columns]
            # Of cores alone: what tiles share would count twice.
            total, count = total + features.sum((2, 3), keepdim=True), count + features.shape[2:].numel()
            self._sums[mean] = total, count
        return total / count


def _ramp(pixels: Tensor, start: int, stop: int) -> Tensor:
    """Rises from 0 to 1 over the middle half of what two neighbours share, from start to stop."""
    width = (stop - start) / 2
    position = (pixels + 0.5 - start - width / 2) / width
    return torch.sin(position.clamp(0, 1) * math.pi / 2) ** 2  # sin^2 and cos^2 add up to 1
