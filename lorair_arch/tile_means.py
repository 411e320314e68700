"""The means over space of a whole image, for networks that see it in tiles.

Each block of the restorer multiplies its features by what their mean over the whole image says. A tile has other means:
it would come out darker or lighter than its neighbours. So all tiles are run once beforehand, and what they measure
replaces the means of every tile after that. While they run, each already uses the mean of all before it: the means of a
block depend on those of the blocks before, and come close to those of the whole image in one pass. A sample of the
tiles would not do (scripts/benchmark/README.md).

Stands beside the network: its blocks know nothing of tiles (`SpatialMean`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from lorair_arch.archs.nafblock import SpatialMean

_GOLDEN = 0.6180339887498949

Core = tuple[slice, slice]  # rows and columns within a tile, in pixels of the image


class TileMeans:
    """Gives the blocks of a network the means of the whole image, as long as it is entered.

    Means over windows (`local_pool_size`) are left alone: they are taken of a block's surroundings in any case.

    Args:
        net: The network that runs the tiles.
    """

    def __init__(self, net: nn.Module) -> None:
        self._all = [m for m in net.modules() if isinstance(m, SpatialMean) and m.window.train_size is None]
        self._sums: dict[nn.Module, tuple[Tensor, int]] = {}
        self._core: Core | None = None

    def __enter__(self) -> TileMeans:
        self._hooks = [mean.register_forward_hook(self._replace) for mean in self._all]
        return self

    def __exit__(self, *_) -> None:
        for hook in self._hooks:
            hook.remove()

    def beforehand(self, tiles: Sequence) -> list:
        """Gives the tiles to run beforehand, in an order that soon has seen all parts of the image."""
        order = sorted(range(len(tiles)), key=lambda i: i * _GOLDEN % 1)
        return [tiles[i] for i in order] if self._all else []

    @contextmanager
    def recorded(self, core: Core) -> Iterator[None]:
        """Counts the means of the tile that is run within the context; `core` is the part of it that no other has."""
        self._core = core
        try:
            yield
        finally:
            self._core = None

    def _replace(self, mean: SpatialMean, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        total, count = self._sums.get(mean, (0, 0))
        if self._core:
            stride, multiple = mean.window.stride, mean.window.multiple
            rows, columns = (
                slice(part.start // stride, math.ceil(part.stop / multiple) * multiple // stride) for part in self._core
            )  # up to where the network pads the image
            features = inputs[0][:, :, rows, columns]
            total, count = total + features.sum((2, 3), keepdim=True), count + features.shape[2:].numel()
            self._sums[mean] = total, count
        return total / count
