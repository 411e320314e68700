"""The restorer of LoRA-IR: a NAFNet modulated by the degradation prior, refined by low-rank experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorair_arch.archs.experts import Merging, Routing, make_conv, route
from lorair_arch.archs.kernels.strips import strips
from lorair_arch.archs.nafblock import Experts, Modulation, NAFBlock, PoolWindow
from lorair_arch.archs.settings import RESTORER
from lorair_arch.schema import checks_options

# Up to this many pixels for each channel a level keeps its batch together, its images with weights of their own; above,
# images that share their experts run through it as a group: fewer bytes at a time, which the caches reward.
_BATCH_PIXELS = 32


class Stage(nn.Module):
    """Blocks of one level; encoder levels and the middle first modulate their input by the prior."""

    def __init__(
        self, channels: int, num_blocks: int, window: PoolWindow, lora: dict | None, prior_dim: int | None = None
    ) -> None:
        super().__init__()
        if prior_dim is not None:
            self.modulation = Modulation(channels, prior_dim, lora)
        self.blocks = nn.ModuleList(NAFBlock(channels, window, lora) for _ in range(num_blocks))

    def forward(self, x: Tensor, experts: Experts, scale: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], scale [B, C, 1, 1] -> [B, C, H, W]."""
        if scale is not None:
            x = self.modulation(x, scale)
        for block in self.blocks:
            x = block(x, experts)
        return x


