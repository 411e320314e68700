"""How a mixed batch runs through a level: group by group, or all its images at once.

Replaces the loop over experts in `conv` of `reference.py` together with `expert_linear.py`. The images of an expert
group share merged weights, so a large level runs one group after the other, as the plain network would: few bytes at a
time, which the caches reward. In a small level merging for each group costs more than its few pixels: there the batch
stays together, and images have weights of their own.

Off (`kernels.disabled('groups')`) all levels keep the batch together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lorair_arch.archs import kernels
from lorair_arch.archs.kernels.strips import add_upsampled

if TYPE_CHECKING:
    from lorair_arch.archs.experts import Routing

# Up to this many pixels for each channel a level keeps its batch together. With 4 crops of 128 pixels, a step that
# trains the experts takes 1.20 times as long if all levels run in groups and 1.04 times if none does; with two experts
# for each image 1.16 and 1.10 times.
_BATCH_PIXELS = 32


class Groups:
    """The features of a batch, in one piece or in one for each of its expert groups.

    Args:
        parts: [b, C, H, W] each; together the batch, in its order.
        routing: The experts of the batch; None in the plain network, which has one group.
    """

    def __init__(self, parts: Sequence[Tensor], routing: Routing | None) -> None:
        self.parts, self.routing = list(parts), routing

    def run(self, module: nn.Module, *more: Tensor) -> Groups:
        """Runs a level, `module(x, experts, *more)`, as suits its size.

        Args:
            module: Takes features and the experts of their images.
            more: What else it takes of each image, [B, ...].
        """
        if self.routing is None:
            return Groups([module(self.parts[0], None, *more)], None)
        channels, height, width = self.parts[0].shape[1:]
        apart = height * width > _BATCH_PIXELS * channels and kernels.enabled('groups')
        chosen = self.routing.groups if apart else [self.routing]
        sizes = [len(experts) for experts in chosen]
        columns = (_cut(tensors, sizes) for tensors in (self.parts, *([tensor] for tensor in more)))
        return Groups([module(x, experts, *rest) for experts, x, *rest in zip(chosen, *columns)], self.routing)

    def add_upsampled(self, up: nn.Module, x: Groups) -> Groups:
        """Adds features of twice the channels and half the size, which `up` doubles once more, to these."""
        if self.routing is None:
            return Groups([add_upsampled(self.parts[0], up, x.parts[0])], None)
        wide = _cut(x.run(up).parts, [len(part) for part in self.parts])
        return Groups([part + nn.functional.pixel_shuffle(y, 2) for part, y in zip(self.parts, wide)], self.routing)

    def whole(self) -> Tensor:
        """Gives the batch in one piece."""
        return torch.cat(self.parts) if len(self.parts) > 1 else self.parts[0]


def _cut(parts: Sequence[Tensor], sizes: Sequence[int]) -> Sequence[Tensor]:
    """Cuts a batch into parts of these sizes, or joins its parts."""
    if len(parts) == len(sizes):
        return parts
    return parts[0].split(list(sizes)) if len(parts) == 1 else [torch.cat(list(parts))]
