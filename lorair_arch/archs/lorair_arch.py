"""The restorer of LoRA-IR: a NAFNet modulated by the degradation prior, refined by low-rank experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorair_arch.archs.experts import ExpertSettings, Merging, Routing, make_conv, route
from lorair_arch.archs.kernels.grouping import Groups
from lorair_arch.archs.nafblock import Modulation, NAFBlock, PoolWindow
from lorair_arch.archs.settings import RESTORER
from lorair_arch.schema import checks_options


class PriorMLP(nn.Sequential):
    """What all levels share of the way from the prior to their modulation: two layers, GELU after each."""

    def __init__(self, prior_dim: int, lora: ExpertSettings | None) -> None:
        # 1x1 convolutions in place of linear layers, as in the release: so the prior's way has experts too.
        first, second = (make_conv(prior_dim, prior_dim, 1, lora) for _ in range(2))
        super().__init__(first, nn.GELU(), second, nn.GELU())

    def forward(self, prior: Tensor, experts: Routing | None = None) -> Tensor:
        """[B, P] -> [B, P, 1, 1]."""
        first, act, second, _ = self
        return act(second(act(first(prior[..., None, None], experts)), experts))


class Stage(nn.Module):
    """Blocks of one level; encoder levels and the middle first modulate their input by the prior."""

    def __init__(
        self,
        channels: int,
        num_blocks: int,
        window: PoolWindow,
        lora: ExpertSettings | None,
        prior_dim: int | None = None,
    ) -> None:
        super().__init__()
        if prior_dim is not None:
            self.modulation = Modulation(channels, prior_dim, lora)
        self.blocks = nn.ModuleList(NAFBlock(channels, window, lora) for _ in range(num_blocks))

    def forward(self, x: Tensor, experts: Routing | None = None, prior: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], prior [B, P, 1, 1] -> [B, C, H, W]."""
        if prior is not None:
            x = self.modulation(x, experts, prior)
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
        experts = ExpertSettings(**lora) if lora else None
        self.top_k, self.num_experts = (experts.top_k, experts.num_experts) if experts else (None, None)
        levels = len(enc_blk_nums)
        self.multiple = 2**levels
        local_pool_size = tuple(local_pool_size) if local_pool_size else None
        channels = [width * 2**i for i in range(levels + 1)]

        def stage(level: int, num_blocks: int, prior_dim: int | None = None) -> Stage:
            window = PoolWindow(local_pool_size, 2**level, self.multiple)
            return Stage(channels[level], num_blocks, window, experts, prior_dim)

        self.prior_mlp = PriorMLP(prior_dim, experts)
        self.intro = make_conv(img_channel, width, 3, experts, padding=1)
        self.encoders = nn.ModuleList(stage(i, num, prior_dim) for i, num in enumerate(enc_blk_nums))
        self.downs = nn.ModuleList(make_conv(c, 2 * c, 2, experts, stride=2) for c in channels[:-1])
        self.middle = stage(levels, middle_blk_num, prior_dim)
        # Without bias as in NAFNet: PixelShuffle makes four pixels of it, of half the channels.
        self.ups = nn.ModuleList(make_conv(c, 2 * c, 1, experts, bias=False) for c in reversed(channels[1:]))
        self.decoders = nn.ModuleList(stage(levels - 1 - i, num) for i, num in enumerate(dec_blk_nums))
        self.ending = make_conv(width, img_channel, 3, experts, padding=1)

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
        net = self.runner(logits)
        if net is not self:
            return net(lq, prior)
        if self.num_experts is None:
            return self._restore(lq, prior)
        # Chosen once, here: the gates of an image are the same in all layers (section 3.3).
        experts, order = route(logits, self.top_k)
        run = self.run_merged if self.merges() else self._restore
        return run(lq[order], prior[order], experts)[order.argsort()]

    def _restore(self, lq: Tensor, prior: Tensor, experts: Routing | None = None) -> Tensor:
        height, width = lq.shape[-2:]
        # Zeros on the right and at the bottom, as NAFNet: trained weights expect these borders.
        image = F.pad(lq, (0, -width % self.multiple, 0, -height % self.multiple))
        # All that follows stays so: layer norm and 1x1 convolutions find the channels of a pixel side by side.
        image = image.contiguous(memory_format=torch.channels_last)
        prior = self.prior_mlp(prior, experts)
        x, skips = Groups([image], experts).run(self.intro), []
        for encoder, down in zip(self.encoders, self.downs):
            x = x.run(encoder, prior)
            skips.append(x)
            x = x.run(down)
        x = x.run(self.middle, prior)
        for up, decoder in zip(self.ups, self.decoders):
            x = skips.pop().add_upsampled(up, x)  # gives the smaller features free before the decoder runs
            x = x.run(decoder)
        # The network learns what is to be added to its input, as NAFNet.
        return (x.run(self.ending).whole() + image)[..., :height, :width]

    def _check_input(self, lq: Tensor, prior: Tensor, logits: Tensor | None) -> None:
        if lq.dim() != 4 or lq.shape[1] != self.img_channel:
            raise ValueError(f'lq has shape {tuple(lq.shape)}, expected [B, {self.img_channel}, H, W].')
        if prior.shape != (len(lq), self.prior_dim):
            raise ValueError(f'prior has shape {tuple(prior.shape)}, expected {(len(lq), self.prior_dim)}.')
        if self.num_experts and (logits is None or logits.shape != (len(lq), self.num_experts)):
            found = 'missing' if logits is None else f'of shape {tuple(logits.shape)}'
            raise ValueError(f'logits are {found}, expected {(len(lq), self.num_experts)}: they choose the experts.')
