"""Experts as their formula is written: one convolution for each expert, summed with its gates.

The official release computes them this way. Here it is the oracle of the tests and the baseline of the benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from lorair_arch.archs import lorair_arch as arch
from lorair_arch.archs.experts import ExpertConv2d, Routing
from lorair_arch.archs.nafblock import simple_gate


def dense_forward(conv: ExpertConv2d, x: Tensor, routing: Routing, gain: Tensor | None = None) -> Tensor:
    """conv(x; W, bias) + sum over all experts i of g_i conv(x; B_i A_i alpha / r), times the gain of each channel.

    Args:
        conv: A convolution with experts.
        x: [B, in, H, W].
        routing: The experts of each image; the batch is in its order.
        gain: [1, out, 1, 1] or None.

    Returns:
        [B, out, H', W'].
    """
    gates = x.new_zeros(len(x), len(conv.lora_A)).scatter(1, routing.experts, routing.gates)
    y = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, groups=conv.groups)
    for i, (a, b) in enumerate(zip(conv.lora_A, conv.lora_B)):
        delta = (b @ a).reshape(conv.weight.shape) * conv.scale
        y = y + gates[:, i, None, None, None] * F.conv2d(x, delta, None, conv.stride, conv.padding, groups=conv.groups)
    return y if gain is None else y * gain


@contextmanager
def dense_experts() -> Iterator[None]:
    """Inside, every network runs its experts densely: no merging, no low-rank factors."""
    with (
        mock.patch.object(arch, '_BATCH_PIXELS', float('inf')),
        mock.patch.object(ExpertConv2d, 'forward', dense_forward),
        mock.patch.object(ExpertConv2d, 'gated', lambda conv, x, routing: simple_gate(dense_forward(conv, x, routing))),
    ):
        yield


def perturb(net: torch.nn.Module, std: float = 0.05) -> None:
    """Moves every parameter off its start: experts, beta and gamma begin at 0, would hide mistakes and save work."""
    with torch.no_grad():
        for param in net.parameters():
            param.add_(torch.randn_like(param) * std)
