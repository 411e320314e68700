"""Depthwise convolution and simple gate of NAFNet's block (arXiv 2204.04676) in one function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def gated_depthwise(x: Tensor, weights: Sequence[Tensor], bias: Tensor, sizes: Sequence[int]) -> Tensor:
    """Multiplies the two halves of the channels of a 3x3 depthwise convolution.

    Args:
        x: Features, [B, 2C, H, W].
        weights: Kernels of each group of images, [2C, 1, 3, 3].
        bias: [2C].
        sizes: Number of images in each group.

    Returns:
        [B, C, H, W], in the precision of autocast where it is on.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        return _GatedDepthwise.apply(x, bias, tuple(sizes), *weights)


class _GatedDepthwise(torch.autograd.Function):
    """Writes what each group gives where it belongs; autograd would make the pieces apart and copy them together."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, bias: Tensor, sizes: tuple[int, ...], *weights: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        y = x.new_empty(batch, height, width, channels // 2).permute(0, 3, 1, 2)
        pre_gate = []
        for part, out, weight in zip(x.split(sizes), y.split(sizes), weights):
            z = F.conv2d(part, weight.to(x.dtype), bias.to(x.dtype), padding=1, groups=channels)
            torch.mul(*z.chunk(2, dim=1), out=out)
            pre_gate.append(z)
        ctx.sizes = sizes
        ctx.save_for_backward(x, bias, *weights, *pre_gate)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, bias, *saved = ctx.saved_tensors
        groups = len(ctx.sizes)
        needed = [ctx.needs_input_grad[0], any(ctx.needs_input_grad[3:]), ctx.needs_input_grad[1]]
        grads = []
        for part, grad_y, weight, z in zip(x.split(ctx.sizes), grad.split(ctx.sizes), saved[:groups], saved[groups:]):
            grad_z = torch.empty_like(z)
            for half, other in zip(grad_z.chunk(2, dim=1), reversed(z.chunk(2, dim=1))):
                torch.mul(grad_y, other, out=half)
            grads.append(
                torch.ops.aten.convolution_backward(
                    grad_z,
                    part,
                    weight.to(x.dtype),
                    bias.shape,
                    (1, 1),
                    (1, 1),
                    (1, 1),
                    False,
                    (0, 0),
                    len(bias),
                    needed,
                )
            )
        grad_x, grad_weights, grad_biases = zip(*grads)
        return (
            (grad_x[0] if groups == 1 else torch.cat(grad_x)) if needed[0] else None,
            sum(grad_biases).to(bias.dtype) if needed[2] else None,
            None,
            *(grad_weight.to(bias.dtype) if needed[1] else None for grad_weight in grad_weights),
        )
