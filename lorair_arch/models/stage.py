"""What the three training stages share: networks and optimisers, in BasicSR's model interface."""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from copy import deepcopy
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from basicsr.archs import build_network
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from torch import Tensor, nn
from torch._functorch import config

from lorair_arch.devices import has_bf16
from lorair_arch.errors import CheckpointError, NumericsError
from lorair_arch.training.checkpoints import last_checkpoint
from lorair_arch.training.resume import networks_folder
from lorair_arch.weights.loading import load_into, save_file, state_dict_of
from lorair_arch.weights.recognise import other_classes


def compile_training(net: nn.Module) -> None:
    """Compiles what a network computes in training mode, once for each size of crops.

    The network stays the object that it was, with the same names of weights; in evaluation mode it runs as before, for
    validation images have many sizes. Should the compiler fail in any step, that step and all others run without it,
    and one warning says why.

    Args:
        net: The network, as it is or wrapped by DDP; it must not be copied afterwards. DataParallel copies it for every
            step: it is left alone, with a warning.
    """
    if isinstance(net, nn.DataParallel):
        _give_up('several GPUs need a process each, started by torchrun')
        return
    if not hasattr(config, 'force_non_lazy_backward_lowering'):
        _give_up(f'PyTorch {torch.__version__} compiles the backward pass too late to do without it; update PyTorch')
        return
    net = getattr(net, 'module', net)
    # with the forward pass, so that a failure does not come in the middle of a step
    config.force_non_lazy_backward_lowering = True
    plain = net.forward
    compiled = torch.compile(plain, dynamic=False)

    def forward(*args: Any) -> Any:
        nonlocal compiled
        if compiled is None or not net.training:
            return plain(*args)
        try:
            return compiled(*args)
        except Exception as error:  # a compiler can raise anything; a mistake of the network's own comes again below
            compiled = None
            error = getattr(error, 'inner_exception', error)
            _give_up(f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}')
        return plain(*args)

    net.forward = forward


def _give_up(reason: str) -> None:
    get_root_logger().warning(f'train.compile: training goes on without it ({reason})')


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


class Saving(BaseModel):
    """Saves one network, its average and its training state, and continues from them."""

    role: str
    net: nn.Module

    def saved_keys(self, state_dict: dict[str, Tensor]) -> list[str]:
        """Gives the names of the tensors that a checkpoint holds."""
        return list(state_dict)

    def describe(self) -> dict:
        """Gives what a reader of a checkpoint must know to build the network again."""
        network = {k: v for k, v in self.opt[f'network_{self.role}'].items() if k != 'pretrained'}
        return {'network': _plain(network), 'degradations': list(self.opt.get('degradations') or [])}

    def save(self, epoch: int, current_iter: int) -> None:
        """Saves networks and training state by BasicSR's rules (-1: the latest)."""
        self.save_weights(current_iter)
        self.save_training_state(epoch, current_iter)

    def weights_path(self, current_iter: int) -> Path:
        label = 'latest' if current_iter == -1 else current_iter
        return Path(self.opt['path']['models'], f'net_{self.role}_{label}.pth')

    @master_only
    def save_weights(self, current_iter: int) -> None:
        """Writes models/net_{role}_{iter}.pth: `params`, with averaging `params_ema`, and `lorair` (`describe`)."""
        nets = {'params': self.get_bare_model(self.net)}
        if self.ema_decay:
            nets['params_ema'] = self.net_ema
        content = {'lorair': self.describe()}
        for name, net in nets.items():
            state_dict = net.state_dict()
            content[name] = {key: state_dict[key].cpu() for key in self.saved_keys(state_dict)}
        save_file(content, self.weights_path(current_iter))

    def extra_state(self) -> dict[str, Any]:
        """Gives what a training state holds beside what every model of BasicSR saves."""
        state = {'best': getattr(self, 'best', {}), 'bad_steps': self.bad_steps}
        return state | {'scaler': self.scaler.state_dict()} if self.scaler.is_enabled() else state

    def resume_training(self, resume_state: dict) -> None:
        """Continues from a training state: its weights, optimisers, schedules, best values and skipped steps."""
        path = networks_folder(self.opt) / self.weights_path(resume_state['iter']).name
        unsaved = set(self.net_state()) - set(self.saved_keys(self.net_state()))
        nets = [('params', self.net)] + ([('params_ema', self.net_ema)] if self.ema_decay else [])
        for param_key, net in nets:
            self.load_network(net, str(path), param_key=param_key, missing=tuple(unsaved))
        super().resume_training(resume_state)
        self.best = resume_state.get('best', {})
        self.bad_steps = resume_state.get('bad_steps', [0, 0])
        if self.scaler.is_enabled() and 'scaler' in resume_state:
            self.scaler.load_state_dict(resume_state['scaler'])

    def net_state(self) -> dict[str, Tensor]:
        return self.get_bare_model(self.net).state_dict()


