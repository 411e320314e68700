"""What the three training stages share: one network and one optimiser, in BasicSR's model interface."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
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
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from lorair_arch.devices import compile_training, has_bf16
from lorair_arch.errors import CheckpointError, NumericsError
from lorair_arch.models.validation import Validated
from lorair_arch.weights.files import save_file
from lorair_arch.weights.loading import kind_of, load_into, other_classes
from lorair_arch.weights.pretrained import weights_for

# What there is one of for each degradation: the router's head, the restorer's experts.
_OF_CLASSES = re.compile(r'head\.(weight|bias)|.*\.lora_[AB]')


# `Validated` first: its `validation` goes before BasicSR's.
class StageModel(Validated, BaseModel):
    """Trains one network; subclasses say which, its losses and its validation.

    A step is made of `train.accumulate` batches, one after the other, whose gradients add up to that of one large
    batch. Where the loss of any batch or the gradient is not finite, the step is skipped: weights, averages and
    optimiser stay as they are. `train.max_bad_steps` such steps in a row end the training. Steps in float16 scale the
    loss; one whose gradient is too large for that alone is skipped too, with a smaller scale from then on.

    Attributes:
        role: Suffix of the network's keys in the options (`network_*`, `optim_*`) and of its files (`net_*`).
        kind: What a checkpoint holds: 'router', 'restorer' or 'experts'.
        bad_steps: How many steps were skipped in all, and how many in a row.
    """

    role: str
    kind: str

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        self.best: dict[str, dict[str, tuple[float, int]]] = {}  # by data set and metric: the value, its iteration
        self.said: set[str] = set()  # sentences about metrics, in the log
        self.before: list[dict[str, Any]] = []  # trainings of the weights that this one begins with
        self.net = self.model_to_device(self.build())
        self.print_network(self.net)
        if self.is_train:
            self.init_training_settings()

    def build(self) -> nn.Module:
        """Builds the network and loads its weights, if the options name any."""
        net = build_network(self.opt[f'network_{self.role}'])
        path = self.opt['path'].get(f'pretrain_network_{self.role}')
        if path:
            param_key = self.opt['path'].get(f'param_key_{self.role}', 'params')
            self.load_network(net, path, param_key=param_key, begins=self.is_train)
        return net

    def load_network(
        self,
        net: nn.Module,
        load_path: str,
        strict: bool = True,
        param_key: str = 'params',
        missing: tuple = (),
        begins: bool = False,
    ) -> None:
        """Loads weights of any known format into a network; keys and shapes must fit exactly.

        Args:
            net, load_path: The network, and the file of weights.
            strict: Part of BasicSR's interface; never loosened here.
            param_key: `params` or `params_ema`.
            missing: Ends of the names of tensors that the file may lack.
            begins: A training begins with them. If they are for other degradations, what there is for each of them,
                the router's head or the experts, begins anew; experts that the network lacks are left out.
        """
        bare, names = self.get_bare_model(net), self.opt.get('degradations')
        state_dict, description = weights_for(kind_of(bare.state_dict()), load_path, param_key)
        mistake = other_classes(description, names)
        left_out = []
        if begins and kind_of(state_dict) != 'experts':
            self.before = description.get('training') or []
            own = bare.state_dict()
            left_out = [key for key in state_dict if _OF_CLASSES.fullmatch(key) and (mistake or key not in own)]
        if mistake and not left_out:
            raise CheckpointError(f'{load_path} {mistake}')
        if left_out:
            state_dict = {key: value for key, value in state_dict.items() if key not in left_out}
            what, be, they = ('head', 'is', 'it') if 'head.weight' in left_out else ('experts', 'are', 'they')
            why = f'not taken over: {they} {be} for {", ".join(description["degradations"])}' if mistake else 'left out'
            get_root_logger().info(f'Of {load_path} the {what} ({len(left_out)} tensors) {be} {why}.')
        load_into(bare, state_dict, allow_missing=(*missing, *left_out), path=load_path)
        get_root_logger().info(f'Loaded {type(net).__name__} from {load_path} [{param_key}].')

    def init_training_settings(self) -> None:
        """Builds optimiser and schedule, and all else that steps depend on."""
        train = self.opt['train']
        self.net.train()
        self.amp = self._precision(train.get('amp'))
        # small gradients would vanish in float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp is torch.float16)
        self.bad_steps = [0, 0]
        self.losses: dict[str, Tensor] = {}
        self.ema_decay = train.get('ema_decay', 0)
        if self.ema_decay:
            # Before compiling: `compile_training` puts a function into the network, which a copy would share.
            self.net_ema = deepcopy(self.get_bare_model(self.net)).eval().requires_grad_(False)
        if train.get('compile'):
            compile_training(self.net)
        self.params = [p for p in self.net.parameters() if p.requires_grad]
        # A copy: BasicSR pops `type` out of the options themselves, and a second model of them fails.
        settings = dict(train[f'optim_{self.role}'])
        self.optimizers.append(self.get_optimizer(settings.pop('type'), self.params, **settings))
        self.setup_schedulers()

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

    def get_optimizer(self, optim_type: str, params: list, lr: float, **kwargs) -> torch.optim.Optimizer:
        """Builds any optimiser of `torch.optim` by its name."""
        optimizer = getattr(torch.optim, optim_type)
        # one pass over all weights; PyTorch's own choice on CPUs is a loop in Python
        if 'fused' in signature(optimizer).parameters and not kwargs.keys() & {'foreach', 'fused', 'differentiable'}:
            kwargs['fused'] = True
        return optimizer(params, lr=lr, **kwargs)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Takes what one step is made of, `accumulate` batches in one."""
        self.batches, count = [data], self.opt['train'].get('accumulate', 1)
        if count > 1:
            size = len(data['lq']) // count
            # Read as one batch, see `build_train_loader`.
            parts = [slice(i * size, (i + 1) * size) for i in range(count)]
            self.batches = [{key: value[part] for key, value in data.items()} for part in parts]
        self.take_batch(self.batches[0])

    def take_batch(self, data: dict[str, Any]) -> None:
        """Brings a batch to the device, for `compute_losses`."""
        raise NotImplementedError

    def compute_losses(self) -> dict[str, Tensor]:
        """Gives the named losses of the batch at hand, means over its images; their sum is minimised."""
        raise NotImplementedError

    def autocast(self) -> torch.autocast:
        """Gives the precision of training steps, as `train.amp` asks for it. Evaluation runs in float32."""
        return torch.autocast(self.device.type, self.amp or torch.bfloat16, enabled=self.amp is not None)

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
            shares = {name: loss.detach() / len(self.batches) for name, loss in losses.items()}
            # Tensors, added up on the device: `get_current_log` alone asks for their values.
            self.losses = {name: self.losses[name] + share for name, share in shares.items()} if i else shares
        if self.scaler.is_enabled():
            # Before the norm is taken: clipping at 0.01 speaks of the true gradient.
            self.scaler.unscale_(self.optimizers[0])
        # Clipped at infinity nothing changes, but the norm tells whether all of the gradient is finite.
        norm = nn.utils.clip_grad_norm_(self.params, self.opt['train'].get('grad_clip_norm') or math.inf)
        # The one place where a step waits for the device. It has just been given the whole step, and the update that
        # depends on the answer is short.
        if norm.isfinite().item():
            # Not `scaler.step`, which would ask the device once more whether the gradient is finite.
            self.optimizers[0].step()
            self.bad_steps[1] = 0
            if self.ema_decay:
                self.update_ema()
        else:
            self.optimizers[0].zero_grad(set_to_none=True)
            self._count_bad_step(current_iter, totals)
        # After every step, skipped ones too: it lowers the scale when gradients were too large, and raises it in time.
        if self.scaler.is_enabled():
            self.scaler.update()

    def _add_gradient(self, total: Tensor) -> Tensor:
        """Adds a batch's share of the gradient; gives its loss.

        A loss that is not finite makes the gradient NaN. With it every process learns of what one of them has met, and
        all decide alike.
        """
        # Decided on the device: to ask here would wait for each batch.
        share = torch.where(total.isfinite(), 1 / len(self.batches), math.nan)
        self.scaler.scale(total).backward(share.to(total.dtype))
        return total.detach()

    def _count_bad_step(self, current_iter: int, totals: list[Tensor]) -> None:
        """Says whose images spoilt a step, of all processes."""
        images = [list(batch.get('lq_path', ())) for batch in self.batches]
        guilty = [paths for paths, total in zip(images, totals) if not total.isfinite()]
        everywhere = [(len(guilty), sum(guilty, []), sum(images, []))]
        if self.opt['dist']:
            everywhere *= self.opt['world_size']
            dist.all_gather_object(everywhere, everywhere[0])
        counts, guilty, all_images = (sum(found, type(found[0])()) for found in zip(*everywhere))
        # Every loss was finite: then float16 is to blame, unless the scale cannot go lower.
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
        if in_a_row >= self.opt['train'].get('max_bad_steps', 10):
            raise NumericsError(
                f'the loss or its gradient was not finite in {in_a_row} steps in a row, up to iteration '
                f'{current_iter:,}; look at the images that the log names, or lower the learning rate'
            )

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

    @contextlib.contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        """Gives the network that validations and tests use, the averaged one if there is one, in evaluation mode."""
        net = getattr(self, 'net_ema', None) or self.get_bare_model(self.net)
        training = net.training
        with torch.no_grad():
            yield net.eval()
        net.train(training)

    def saved_keys(self, state_dict: dict[str, Tensor]) -> list[str]:
        """Gives the names of the tensors that a checkpoint holds."""
        return list(state_dict)

    def describe(self, current_iter: int) -> dict[str, Any]:
        """Gives what a reader of a checkpoint must know to build the network again, and the trainings that made it."""
        # The weights are in the checkpoint: whoever reads it must not download CLIP's.
        network = {k: v for k, v in self.opt[f'network_{self.role}'].items() if k != 'pretrained'}
        steps = self.opt['train']['total_iter'] if current_iter == -1 else current_iter
        this = {'name': self.opt['name'], 'model_type': self.opt['model_type'], 'iterations': steps}
        return {
            'kind': self.kind,
            'network': network,
            'degradations': list(self.opt.get('degradations') or []),
            'training': [this] if self.kind == 'experts' else [*self.before, this],
        }

    def save(self, epoch: int, current_iter: int) -> None:
        """Saves networks and training state by BasicSR's rules (-1: the latest)."""
        self.save_weights(current_iter)
        self.save_training_state(epoch, current_iter)

    @master_only
    def save_weights(self, current_iter: int) -> None:
        """Writes models/net_{role}_{iter}.pth: `params`, with averaging `params_ema`, and `lorair` (`describe`)."""
        content: dict[str, Any] = {'lorair': self.describe(current_iter)}
        for name, net in self._nets().items():
            state_dict = net.state_dict()
            content[name] = {key: state_dict[key].cpu() for key in self.saved_keys(state_dict)}
        save_file(content, Path(self.opt['path']['models'], self._file(current_iter)))

    def _nets(self) -> dict[str, nn.Module]:
        nets = {'params': self.get_bare_model(self.net)}
        return nets | {'params_ema': self.net_ema} if self.ema_decay else nets

    def _file(self, current_iter: int) -> str:
        return f'net_{self.role}_{"latest" if current_iter == -1 else current_iter}.pth'

    def extra_state(self) -> dict[str, Any]:
        """Gives what a training state holds beside what every model of BasicSR saves."""
        state = {'best': self.best, 'bad_steps': self.bad_steps}
        return state | {'scaler': self.scaler.state_dict()} if self.scaler.is_enabled() else state

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Continues from a training state: its weights, optimisers, schedules, best values and skipped steps.

        Args:
            resume_state: The state; `networks` is the folder of the weights that were saved along.
        """
        path = Path(resume_state['networks'], self._file(resume_state['iter']))
        # What a checkpoint leaves out, as frozen weights of fine-tuning, has been loaded by `build`.
        names = self.get_bare_model(self.net).state_dict()
        unsaved = tuple(names.keys() - self.saved_keys(names))
        for param_key, net in self._nets().items():
            self.load_network(net, str(path), param_key=param_key, missing=unsaved)
        super().resume_training(resume_state)
        self.best = resume_state.get('best', {})
        self.bad_steps = resume_state.get('bad_steps', [0, 0])
        if self.scaler.is_enabled() and 'scaler' in resume_state:
            self.scaler.load_state_dict(resume_state['scaler'])


def is_stage(opt: dict[str, Any]) -> bool:
    """Tells whether options are of a stage: such a model resumes its own weights, and shares images when validating."""
    return issubclass(MODEL_REGISTRY.get(opt['model_type']), StageModel)
