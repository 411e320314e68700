"""1x1 convolution of a batch in which each image has its own low-rank experts.

Image i is mapped by W_i = gain (W + scale sum_j gates_ij B_j A_j). The whole of it, with its gradients, is one function:
autograd would cut the batch into pieces, run thin products one by one, and spend longer between the products than in
them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def expert_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    factors: tuple[Tensor, Tensor],
    experts: Tensor,
    gates: Tensor,
    scale: float,
) -> Tensor:
    """Applies to each image its own low-rank change of a 1x1 convolution.

    Args:
        x: Features, [B, in, H, W].
        weight: W, [out, in, 1, 1].
        bias: [out] or None.
        gain: Scales the output channels, [1, out, 1, 1] or None.
        factors: A, [E, r, in], and B, [E, out, r], of all experts.
        experts: [B, k], those of each image.
        gates: [B, k].
        scale: Factor of B A.

    Returns:
        [B, out, H, W], in the precision of autocast where it is on.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    gates = None if experts.shape[1] == 1 else gates  # the gate of a single expert is 1
    with torch.autocast(device, enabled=False):  # a small change of W must not be rounded away before it is added
        return _ExpertLinear.apply(x, weight, bias, gain, *factors, experts, gates, scale)


class _ExpertLinear(torch.autograd.Function):
    """Merges a weight for each image, or for few pixels runs the two thin factors beside the shared weight."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gain: Tensor | None,
        lora_a: Tensor,
        lora_b: Tensor,
        experts: Tensor,
        gates: Tensor | None,
        scale: float,
    ) -> Tensor:
        rows, w = _rows(x), weight.flatten(1)
        a, b = _mix(lora_a, lora_b, experts, gates, scale)
        scaled_b, scaled_bias = b, bias
        if gain is not None:
            column = gain.view(-1, 1)
            w, scaled_b = w * column, b * column
            scaled_bias = None if bias is None else bias * gain.flatten()
        if bias is not None:
            scaled_bias = scaled_bias.to(x.dtype)
        merged = None
        # merging touches in * out numbers for each image, the two factors (in + out) * pixels
        if rows.shape[1] >= w.shape[1]:
            merged = torch.baddbmm(w, scaled_b, a).to(x.dtype)
            y = torch.bmm(rows, merged.mT) if bias is None else torch.baddbmm(scaled_bias, rows, merged.mT)
        else:
            y = F.linear(rows, w.to(x.dtype), scaled_bias)
            y.baddbmm_(torch.bmm(rows, a.to(x.dtype).mT), scaled_b.to(x.dtype).mT)
        ctx.save_for_backward(x, weight, bias, gain, lora_b, experts, gates, a, b, merged)
        ctx.scale = scale
        return _image(y, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, gain, lora_b, experts, gates, a, b, merged = ctx.saved_tensors
        need_x, need_weight, need_bias, need_gain = ctx.needs_input_grad[:4]
        rows, grad, w, dtype = _rows(x), _rows(grad), weight.flatten(1), weight.dtype
        column = None if gain is None else gain.view(-1, 1)
        scaled_b = b if gain is None else b * column
        grad_x = grad_w = grad_merged = grad_bias = grad_gain = None
        if merged is None or not (need_weight or need_gain):
            low_a, low_b = a.to(x.dtype), scaled_b.to(x.dtype)
            inner, grad_inner = torch.bmm(rows, low_a.mT), torch.bmm(grad, low_b)
            grad_a, grad_b = torch.bmm(grad_inner.mT, rows), torch.bmm(inner.mT, grad).mT
            if need_weight or need_gain:
                grad_w = torch.mm(grad.flatten(0, 1).t(), rows.flatten(0, 1)).to(dtype)
        else:
            grad_merged = torch.bmm(grad.mT, rows).to(dtype)
            grad_a, grad_b = torch.bmm(scaled_b.mT, grad_merged), torch.bmm(a, grad_merged.mT).mT
            grad_w = grad_merged.sum(0)
        if need_x and merged is None:
            grad_x = torch.matmul(grad, (w if gain is None else w * column).to(x.dtype)).baddbmm_(grad_inner, low_a)
        elif need_x:
            grad_x = torch.bmm(grad, merged)
        if need_bias or (need_gain and bias is not None):
            grad_bias = grad.sum((0, 1), dtype=dtype)
        if gain is not None:
            if need_gain:
                grad_gain = (grad_w * w).sum(1) + (grad_b * b).sum((0, 2))
                grad_gain = (grad_gain if bias is None else grad_gain.addcmul(grad_bias, bias)).view_as(gain)
            grad_w = grad_w * column if need_weight else None
            grad_b = grad_b * column
            grad_bias = grad_bias * gain.flatten() if need_bias else None
        grad_factors = _unmix(grad_a.to(dtype), grad_b.to(dtype), lora_b, experts, gates, ctx.scale)
        return (
            None if grad_x is None else _image(grad_x, x),
            grad_w.view_as(weight) if need_weight else None,
            grad_bias,
            grad_gain,
            *grad_factors[:2],
            None,
            grad_factors[2],
            None,
        )


def _rows(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H * W, C], in channels_last memory without a copy."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _image(rows: Tensor, like: Tensor) -> Tensor:
    """[B, H * W, C] -> [B, C, H, W]."""
    return rows.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


def _mix(lora_a: Tensor, lora_b: Tensor, experts: Tensor, gates: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Stacks the factors of each image's experts along the rank: A [B, k r, in] and, gates and scale in it, B."""
    a, b = (factor.index_select(0, experts.flatten()) for factor in (lora_a, lora_b))
    if gates is None:
        return a, b.mul_(scale)
    b = b.unflatten(0, experts.shape) * (gates * scale)[..., None, None]
    return a.unflatten(0, experts.shape).flatten(1, 2), b.transpose(1, 2).flatten(2)


def _unmix(
    grad_a: Tensor, grad_b: Tensor, lora_b: Tensor, experts: Tensor, gates: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The reverse of `_mix`: gradients of A and B of all experts and of the gates."""
    chosen, rank = experts.flatten(), lora_b.shape[2]
    grad_gates = None
    if gates is not None:
        grad_a = grad_a.unflatten(1, (-1, rank)).flatten(0, 1)
        grad_b = grad_b.unflatten(2, (-1, rank)).transpose(1, 2).flatten(0, 1)
        grad_gates = (grad_b * lora_b.index_select(0, chosen)).sum((1, 2)).view_as(gates) * scale
        grad_b = grad_b * gates.view(-1, 1, 1)
    all_a = lora_b.new_zeros(len(lora_b), *grad_a.shape[1:]).index_add_(0, chosen, grad_a)
    return all_a, torch.zeros_like(lora_b).index_add_(0, chosen, grad_b, alpha=scale), grad_gates