def _plain(value):
    """Turns the ordered mappings of an options file into plain dicts and lists, which load with weights_only."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


class StageModel(Stepping, Saving):
    """Trains one network; subclasses say which, its losses and its validation.

    Attributes:
        role: Suffix of the network's keys in the options (`network_*`, `optim_*`) and of its files (`net_*`).
        restores_own_weights: On resuming, the pipeline leaves the loading of weights to the model.
    """

    role: str
    restores_own_weights = True

    def __init__(self, opt: dict) -> None:
        super().__init__(opt)
        self.net = self.model_to_device(self.build())
        self.print_network(self.net)
        if self.is_train:
            self.init_training_settings()

    def build(self) -> nn.Module:
        """Builds the network and loads its weights, if the options name any."""
        net = build_network(self.opt[f'network_{self.role}'])
        path = self.opt['path'].get(f'pretrain_network_{self.role}')
        if path:
            self.load_network(net, path, param_key=self.opt['path'].get(f'param_key_{self.role}', 'params'))
        return net

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str = 'params', missing: tuple = ()
    ) -> None:
        """Loads weights of any known format into a network; keys and shapes must fit exactly.

        Args:
            net: The network.
            load_path: File of weights.
            strict: Part of BasicSR's interface; never loosened here.
            param_key: `params` or `params_ema`.
            missing: Ends of the names of tensors that the file may lack.
        """
        state_dict, description = state_dict_of(load_path, param_key)
        mistake = other_classes(description or {}, self.opt.get('degradations'))
        if mistake:
            raise CheckpointError(f'{load_path} {mistake}')
        load_into(self.get_bare_model(net), state_dict, allow_missing=missing, path=load_path)
        get_root_logger().info(f'Loaded {type(net).__name__} from {load_path} [{param_key}].')

    def init_training_settings(self) -> None:
        train = self.opt['train']
        self.net.train()
        self.init_steps()
        if self.ema_decay:
            self.net_ema = deepcopy(self.get_bare_model(self.net)).eval().requires_grad_(False)
        if train.get('compile'):
            compile_training(self.net)
        self.params = [p for p in self.net.parameters() if p.requires_grad]
        settings = dict(train[f'optim_{self.role}'])
        self.optimizers.append(self.get_optimizer(settings.pop('type'), self.params, **settings))
        self.setup_schedulers()

    def get_optimizer(self, optim_type: str, params: list, lr: float, **kwargs) -> torch.optim.Optimizer:
        """Builds any optimiser of `torch.optim` by its name."""
        optimizer = getattr(torch.optim, optim_type)
        # one pass over all weights; PyTorch's own choice on CPUs is a loop in Python
        if 'fused' in signature(optimizer).parameters and not kwargs.keys() & {'foreach', 'fused', 'differentiable'}:
            kwargs['fused'] = True
        return optimizer(params, lr=lr, **kwargs)

    def evaluated_net(self) -> nn.Module:
        """Gives the network that validation and tests use: the averaged one if there is one."""
        return getattr(self, 'net_ema', None) or self.get_bare_model(self.net)
