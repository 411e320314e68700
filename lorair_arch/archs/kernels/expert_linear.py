"""Convolutions that cover the image patch by patch, with experts of each image's own, as one batched product.

Replaces the loop over experts in `conv` of `reference.py` for kernels of 1x1 and, with stride 2, of 2x2. The
gradients are written by hand: autograd would run thin products one by one, and keep more than is needed. Measured in
fine-tuning steps, of one expert for each image and of two: with autograd's gradients they take 1.13 times as long.

Off (`kernels.disabled('expert_linear')`) each expert group runs a convolution of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def expert_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, stride: int
) -> Tensor:
    """Convolves each image with W + scale * reshape(B A).

    Args:
        x: Features, [B, in, H, W].
        weight: W, [out, in, k, k].
        bias: [out] or None.
        a: A of each image, [B, r, in * k].
        b: B of each image, [B, out * k, r].
        scale: Factor of B A.
        stride: k.

    Returns:
        [B, out, H / k, W / k], in the precision of autocast where it is on.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    patches = x if stride == 1 else F.pixel_unshuffle(x, stride)
    rows = patches.permute(0, 2, 3, 1).flatten(1, 2).contiguous()  # [B, n, in * k * k]
    # Merging touches in * out numbers for each image, the two factors n * (in + out). A step that trains the experts
    # takes 1.14 times as long with merged weights alone.
    way = _Merged if rows.shape[1] >= rows.shape[2] else _LowRank
    with torch.autocast(device, enabled=False):  # a small change of W must not be rounded away before it is added
        y = way.apply(rows, weight.flatten(1), bias, a, b, scale)
    return y.unflatten(1, patches.shape[2:]).permute(0, 3, 1, 2)


class _Merged(torch.autograd.Function):
    """A weight for each image."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        merged = torch.baddbmm(weight.view(b.shape[1], -1), b, a, alpha=scale).view(-1, *weight.shape).to(x.dtype)
        ctx.save_for_backward(x, merged, a, b)
        ctx.scale = scale
        if bias is None:
            return torch.bmm(x, merged.mT)
        return torch.baddbmm(bias.to(x.dtype), x, merged.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, a, b = ctx.saved_tensors
        grad_x = torch.bmm(grad, merged) if ctx.needs_input_grad[0] else None
        grad_bias = grad.sum((0, 1), dtype=a.dtype) if ctx.needs_input_grad[2] else None
        if not ctx.needs_input_grad[1]:
            inner, grad_inner = _inner(x, a), _grad_inner(grad, b)
            return grad_x, None, grad_bias, *_grad_factors(x, grad, a, b, inner, grad_inner, ctx.scale), None
        grad_merged = torch.bmm(grad.mT, x).to(a.dtype)
        grad_weight = grad_merged.sum(0)
        grad_merged = grad_merged.view(*b.shape[:2], -1)
        grad_a = torch.bmm(b.mT, grad_merged).mul_(ctx.scale)
        grad_b = torch.bmm(a, grad_merged.mT).mul_(ctx.scale).mT  # this way round the product is faster
        return grad_x, grad_weight, grad_bias, grad_a, grad_b, None


class _LowRank(torch.autograd.Function):
    """One weight for all, and two thin products for each image: cheaper for few rows."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        inner = _inner(x, a)
        ctx.save_for_backward(x, weight, a, b, inner)
        ctx.scale = scale
        y = F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
        return y.baddbmm_(inner, _wide(b, inner).mT, alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, inner = ctx.saved_tensors
        grad_inner = _grad_inner(grad, b)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.matmul(grad, weight.to(x.dtype))
            _slices(grad_x, a).baddbmm_(_slices(grad_inner, b), a.to(x.dtype), alpha=ctx.scale)
        if ctx.needs_input_grad[1]:
            grad_weight = torch.mm(grad.flatten(0, 1).t(), x.flatten(0, 1)).to(a.dtype)
        grad_bias = grad.sum((0, 1), dtype=a.dtype) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias, *_grad_factors(x, grad, a, b, inner, grad_inner, ctx.scale), None


def _slices(x: Tensor, factor: Tensor) -> Tensor:
    """Cuts the rows [B, n, m c] into those that a factor [B, ..., c] sees, [B, n m, c]."""
    return x.view(len(x), -1, factor.shape[2])


def _wide(b: Tensor, like: Tensor) -> Tensor:
    """B for the m slices of a row at once: [B, out * m, r] -> [B, out, m r], in the precision of features."""
    return b.to(like.dtype).view(len(b), -1, like.shape[2])


def _inner(x: Tensor, a: Tensor) -> Tensor:
    """Features between the factors, [B, n, m r]."""
    return torch.bmm(_slices(x, a), a.to(x.dtype).mT).view(*x.shape[:2], -1)


def _grad_inner(grad: Tensor, b: Tensor) -> Tensor:
    """The gradient of `_inner` without the scale."""
    return torch.bmm(grad, b.to(grad.dtype).view(len(b), grad.shape[2], -1))


def _grad_factors(
    x: Tensor, grad: Tensor, a: Tensor, b: Tensor, inner: Tensor, grad_inner: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Gives the gradients of A and B without that of the merged weight."""
    grad_a = torch.bmm(_slices(grad_inner, b).mT, _slices(x, a))
    grad_b = torch.bmm(inner.mT, grad).mT.reshape(b.shape)
    return grad_a.to(a.dtype).mul_(scale), grad_b.to(b.dtype).mul_(scale)
