"""Depthwise convolution and simple gate of NAFNet's block (arXiv 2204.04676) in one function."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def gated_depthwise(x: Tensor, weights: Tensor, bias: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Multiplies the two halves of the channels of a 3x3 depthwise convolution.

    Args:
        x: Features, [B, 2C, H, W].
        weights: Kernels of each group of images, [G, 2C, 1, 3, 3].
        bias: [2C].
        sizes: Number of images in each group.

    Returns:
        [B, C, H, W], in the precision of autocast where it is on.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        return _GatedDepthwise.apply(x, weights, bias, sizes)


class _GatedDepthwise(torch.autograd.Function):
    """Writes what each group gives where it belongs; autograd would make the pieces apart and copy them together."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weights: Tensor, bias: Tensor, sizes: tuple[int, ...]) -> Tensor:
        batch, channels, height, width = x.shape
        kernels, offset = weights.to(x.dtype), bias.to(x.dtype)
        y = x.new_empty(batch, height, width, channels // 2).permute(0, 3, 1, 2)
        pre_gate = []
        for part, out, kernel in zip(x.split(sizes), y.split(sizes), kernels):
            z = F.conv2d(part, kernel, offset, padding=1, groups=channels)
            torch.mul(*z.chunk(2, dim=1), out=out)
            pre_gate.append(z)
        ctx.sizes = sizes
        ctx.save_for_backward(x, weights, bias, *pre_gate)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, bias, *pre_gate = ctx.saved_tensors
        channels, needed = len(bias), ctx.needs_input_grad[:3]
        parts = zip(x.split(ctx.sizes), grad.split(ctx.sizes), weights.to(x.dtype), pre_gate)
        grads = []
        for part, grad_y, kernel, z in parts:
            grad_z = torch.empty_like(z)
            for half, other in zip(grad_z.chunk(2, dim=1), reversed(z.chunk(2, dim=1))):
                torch.mul(grad_y, other, out=half)
            settings = [channels], (1, 1), (1, 1), (1, 1), False, (0, 0), channels, needed
            grads.append(torch.ops.aten.convolution_backward(grad_z, part, kernel, *settings))
        grad_x, grad_weights, grad_bias = zip(*grads)
        return (
            (grad_x[0] if len(grad_x) == 1 else torch.cat(grad_x)) if needed[0] else None,
            torch.stack(grad_weights).to(weights.dtype) if needed[1] else None,
            sum(grad_bias).to(bias.dtype) if needed[2] else None,
            None,
        )
