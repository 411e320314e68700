"""A training step: its batches, its losses, and what happens where numbers are not finite."""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from typing import Any

import torch
import torch.distributed as dist
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from lorair_arch.devices import has_bf16
from lorair_arch.errors import NumericsError
from lorair_arch.running.checkpoints import last_checkpoint


class Stepping(BaseModel):
    """Takes the steps of a model with one network and one optimiser; subclasses say what the losses are.

    A step is made of `train.accumulate` batches, one after the other, whose gradients add up to that of one large
    batch. Where the loss of any batch or the gradient is not finite, the step is skipped: weights, averages and
    optimiser stay as they are. `train.max_bad_steps` such steps in a row end the training. Steps in float16 scale the
    loss; one whose gradient is too large for that alone is skipped too, with a smaller scale from then on.

    Attributes:
        bad_steps: How many steps were skipped in all, and how many in a row.
    """

    net: nn.Module
    params: list[nn.Parameter]

    def init_steps(self) -> None:
        """Reads the options that steps depend on."""
        train = self.opt['train']
        self.grad_clip_norm = train.get('grad_clip_norm')
        self.accumulate = train.get('accumulate', 1)
        self.max_bad_steps = train.get('max_bad_steps', 10)
        self.amp = self._precision(train.get('amp'))
        # small gradients would vanish in float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp is torch.float16)
        self.ema_decay = train.get('ema_decay', 0)
        self.bad_steps = [0, 0]
        self.losses: dict[str, Tensor] = OrderedDict()

    def _precision(self, amp: str | None) -> torch.dtype | None:
        """Gives the type in which steps compute where they may; None: float32 throughout."""
        if amp == 'bf16' and not has_bf16(self.device.type):
            remedy = '; amp: fp16 is faster there' if self.device.type == 'cuda' else ''
            get_root_logger().warning(
                f'train.amp: bf16 would take many times as long as float32 on this {self.device.type.upper()}, which '
                f'does not compute in it by itself: training goes on in float32{remedy}'
            )
            return None
        return {'bf16': torch.bfloat16, 'fp16': torch.float16, None: None}[amp]

    def feed_data(self, data: dict[str, Any]) -> None:
        """Takes what one step is made of, `accumulate` batches in one."""
        self.batches = [data]
        if self.accumulate > 1:
            size = len(data['lq']) // self.accumulate
            starts = range(0, size * self.accumulate, size)
            self.batches = [{key: value[i : i + size] for key, value in data.items()} for i in starts]
        self.take_batch(self.batches[0])

    def take_batch(self, data: dict[str, Any]) -> None:
        """Brings a batch to the device, for `compute_losses`."""
        raise NotImplementedError

    def autocast(self) -> torch.autocast:
        """Gives the precision of training steps, as `train.amp` asks for it. Evaluation runs in float32."""
        return torch.autocast(self.device.type, self.amp or torch.bfloat16, enabled=self.amp is not None)

    def compute_losses(self) -> dict[str, Tensor]:
        """Gives the named losses of the batch at hand, means over its images; their sum is minimised."""
        raise NotImplementedError

    def optimize_parameters(self, current_iter: int) -> None:
        """Takes one step."""
        self.optimizers[0].zero_grad(set_to_none=True)
        totals = []
        for i, batch in enumerate(self.batches):
            if i:
                self.take_batch(batch)
            # gradients are averaged over processes once, with the last batch
            wait = hasattr(self.net, 'no_sync') and i < len(self.batches) - 1
            with self.net.no_sync() if wait else contextlib.nullcontext():
                losses = self.compute_losses()
                totals.append(self._add_gradient(sum(losses.values())))
            self._add_losses(losses, first=i == 0)
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizers[0])
        norm = nn.utils.clip_grad_norm_(self.params, self.grad_clip_norm or math.inf)
        # The one place where a step waits for the device. It has just been given the whole step, and the update that
        # depends on the answer is short.
        if norm.isfinite().item():
            self.optimizers[0].step()
            self.bad_steps[1] = 0
            if self.ema_decay:
                self.update_ema()
        else:
            self.optimizers[0].zero_grad(set_to_none=True)
            self._count_bad_step(current_iter, totals)
        if self.scaler.is_enabled():
            self.scaler.update()

    def _add_gradient(self, total: Tensor) -> Tensor:
        """Adds a batch's share of the gradient; gives its loss.

        A loss that is not finite makes the gradient NaN. With it every process learns of what one of them has met, and
        all decide alike.
        """
        share = torch.where(total.isfinite(), 1 / len(self.batches), math.nan)
        self.scaler.scale(total).backward(share.to(total.dtype))
        return total.detach()

    def _add_losses(self, losses: dict[str, Tensor], first: bool) -> None:
        shares = {name: loss.detach() / len(self.batches) for name, loss in losses.items()}
        self.losses = shares if first else {name: self.losses[name] + share for name, share in shares.items()}

    def _count_bad_step(self, current_iter: int, totals: list[Tensor]) -> None:
        everywhere = [self._suspects(totals)]
        if self.opt['dist']:
            everywhere = [everywhere[0] for _ in range(self.opt['world_size'])]
            dist.all_gather_object(everywhere, self._suspects(totals))
        counts, guilty, all_images = (sum(found, type(found[0])()) for found in zip(*everywhere))
        if not counts and self.scaler.is_enabled() and self.scaler.get_scale() > 1:
            get_root_logger().info(
                f'iteration {current_iter:,}: gradients are beyond float16; the step was skipped, and their scale is '
                f'lowered from {self.scaler.get_scale():g}'
            )
            return
        self.bad_steps = [count + 1 for count in self.bad_steps]
        losses = ', '.join(f'{name} {value.item():.4g}' for name, value in self.losses.items())
        total, in_a_row = self.bad_steps
        get_root_logger().warning(
            f'iteration {current_iter:,}: the loss or its gradient is not finite ({losses}); the step was skipped '
            f'({in_a_row} in a row, {total} in all); its images: {", ".join(guilty or all_images)}'
        )
        if in_a_row >= self.max_bad_steps:
            raise NumericsError(
                f'the loss or its gradient was not finite in {in_a_row} steps in a row, up to iteration '
                f'{current_iter:,}; look at the images that the log names, or lower the learning rate; '
                f'{last_checkpoint(self.opt)}'
            )

    def _suspects(self, totals: list[Tensor]) -> tuple[int, list[str], list[str]]:
        """Gives the number of batches whose loss is not finite, their images, and those of all batches."""
        images = [list(batch.get('lq_path', ())) for batch in self.batches]
        guilty = [paths for paths, total in zip(images, totals) if not total.isfinite()]
        return len(guilty), sum(guilty, []), sum(images, [])

    @torch.no_grad()
    def update_ema(self) -> None:
        """Moves the averaged weights towards the trained ones; frozen weights are equal already."""
        net = self.get_bare_model(self.net)
        for average, param in zip(self.net_ema.parameters(), net.parameters()):
            if param.requires_grad:
                average.lerp_(param, 1 - self.ema_decay)
        for average, buffer in zip(self.net_ema.buffers(), net.buffers()):  # statistics of batch norm
            average.copy_(buffer)

    def get_current_log(self) -> dict[str, float]:
        """Gives the losses of the last step, averaged over processes, and the number of skipped steps, if any."""
        log = self.reduce_loss_dict(self.losses)
        return log | {'skipped_steps': self.bad_steps[0]} if self.bad_steps[0] else log
