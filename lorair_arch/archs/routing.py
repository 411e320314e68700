"""From the router's logits to the experts that each image of a batch uses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """The experts that one group of images shares.

    Attributes:
        experts: Indices of the active experts.
        weights: Their gates, [k]; None for a single expert, whose gate is 1.
    """

    experts: tuple[int, ...]
    weights: Tensor | None


@dataclass(frozen=True)
class Routing:
    """The experts of every image of a batch that is ordered so that images of the same expert are neighbours.

    Attributes:
        experts: [B, k], indices of the active experts of each image.
        weights: [B, k], their gates: softmax over the k largest logits (paper, section 3.3).
        sizes: Number of images in each group of neighbours that share their experts.
        mixtures: The experts of each group.
    """

    experts: Tensor
    weights: Tensor
    sizes: tuple[int, ...]
    mixtures: tuple[Mixture, ...]


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
    if top_k > 1:  # gates are real numbers: no two images share them
        mixtures = tuple(Mixture(tuple(row), weights[i]) for i, row in enumerate(chosen))
        return Routing(experts, weights, (1,) * len(chosen), mixtures), None
    chosen = [row[0] for row in chosen]
    order = None
    if chosen != sorted(chosen):
        positions = sorted(range(len(chosen)), key=chosen.__getitem__)
        order = torch.tensor(positions, device=logits.device)
        experts, weights = experts[order], weights[order]
    groups = sorted(set(chosen))
    sizes = tuple(chosen.count(expert) for expert in groups)
    return Routing(experts, weights, sizes, tuple(Mixture((expert,), None) for expert in groups)), order