class LoRAIR(Merging):
    """Restores images, guided by a degradation prior ("Taming Low-Rank Experts ...", arXiv 2410.15385, section 3).

    Args:
        width: Channels of the first level, a multiple of 16; they double with each level.
        enc_blk_nums: Blocks of each encoder level.
        middle_blk_num: Blocks of the middle.
        dec_blk_nums: Blocks of each decoder level, deepest first; as many levels as the encoder has.
        prior_dim: P, size of the degradation prior.
        lora: None for the plain network of pre-training; for fine-tuning `rank`, `num_experts`, `top_k` (default 1) and
            `alpha` (default 2 * rank): every convolution gets that many low-rank experts.
        local_pool_size: (H, W) of the training crops: at evaluation each block then takes its mean over windows of 1.5
            times that size (TLC) in place of the whole image. None: the whole image.
        img_channel: Channels of the image.

    Raises:
        OptionsError: With everything that is wrong with the arguments.
    """

    OPTIONS = RESTORER

    @checks_options(OPTIONS)
    def __init__(
        self,
        width: int,
        enc_blk_nums: Sequence[int],
        middle_blk_num: int,
        dec_blk_nums: Sequence[int],
        prior_dim: int = 384,
        lora: dict | None = None,
        local_pool_size: tuple[int, int] | None = None,
        img_channel: int = 3,
    ) -> None:
        super().__init__()
        self.plain_settings = {
            'width': width,
            'enc_blk_nums': list(enc_blk_nums),
            'middle_blk_num': middle_blk_num,
            'dec_blk_nums': list(dec_blk_nums),
            'prior_dim': prior_dim,
            'local_pool_size': local_pool_size,
            'img_channel': img_channel,
        }
        self.img_channel, self.prior_dim = img_channel, prior_dim
        self.top_k = lora.get('top_k', 1) if lora else None
        self.num_experts = lora['num_experts'] if lora else None
        if lora:
            rank = lora['rank']
            lora = {'rank': rank, 'alpha': lora.get('alpha') or 2 * rank, 'num_experts': lora['num_experts']}
        levels = len(enc_blk_nums)
        self.multiple = 2**levels
        local_pool_size = tuple(local_pool_size) if local_pool_size else None
        channels = [width * 2**i for i in range(levels + 1)]

        def stage(level: int, num_blocks: int, prior_dim: int | None = None) -> Stage:
            window = PoolWindow(local_pool_size, 2**level, self.multiple)
            return Stage(channels[level], num_blocks, window, lora, prior_dim)

        self.prior_mlp = nn.Sequential(
            make_conv(prior_dim, prior_dim, 1, lora), nn.GELU(), make_conv(prior_dim, prior_dim, 1, lora), nn.GELU()
        )
        self.intro = make_conv(img_channel, width, 3, lora, padding=1)
        self.encoders = nn.ModuleList(stage(i, num, prior_dim) for i, num in enumerate(enc_blk_nums))
        self.downs = nn.ModuleList(make_conv(c, 2 * c, 2, lora, stride=2) for c in channels[:-1])
        self.middle = stage(levels, middle_blk_num, prior_dim)
        self.ups = nn.ModuleList(make_conv(c, 2 * c, 1, lora, bias=False) for c in reversed(channels[1:]))
        self.decoders = nn.ModuleList(stage(levels - 1 - i, num) for i, num in enumerate(dec_blk_nums))
        self.ending = make_conv(width, img_channel, 3, lora, padding=1)

    def forward(self, lq: Tensor, prior: Tensor, logits: Tensor | None = None) -> Tensor:
        """Restores a batch.

        Args:
            lq: Degraded images, [B, 3, H, W] in [0, 1], any size.
            prior: Degradation prior of the router, [B, P].
            logits: Degradation logits of the router, [B, E]; needed if the network has experts.

        Returns:
            Restored images, [B, 3, H, W], not clipped.
        """
        self._check_input(lq, prior, logits)
        if self.top_k is None:
            return self._restore(lq, prior, None)
        net = self.runner(logits)
        if net is not self:
            return net(lq, prior)
        routing, order = route(logits, self.top_k)
        if order is None:
            return self._restore(lq, prior, routing)
        return self._restore(lq[order], prior[order], routing)[order.argsort()]

    def runner(self, logits: Tensor | None) -> LoRAIR:
        """Gives the network that runs a batch: the merged one of the expert that all its images share, or this one."""
        if self.top_k == 1 and not self.training and not torch.is_grad_enabled():
            expert, *others = set(logits.argmax(dim=1).tolist())
            if not others:
                return self.kept(expert)
        return self

    def _restore(self, lq: Tensor, prior: Tensor, routing: Routing | None) -> Tensor:
        height, width = lq.shape[-2:]
        m = self.multiple
        x = F.pad(lq, (0, -width % m, 0, -height % m)).contiguous(memory_format=torch.channels_last)
        prior = self._prior_features(prior, routing)
        scales = [stage.modulation.scale(prior, routing) for stage in (*self.encoders, self.middle)]

        parts, skips = [x], []
        parts, experts = self._arrange(parts, routing, self.intro.out_channels)
        parts = [self.intro(x, e) for x, e in zip(parts, experts)]
        for encoder, down, scale in zip(self.encoders, self.downs, scales):
            parts, experts = self._arrange(parts, routing, down.in_channels)
            parts = [encoder(x, e, s) for x, e, s in zip(parts, experts, _regroup([scale], [len(x) for x in parts]))]
            skips.append((parts, experts))
            parts = [down(x, e) for x, e in zip(parts, experts)]
        parts, experts = self._arrange(parts, routing, self.ups[0].in_channels)
        parts = [
            self.middle(x, e, s) for x, e, s in zip(parts, experts, _regroup([scales[-1]], [len(x) for x in parts]))
        ]
        for up, decoder in zip(self.ups, self.decoders):
            skip, next_experts = skips.pop()
            if len(parts) == len(skip) and not torch.is_grad_enabled():
                parts = [_add_up(up, x, s, e) for x, s, e in zip(parts, skip, experts)]
            else:
                parts = [F.pixel_shuffle(up(x, e), 2) for x, e in zip(parts, experts)]
                parts = [x + s for x, s in zip(_regroup(parts, [len(s) for s in skip]), skip)]
            experts = next_experts
            del skip
            parts = [decoder(x, e) for x, e in zip(parts, experts)]
        parts = [self.ending(x, e) for x, e in zip(parts, experts)]
        y = torch.cat(parts) if len(parts) > 1 else parts[0]
        return (y + x)[..., :height, :width]

    def _prior_features(self, prior: Tensor, experts: Experts) -> Tensor:
        """[B, P] -> [B, P, 1, 1], shared by all levels."""
        first, act, second, _ = self.prior_mlp
        return act(second(act(first(prior[..., None, None], experts)), experts))

    def _arrange(
        self, parts: list[Tensor], routing: Routing | None, channels: int
    ) -> tuple[list[Tensor], list[Experts]]:
        """Chooses how a level runs: a part for each group of images that share their experts, or all at once."""
        if routing is None:
            return parts, [None]
        if parts[0].shape[2:].numel() > _BATCH_PIXELS * channels:
            return _regroup(parts, routing.sizes), routing.mixtures
        return _regroup(parts, (sum(routing.sizes),)), [routing]

    def _check_input(self, lq: Tensor, prior: Tensor, logits: Tensor | None) -> None:
        if lq.dim() != 4 or lq.shape[1] != self.img_channel:
            raise ValueError(f'lq has shape {tuple(lq.shape)}, expected [B, {self.img_channel}, H, W].')
        if prior.shape != (len(lq), self.prior_dim):
            raise ValueError(f'prior has shape {tuple(prior.shape)}, expected {(len(lq), self.prior_dim)}.')
        if self.num_experts and (logits is None or logits.shape != (len(lq), self.num_experts)):
            found = 'missing' if logits is None else f'of shape {tuple(logits.shape)}'
            raise ValueError(f'logits are {found}, expected {(len(lq), self.num_experts)}: they choose the experts.')


def _add_up(up: nn.Module, x: Tensor, skip: Tensor, experts: Experts) -> Tensor:
    """Adds features of twice the size to the skip, in its place."""
    if isinstance(experts, Routing):
        return skip.add_(F.pixel_shuffle(up(x, experts), 2))
    for strip, _, _ in strips(x):
        images, every, rows = strip
        skip[images, every, 2 * rows.start : 2 * rows.stop] += F.pixel_shuffle(up(x[strip], experts), 2)
    return skip


def _regroup(parts: list[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """Cuts a batch into parts of the given sizes, or joins the parts into one."""
    if len(parts) == len(sizes):
        return parts
    return list(parts[0].split(sizes)) if len(parts) == 1 else [torch.cat(parts)]
