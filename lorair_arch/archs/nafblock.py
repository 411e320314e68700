"""Building blocks of the restorer: NAFNet's block (arXiv 2204.04676) and the modulation by the degradation prior."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorair_arch.archs.experts import ExpertSettings, Routing, make_conv
from lorair_arch.archs.kernels.local_mean import local_mean
from lorair_arch.archs.kernels.strips import in_strips


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of [B, C, H, W]; with channels_last memory it moves no data."""

    # NAFNet's eps; PyTorch's default is 1e-5.
    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # PyTorch's own layer norm takes the last axes alone
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def simple_gate(x: Tensor) -> Tensor:
    """[B, 2C, H, W] -> [B, C, H, W]: the product of the two halves of the channels."""
    a, b = x.chunk(2, dim=1)
    return a * b


class PoolWindow(NamedTuple):
    """Says over which window a block takes its mean: everything, or at test time 1.5 times the training crops.

    Attributes:
        train_size: Height and width of the training crops, pixels, or None for the global mean.
        stride: Image pixels for each pixel of the features.
        multiple: The network pads images to a multiple of this.
    """

    train_size: tuple[int, int] | None
    stride: int
    multiple: int

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        """Gives the window for features of a size; the whole size means the global mean."""
        if self.train_size is None:
            return height, width
        return tuple(min(self._side(train), size) for train, size in zip(self.train_size, (height, width)))

    def _side(self, train: int) -> int:
        # The network pads crops as well.
        features = -(-train // self.multiple) * self.multiple // self.stride  # of a training crop
        return int(1.5 * train) * features // train  # 1.5, and the order of the roundings, are TLC's


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
        # Training sees crops, whole: windows are to give the same at test time (TLC).
        window = size if self.training else self.window(*size)
        return x.mean((2, 3), keepdim=True) if window == size else local_mean(x, window)


class NAFBlock(nn.Module):
    """Nonlinear-activation-free block, every convolution of it with experts if there are any.

    Args:
        channels: C.
        window: Where the mean over space is taken at evaluation.
        lora: See `make_conv`.
    """

    def __init__(self, channels: int, window: PoolWindow, lora: ExpertSettings | None = None) -> None:
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
        # Zeros: every block begins as the identity, as in NAFNet.
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor, experts: Routing | None = None) -> Tensor:
        """x [B, C, H, W] -> [B, C, H, W]; without gradients the result may take the place of x."""

        # Two halves, since the mean over space between them needs all of the features; either half runs in strips.
        def before(x: Tensor) -> Tensor:
            return simple_gate(self.conv2(self.conv1(self.norm1(x), experts), experts))

        def after(x: Tensor, y: Tensor, attention: Tensor) -> Tensor:
            x = x + self.conv3(y * attention, experts, self.beta)
            return x + self.conv5(simple_gate(self.conv4(self.norm2(x), experts)), experts, self.gamma)

        y = in_strips(before, experts, x, halo=1)  # a row above and below, for the 3x3 convolution
        attention = self.sca(self.mean(y), experts)
        return in_strips(after, experts, x, y, attention)


class Modulation(nn.Module):
    """Scales normalised features by what the prior says of the degradation (design of LoRA-IR, section 3.2).

    Args:
        channels: C, a multiple of 16.
        prior_dim: P.
        lora: See `make_conv`.
    """

    def __init__(self, channels: int, prior_dim: int, lora: ExpertSettings | None = None) -> None:
        super().__init__()
        c = channels
        # 128 and 16 are fixed in the release: its weights have these shapes.
        self.conv1 = make_conv(prior_dim, 128, 1, lora)
        self.conv2 = make_conv(128, c, 1, lora)
        self.conv3 = make_conv(c, c // 16, 1, lora)
        self.conv4 = make_conv(c // 16, c, 1, lora)
        self.norm = LayerNorm2d(c)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor, experts: Routing | None, prior: Tensor) -> Tensor:
        """x [B, C, H, W], prior [B, P, 1, 1] -> [B, C, H, W]; without gradients the result may take the place of x."""
        h = self.conv2(F.gelu(self.conv1(prior, experts)), experts)
        scale = self.conv4(F.relu(self.conv3(h, experts)), experts).sigmoid()

        # beta has joined the scale, a number for each channel: one pass over the features in place of two.
        def modulate(x: Tensor, scale: Tensor) -> Tensor:
            return torch.addcmul(x, self.norm(x), scale)

        return in_strips(modulate, experts, x, scale * self.beta)
