"""How a mixed batch runs: its expert groups one after the other, or all images at once, each with its own experts.

Replaces the loop over experts in `conv` of `reference.py`. The images of an expert group share merged weights, so a
large level runs one group after the other, as the plain network would: few bytes at a time, which the caches reward. In
a small level merging for each group costs more than its few pixels: there the batch stays together (`Groups`), and
convolutions that cover the image patch by patch, of 1x1 and with stride 2 of 2x2, are one batched product with the
low-rank factors of each image (`expert_linear`). Its gradients are written by hand: autograd would run thin products
one by one, and keep more than is needed; with autograd's a step of fine-tuning takes 1.13 times as long.

Off: `kernels.disabled('groups')`, all levels keep the batch together; `kernels.disabled('expert_linear')`, each expert
group runs a convolution of its own there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from lorair_arch.archs import kernels
from lorair_arch.archs.kernels.strips import add_upsampled


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
        # Autocast does not look into functions with gradients of their own.
        x = x.to(torch.get_autocast_dtype(device))
    # Its channels come in the order of `weight.flatten(1)`: [in, k, k].
    patches = x if stride == 1 else F.pixel_unshuffle(x, stride)
    rows = patches.permute(0, 2, 3, 1).flatten(1, 2).contiguous()  # [B, n, in * k * k]
    # Merging touches in * out numbers for each image, the two factors n * (in + out). A step that trains the experts
    # takes 1.14 times as long with merged weights alone.
    way = _Merged if rows.shape[1] >= rows.shape[2] else _LowRank
    with torch.autocast(device, enabled=False):  # a small change of W must not be rounded away before it is added
        y = way.apply(rows, weight.flatten(1), bias, a, b, scale)
    # Rows of pixels are what channels_last memory holds: a view.
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
        # Added up in float32: bf16 has 8 bits, too few for a sum over all pixels.
        grad_bias = grad.sum((0, 1), dtype=a.dtype) if ctx.needs_input_grad[2] else None
        # W is frozen: two thin products each, in place of the gradient of every image's merged weight.
        if not ctx.needs_input_grad[1]:
            inner, grad_inner = _inner(x, a), _grad_inner(grad, b)
            return grad_x, None, grad_bias, *_grad_factors(x, grad, a, b, inner, grad_inner, ctx.scale), None
        # W learns too, and the gradient that it needs gives those of A and B along the way.
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
        # `inner` has r numbers in place of `in`: little to keep, and spares a product.
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


# Up to this many pixels for each channel a level keeps its batch together. With 4 crops of 128 pixels, a step that
# trains the experts takes 1.20 times as long if all levels run in groups and 1.04 times if none does; with two experts
# for each image 1.16 and 1.10 times.
_BATCH_PIXELS = 32


class Groups:
    """The features of a batch, in one piece or in one for each of its expert groups.

    Args:
        parts: [b, C, H, W] each; together the batch, in its order.
        routing: The `Routing` of the batch; None in the plain network, which has one group.
    """

    def __init__(self, parts: Sequence[Tensor], routing: Any) -> None:  # a type of experts.py, which imports this file
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
        # Merging costs as much as the channels squared, whatever the size: the more pixels, the less it matters.
        apart = height * width > _BATCH_PIXELS * channels and kernels.enabled('groups')
        chosen = self.routing.groups if apart else [self.routing]
        sizes = [len(experts) for experts in chosen]
        columns = (_cut(tensors, sizes) for tensors in (self.parts, *([tensor] for tensor in more)))
        return Groups([module(x, experts, *rest) for experts, x, *rest in zip(chosen, *columns)], self.routing)

    def add_upsampled(self, up: nn.Module, x: Groups) -> Groups:
        """Adds features of twice the channels and half the size, which `up` doubles once more, to these."""
        if self.routing is None:
            return Groups([add_upsampled(self.parts[0], up, x.parts[0])], None)
        # The smaller level may have run the batch whole, and this one in groups.
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
