"""Convolution with a mixture of low-rank experts (LoRA-IR, section 3.3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

    def factors(self, routing: Routing) -> tuple[Tensor, Tensor]:
        """Gives A and B of the active experts, [E', rows, in * kernel] and [E', out / groups * kernel, rows]."""
        if len(routing.active) == len(self.lora_A):
            return self.lora_A, self.lora_B
        return self.lora_A.index_select(0, routing.active), self.lora_B.index_select(0, routing.active)

    def merged_weights(self, routing: Routing) -> tuple[Tensor, ...]:
        """Gives W plus the experts of each group, all in the shape of W."""
        a, b = self.factors(routing)
        weight = self.weight.reshape(1, b.shape[1], a.shape[2])
        with torch.autocast(a.device.type, enabled=False):  # a small change of W must not be rounded away
            # B A read in the order of memory is the change of W: the reshape of the official release
            if routing.single:
                merged = torch.baddbmm(weight, b, a, alpha=self.scale)
            else:
                merged = torch.addmm(weight.flatten(1), routing.gates, (b @ a).flatten(1), alpha=self.scale)
        return merged.view(-1, *self.weight.shape).unbind()

    def forward(self, x: Tensor, experts: Mixture | Routing, gain: Tensor | None = None) -> Tensor:
        """x [B, in, H, W] -> [B, out, H', W'].

        Args:
            x: Features.
            experts: One mixture for the whole batch, or the routing of each image.
            gain: Scales the output channels if given, any shape with `out` elements.
        """
        if isinstance(experts, Mixture):
            return self._merged(x, experts, gain)
        if self.kernel_size == (1, 1):
            return self._low_rank(x, experts, gain)
        parts = zip(x.split(experts.sizes), experts.mixtures)
        return torch.cat([self(part, mixture, gain) for part, mixture in parts])

    def _merged(self, x: Tensor, mixture: Mixture, gain: Tensor | None) -> Tensor:
        """Convolution with the merged weight of a group; the weights of all groups are made with the first."""
        routing, group = mixture
        if group == 0:
            routing.merged[self] = self.merged_weights(routing)
        weight = routing.merged[self][group]
        if group == len(routing.sizes) - 1:
            del routing.merged[self]
        return self._conv_forward(x, *_amplify(weight, self.bias, gain))

    def _low_rank(self, x: Tensor, routing: Routing, gain: Tensor | None) -> Tensor:
        """1x1 convolution of each image with its own experts, as two thin matrix products for all active experts."""
        batch, _, height, width = x.shape
        a, b = self.factors(routing)
        gates = (routing.gates * self.scale).repeat_interleave(a.shape[1], dim=1)  # [B, E' r]
        b = b.transpose(0, 1).flatten(1)
        if gain is not None:
            b = b * gain.view(-1, 1)
        y = self._conv_forward(x, *_amplify(self.weight, self.bias, gain)).permute(0, 2, 3, 1)
        hidden = F.linear(x.permute(0, 2, 3, 1), a.flatten(0, 1)) * gates[:, None, None]
        y = torch.addmm(y.reshape(-1, self.out_channels), hidden.flatten(0, 2), b.t()).view(y.shape)
        return y.permute(0, 3, 1, 2)


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
