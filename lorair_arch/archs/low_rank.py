"""A matrix product with low-rank changes for groups of rows, as one autograd function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


class _LowRankLinear(torch.autograd.Function):
    """Adds each group's change to its rows in place: no copy of rows, and one product with W for all of them."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, rows: tuple, *factors: Tensor):
        y = torch.mm(x, weight.t()) if bias is None else torch.addmm(bias, x, weight.t())
        hidden = []
        for x_g, y_g, a, b in zip(x.split(rows), y.split(rows), factors[::2], factors[1::2]):
            hidden.append(x_g @ a.t())
            y_g.addmm_(hidden[-1], b.t())
        ctx.rows, ctx.has_bias = rows, bias is not None
        ctx.save_for_backward(x, weight, *factors, *hidden)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor):
        x, weight, *saved = ctx.saved_tensors
        groups = len(ctx.rows)
        factors, hidden = saved[: 2 * groups], saved[2 * groups :]
        grad_x = grad @ weight
        grad_factors = []
        parts = zip(*(t.split(ctx.rows) for t in (x, grad, grad_x)), factors[::2], factors[1::2], hidden)
        for x_g, grad_g, grad_x_g, a, b, h in parts:
            grad_h = grad_g @ b
            grad_x_g.addmm_(grad_h, a)
            grad_factors += [grad_h.t() @ x_g, grad_g.t() @ h]
        grad_weight = grad.t() @ x if ctx.needs_input_grad[1] else None
        grad_bias = grad.sum(0) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias, None, *grad_factors


def low_rank_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, rows: Sequence[int], factors: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """x W' + bias + for each group of rows x A' B'.

    Args:
        x: [N, in].
        weight: W [out, in].
        bias: [out] or None.
        rows: Rows of each group; they sum to N.
        factors: A [r, in] and B [out, r] of each group.

    Returns:
        [N, out].
    """
    flat = [factor for pair in factors for factor in pair]
    device = x.device.type
    if torch.is_autocast_enabled(device):  # in-place products need equal types, which autocast does not see to
        dtype = torch.get_autocast_dtype(device)
        x, weight, *flat = (tensor.to(dtype) for tensor in (x, weight, *flat))
        bias = None if bias is None else bias.to(dtype)
    with torch.autocast(device, enabled=False):
        return _LowRankLinear.apply(x, weight, bias, tuple(rows), *flat)
