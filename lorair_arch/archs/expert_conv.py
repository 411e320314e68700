"""Convolution with a mixture of low-rank experts (LoRA-IR, section 3.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lorair_arch.archs.low_rank import low_rank_linear
from lorair_arch.archs.routing import Mixture, Routing


class Conv2d(nn.Conv2d):
    """A plain convolution that takes (and ignores) the experts, so that one network code serves both."""

    def forward(self, x: Tensor, experts: None = None, gain: Tensor | None = None) -> Tensor:
        """x [B, in, H, W] -> [B, out, H', W'], times a gain of each output channel if there is one."""
        return self._conv_forward(x, *_amplify(self.weight, self.bias, gain))


def _amplify(weight: Tensor, bias: Tensor | None, gain: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Scales the outputs of a convolution through its weights: no pass over the features, nothing of them kept."""
    if gain is None:
        return weight, bias
    gain = gain.flatten()
    return weight * gain[:, None, None, None], None if bias is None else bias * gain


class ExpertConv2d(nn.Conv2d):
    """A convolution W plus E low-rank experts, of which each image uses a few.

    Expert i changes the weight by B_i A_i alpha / r, reshaped to the shape of W. Because the sum over experts is linear
    in the weights, no expert ever runs a convolution of its own: images that share their experts use one merged weight
    (`Mixture`), a mixed batch of small features goes through the two factors (`Routing`).

    Args:
        rank: r; the factors have r * kernel_size rows.
        alpha: Scale of the experts is alpha / rank.
        num_experts: E.
        args, kwargs: As for `torch.nn.Conv2d`, with a square kernel.
    """

    def __init__(self, *args, rank: int, alpha: float, num_experts: int, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        k = self.kernel_size[0]
        self.scale = alpha / rank
        self.lora_A = nn.Parameter(torch.empty(num_experts, rank * k, self.in_channels * k))
        self.lora_B = nn.Parameter(torch.zeros(num_experts, self.out_channels // self.groups * k, rank * k))
        for factor in self.lora_A:
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5))

    def factors(self, mixture: Mixture) -> tuple[Tensor, Tensor]:
        """Gives the factors of a mixture, A [k * rows, in * kernel] and B [out / groups * kernel, k * rows]."""
        if mixture.weights is None:
            return self.lora_A[mixture.experts[0]], self.lora_B[mixture.experts[0]]
        experts = list(mixture.experts)
        b = self.lora_B[experts] * mixture.weights.to(self.lora_B.dtype)[:, None, None]
        return self.lora_A[experts].flatten(0, 1), b.transpose(0, 1).flatten(1)

    def merged_weight(self, mixture: Mixture) -> Tensor:
        """Gives W plus the experts of a mixture, in the shape of W."""
        a, b = self.factors(mixture)
        with torch.autocast(a.device.type, enabled=False):  # a small change of W must not be rounded away
            # B A read in the order of memory is the change of W: the reshape of the official release
            merged = torch.addmm(self.weight.reshape(len(b), -1), b, a, alpha=self.scale)
            return merged.view(self.weight.shape)

    def forward(self, x: Tensor, experts: Mixture | Routing, gain: Tensor | None = None) -> Tensor:
        """x [B, in, H, W] -> [B, out, H', W'].

        Args:
            x: Features.
            experts: One mixture for the whole batch, or the routing of each image.
            gain: Scales the output channels if given, any shape with `out` elements.
        """
        if isinstance(experts, Mixture):
            return self._conv_forward(x, *_amplify(self.merged_weight(experts), self.bias, gain))
        if self.kernel_size == (1, 1):
            return self._low_rank(x, experts, gain)
        parts = zip(x.split(experts.sizes), experts.mixtures)
        return torch.cat([self(part, mixture, gain) for part, mixture in parts])

    def _low_rank(self, x: Tensor, routing: Routing, gain: Tensor | None) -> Tensor:
        """1x1 convolution of each image with its own experts, as two thin matrix products."""
        batch, _, height, width = x.shape
        weight, bias = _amplify(self.weight, self.bias, gain)
        factors = []
        for mixture in routing.mixtures:
            a, b = self.factors(mixture)
            factors.append((a, b * self.scale if gain is None else b * (gain.flatten()[:, None] * self.scale)))
        rows = [size * height * width for size in routing.sizes]
        tokens = x.permute(0, 2, 3, 1).reshape(-1, self.in_channels)
        y = low_rank_linear(tokens, weight.flatten(1), bias, rows, factors)
        return y.view(batch, height, width, -1).permute(0, 3, 1, 2)


def make_conv(in_channels: int, out_channels: int, kernel_size: int, lora: dict | None = None, **kwargs) -> nn.Conv2d:
    """Builds a plain convolution (`lora` None) or one with experts.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Side of the kernel.
        lora: None, or rank, alpha and num_experts.
        kwargs: As for `torch.nn.Conv2d`.
    """
    if lora is None:
        return Conv2d(in_channels, out_channels, kernel_size, **kwargs)
    return ExpertConv2d(in_channels, out_channels, kernel_size, **lora, **kwargs)
