"""From the router's logits to the experts that each image of a batch uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Routing:
    """The experts of every image of a batch that is ordered so that images of the same expert are neighbours.

    Attributes:
        experts: [B, k], indices of the experts of each image.
        gates: [B, k], their gates: softmax over the k largest logits (paper, section 3.3).
        sizes: Number of images in each group of neighbours that share their experts.
        merged: Weights of the groups, kept by each convolution that has merged them.
    """

    experts: Tensor
    gates: Tensor
    sizes: tuple[int, ...]
    merged: dict = field(default_factory=dict)

    @property
    def mixtures(self) -> list[Mixture]:
        """The experts of each group."""
        return [Mixture(self, i) for i in range(len(self.sizes))]

    @cached_property
    def of_groups(self) -> tuple[Tensor, Tensor]:
        """Experts and gates of each group, [G, k]."""
        if len(self.sizes) == len(self.experts):
            return self.experts, self.gates
        firsts = [end - size for end, size in zip(accumulate(self.sizes), self.sizes)]
        return self.experts[firsts], self.gates[firsts]


class Mixture(NamedTuple):
    """The experts that one group of images shares."""

    routing: Routing
    group: int


def route(logits: Tensor, top_k: int) -> tuple[Routing, Tensor | None]:
    """Chooses the top-k experts of each image and groups images that use the same single expert.

    Args:
        logits: [B, E].
        top_k: Experts for each image, 1 to E.

    Returns:
        The routing of the reordered batch, and the order [B] in which to take the images (None: as they are).
    """
    top, experts = logits.topk(top_k, dim=1)
    gates = top.softmax(dim=1)
    if top_k > 1:  # two images never share gates that are real numbers
        return Routing(experts, gates, (1,) * len(experts)), None
    chosen = experts.flatten().tolist()
    sizes = tuple(chosen.count(expert) for expert in sorted(set(chosen)))
    if chosen == sorted(chosen):
        return Routing(experts, gates, sizes), None
    order = torch.tensor(sorted(range(len(chosen)), key=chosen.__getitem__), device=logits.device)
    return Routing(experts[order], gates[order], sizes), order
