"""The plain restorer as one would first write it: NCHW, a hand-written layer norm, gains and scales as passes.

What the benchmark holds the plain network against. Weights have the names and shapes of `LoRAIR`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


class _LayerNorm(torch.autograd.Function):
    """Layer norm over the channels of NCHW with its own backward pass, as NAFNet's code (arXiv 2204.04676) has it."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean = x.mean(1, keepdim=True)
        var = (x - mean).pow(2).mean(1, keepdim=True)
        y = (x - mean) / (var + eps).sqrt()
        ctx.eps = eps
        ctx.save_for_backward(y, var, weight)
        return weight.view(1, -1, 1, 1) * y + bias.view(1, -1, 1, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        y, var, weight = ctx.saved_tensors
        g = grad * weight.view(1, -1, 1, 1)
        mean_g, mean_gy = g.mean(1, keepdim=True), (g * y).mean(1, keepdim=True)
        grad_x = (g - y * mean_gy - mean_g) / (var + ctx.eps).sqrt()
        return grad_x, (grad * y).sum((0, 2, 3)), grad.sum((0, 2, 3)), None


class _LayerNorm2d(nn.Module):
    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return _LayerNorm.apply(x, self.weight, self.bias, self.eps)


class _Block(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _LayerNorm2d(c), _LayerNorm2d(c)
        self.conv1 = nn.Conv2d(c, 2 * c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.sca = nn.Conv2d(c, c, 1)
        self.conv3 = nn.Conv2d(c, c, 1)
        self.conv4 = nn.Conv2d(c, 2 * c, 1)
        self.conv5 = nn.Conv2d(c, c, 1)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv2(self.conv1(self.norm1(x))).chunk(2, dim=1)
        y = a * b
        y = self.conv3(y * self.sca(F.adaptive_avg_pool2d(y, 1)))
        x = x + y * self.beta
        a, b = self.conv4(self.norm2(x)).chunk(2, dim=1)
        return x + self.conv5(a * b) * self.gamma


class _Modulation(nn.Module):
    def __init__(self, c: int, prior_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(prior_dim, 128, 1)
        self.conv2 = nn.Conv2d(128, c, 1)
        self.conv3 = nn.Conv2d(c, c // 16, 1)
        self.conv4 = nn.Conv2d(c // 16, c, 1)
        self.norm = _LayerNorm2d(c)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        h = self.conv2(F.gelu(self.conv1(prior)))
        scale = self.conv4(F.relu(self.conv3(h))).sigmoid()
        return x + self.norm(x) * scale * self.beta


class _Stage(nn.Module):
    def __init__(self, c: int, num_blocks: int, prior_dim: int | None = None) -> None:
        super().__init__()
        if prior_dim is not None:
            self.modulation = _Modulation(c, prior_dim)
        self.blocks = nn.ModuleList(_Block(c) for _ in range(num_blocks))

    def forward(self, x: Tensor, prior: Tensor | None = None) -> Tensor:
        if prior is not None:
            x = self.modulation(x, prior)
        for block in self.blocks:
            x = block(x)
        return x


class NaiveLoRAIR(nn.Module):
    """The plain restorer; arguments as `LoRAIR`'s of the same names."""

    def __init__(
        self,
        width: int,
        enc_blk_nums: Sequence[int],
        middle_blk_num: int,
        dec_blk_nums: Sequence[int],
        prior_dim: int = 384,
    ) -> None:
        super().__init__()
        levels = len(enc_blk_nums)
        channels = [width * 2**i for i in range(levels + 1)]
        self.multiple = 2**levels
        self.prior_mlp = nn.Sequential(
            nn.Conv2d(prior_dim, prior_dim, 1), nn.GELU(), nn.Conv2d(prior_dim, prior_dim, 1), nn.GELU()
        )
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders = nn.ModuleList(_Stage(c, num, prior_dim) for c, num in zip(channels, enc_blk_nums))
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in channels[:-1])
        self.middle = _Stage(channels[-1], middle_blk_num, prior_dim)
        self.ups = nn.ModuleList(nn.Conv2d(c, 2 * c, 1, bias=False) for c in reversed(channels[1:]))
        self.decoders = nn.ModuleList(_Stage(c, num) for c, num in zip(reversed(channels[:-1]), dec_blk_nums))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, lq: Tensor, prior: Tensor, logits: None = None) -> Tensor:
        """lq [B, 3, H, W], prior [B, P] -> restored [B, 3, H, W]; logits are ignored."""
        height, width = lq.shape[-2:]
        lq = F.pad(lq, (0, -width % self.multiple, 0, -height % self.multiple))
        prior = self.prior_mlp(prior[..., None, None])
        x, skips = self.intro(lq), []
        for encoder, down in zip(self.encoders, self.downs):
            skips.append(encoder(x, prior))
            x = down(skips[-1])
        x = self.middle(x, prior)
        for up, decoder in zip(self.ups, self.decoders):
            x = decoder(F.pixel_shuffle(up(x), 2) + skips.pop())
        return (self.ending(x) + lq)[..., :height, :width]
