"""Building blocks of the restorer: NAFNet's block (arXiv 2204.04676) and the modulation by the degradation prior."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from lorair_arch.archs.experts import Mixture, Routing, make_conv
from lorair_arch.archs.kernels.local_mean import local_mean, pad_to, window_size
from lorair_arch.archs.kernels.strips import strips

Experts = Mixture | Routing | None


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of [B, C, H, W]; with channels_last memory it moves no data."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class _SimpleGate(torch.autograd.Function):
    """Writes both halves of the gradient where they belong; autograd would make them apart and copy them together."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        a, b = x.chunk(2, dim=1)
        return a * b

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        for half, other in zip(grad_x.chunk(2, dim=1), reversed(x.chunk(2, dim=1))):
            torch.mul(grad, other, out=half)
        return grad_x


def simple_gate(x: Tensor) -> Tensor:
    """[B, 2C, H, W] -> [B, C, H, W]: the product of the two halves of the channels."""
    return _SimpleGate.apply(x)


def add(x: Tensor, change: Tensor) -> Tensor:
    """Adds features of one shape; without gradients in place, to save a copy of full size."""
    return x + change if torch.is_grad_enabled() else x.add_(change)


class PoolWindow:
    """Says over which window a block takes its mean: everything, or at test time the size of the training crops.

    Args:
        train_size: Height and width of the training crops, or None for the global mean.
        stride: Image pixels for each pixel of the features.
        multiple: The network pads images to a multiple of this.
    """

    def __init__(self, train_size: tuple[int, int] | None, stride: int, multiple: int) -> None:
        self.train_size, self.stride, self.multiple = train_size, stride, multiple

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        """Gives the window for features of a size; the whole size means the global mean."""
        if self.train_size is None:
            return height, width
        return tuple(
            window_size(train, size, self.stride, self.multiple)
            for train, size in zip(self.train_size, (height, width))
        )


class SpatialMean(nn.Module):
    """The mean over space, [B, C, H, W] -> [B, C, 1, 1], or at test time over windows, see `local_mean`.

    A module of its own, so that a hook can give the mean of a whole image where the features are those of a part.

    Args:
        window: Over what the mean is taken at evaluation.
    """

    def __init__(self, window: PoolWindow) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        window = size if self.training else self.window(*size)
        return x.mean((2, 3), keepdim=True) if window == size else local_mean(x, window)


class NAFBlock(nn.Module):
    """Nonlinear-activation-free block, every convolution of it with experts if there are any.

    Args:
        channels: C.
        window: Where the mean over space is taken at evaluation.
        lora: See `make_conv`.
    """

    def __init__(self, channels: int, window: PoolWindow, lora: dict | None = None) -> None:
        super().__init__()
        c = channels
        self.mean = SpatialMean(window)
        self.norm1 = LayerNorm2d(c)
        self.conv1 = make_conv(c, 2 * c, 1, lora)
        self.conv2 = make_conv(2 * c, 2 * c, 3, lora, padding=1, groups=2 * c)
        self.sca = make_conv(c, c, 1, lora)
        self.conv3 = make_conv(c, c, 1, lora)
        self.norm2 = LayerNorm2d(c)
        self.conv4 = make_conv(c, 2 * c, 1, lora)
        self.conv5 = make_conv(c, c, 1, lora)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor, experts: Experts = None) -> Tensor:
        """x [B, C, H, W] -> [B, C, H, W]; without gradients the result takes the place of x."""
        if not isinstance(experts, Routing) and not torch.is_grad_enabled():
            return self._in_strips(x, experts)
        y = self.conv2.gated(self.conv1(self.norm1(x), experts), experts)
        attention = self.attention(y, experts)
        y = y * attention if torch.is_grad_enabled() else y.mul_(attention)
        x = add(x, self.conv3(y, experts, self.beta))
        del y, attention  # features of full size
        return add(x, self.conv5(simple_gate(self.conv4(self.norm2(x), experts)), experts, self.gamma))

    def _in_strips(self, x: Tensor, experts: Mixture | None) -> Tensor:
        """Keeps nothing of full size beside x and the gated features, however many channels there are in between."""
        y = torch.empty_like(x)
        for strip, seen, inner in strips(x, halo=1):
            y[strip] = self.conv2.gated(self.conv1(self.norm1(x[seen]), experts), experts)[inner]
        attention = self.pooled(y, experts)
        for strip, _, _ in strips(x):
            images, _, rows = strip
            part, gated = x[strip], y[strip]
            gated *= pad_to(attention[images], *x.shape[2:], rows)
            part += self.conv3(gated, experts, self.beta)
            part += self.conv5(simple_gate(self.conv4(self.norm2(part), experts)), experts, self.gamma)
        return x

    def attention(self, x: Tensor, experts: Experts) -> Tensor:
        """Channel attention, [B, C, 1, 1] from the global mean or [B, C, H, W] from local means."""
        return pad_to(self.pooled(x, experts), *x.shape[2:])

    def pooled(self, x: Tensor, experts: Experts) -> Tensor:
        """Channel attention where windows are valid, [B, C, h, w]: 1x1 convolution and padding commute."""
        return self.sca(self.mean(x), experts)


class Modulation(nn.Module):
    """Scales normalised features by what the prior says of the degradation (design of LoRA-IR, section 3.2).

    Args:
        channels: C, a multiple of 16.
        prior_dim: P.
        lora: See `make_conv`.
    """

    def __init__(self, channels: int, prior_dim: int, lora: dict | None = None) -> None:
        super().__init__()
        c = channels
        self.conv1 = make_conv(prior_dim, 128, 1, lora)
        self.conv2 = make_conv(128, c, 1, lora)
        self.conv3 = make_conv(c, c // 16, 1, lora)
        self.conv4 = make_conv(c // 16, c, 1, lora)
        self.norm = LayerNorm2d(c)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))

    def scale(self, prior: Tensor, experts: Experts = None) -> Tensor:
        """Prior features [B, P, 1, 1] -> channel scales [B, C, 1, 1] in (0, 1)."""
        h = self.conv2(F.gelu(self.conv1(prior, experts)), experts)
        return self.conv4(F.relu(self.conv3(h, experts)), experts).sigmoid()

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """x [B, C, H, W], scale [B, C, 1, 1] -> [B, C, H, W]; without gradients the result takes the place of x."""
        scale = scale * self.beta
        if torch.is_grad_enabled():
            return torch.addcmul(x, self.norm(x), scale)
        for strip, _, _ in strips(x):
            x[strip].addcmul_(self.norm(x[strip]), scale[strip[0]])
        return x
