"""From the router's logits to the experts that each image of a batch uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Routing:
    """The experts of every image of a batch that is ordered so that images of the same expert are neighbours.

    Attributes:
        experts: [B, k], indices of the active experts of each image.
        weights: [B, k], their gates: softmax over the k largest logits (paper, section 3.3).
        sizes: Number of images in each group of neighbours that share their experts.
        active: [E'], indices of the experts that any image uses.
        gates: [B, E'], gates of the active experts for each image.
        single: Whether each image uses one expert; group i then uses the i-th active one.
        merged: Weights of the groups, kept by each convolution from the first group to the last.
    """

    experts: Tensor
    weights: Tensor
    sizes: tuple[int, ...]
    active: Tensor
    gates: Tensor
    single: bool
    merged: dict = field(default_factory=dict)

    @property
    def mixtures(self) -> list[Mixture]:
        """The experts of each group."""
        return [Mixture(self, i) for i in range(len(self.sizes))]


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
    weights = top.softmax(dim=1)
    chosen = experts.tolist()
    order = None
    sizes = (1,) * len(chosen)  # two images never share gates that are real numbers
    if top_k == 1:
        firsts = [row[0] for row in chosen]
        sizes = tuple(firsts.count(expert) for expert in sorted(set(firsts)))
        if firsts != sorted(firsts):
            order = torch.tensor(sorted(range(len(firsts)), key=firsts.__getitem__), device=logits.device)
            experts, weights = experts[order], weights[order]
    active = torch.tensor(sorted(set(chain(*chosen))), device=logits.device)
    columns = torch.searchsorted(active, experts)
    gates = weights.new_zeros(len(chosen), len(active)).scatter(1, columns, weights)
    return Routing(experts, weights, sizes, active, gates, top_k == 1), order
