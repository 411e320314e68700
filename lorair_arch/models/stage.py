"""What the three training stages share: networks, optimisation, saving and resuming, in BasicSR's model interface."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from pathlib import Path

import torch
from basicsr.archs import build_network
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from torch import Tensor, nn

from lorair_arch.errors import OptionsError
from lorair_arch.utils.checkpoint import load_into, save_file, state_dict_of


class StageModel(BaseModel):
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
        state_dict, _ = state_dict_of(load_path, param_key)
        load_into(self.get_bare_model(net), state_dict, allow_missing=missing, path=load_path)
        get_root_logger().info(f'Loaded {type(net).__name__} from {load_path} [{param_key}].')

    def init_training_settings(self) -> None:
        train = self.opt['train']
        self.net.train()
        self.grad_clip_norm = train.get('grad_clip_norm')
        self.amp = train.get('amp') == 'bf16'
        self.ema_decay = train.get('ema_decay', 0)
        if self.ema_decay:
            self.net_ema = deepcopy(self.get_bare_model(self.net)).eval().requires_grad_(False)
        self.params = [p for p in self.net.parameters() if p.requires_grad]
        settings = dict(train[f'optim_{self.role}'])
        self.optimizers.append(self.get_optimizer(settings.pop('type'), self.params, **settings))
        self.setup_schedulers()
        self.losses: dict[str, Tensor] = OrderedDict()

    def get_optimizer(self, optim_type: str, params: list, lr: float, **kwargs) -> torch.optim.Optimizer:
        """Builds any optimiser of `torch.optim` by its name."""
        optimizer = getattr(torch.optim, optim_type, None)
        if optimizer is None:
            raise OptionsError(
                f'train.optim_{self.role}.type is {optim_type!r}, expected one of torch.optim, e.g. AdamW.'
            )
        return optimizer(params, lr=lr, **kwargs)

    def autocast(self) -> torch.autocast:
        """Gives the precision of training steps: bf16 where `train.amp` asks for it. Evaluation runs in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp)

    def compute_losses(self) -> dict[str, Tensor]:
        """Gives the named losses of the batch at hand; their sum is minimised."""
        raise NotImplementedError

    def optimize_parameters(self, current_iter: int) -> None:
        """Takes one step."""
        optimizer = self.optimizers[0]
        optimizer.zero_grad(set_to_none=True)
        losses = self.compute_losses()
        sum(losses.values()).backward()
        if self.grad_clip_norm:
            nn.utils.clip_grad_norm_(self.params, self.grad_clip_norm)
        optimizer.step()
        self.losses = {name: loss.detach() for name, loss in losses.items()}
        if self.ema_decay:
            self.update_ema()

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
        """Gives the losses of the last step, averaged over processes; only here is the device waited for."""
        return self.reduce_loss_dict(self.losses)

    def evaluated_net(self) -> nn.Module:
        """Gives the network that validation and tests use: the averaged one if there is one."""
        return getattr(self, 'net_ema', None) or self.get_bare_model(self.net)

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

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Writes training_states/{iter}.state, all that resuming needs beside the weights."""
        if current_iter == -1:
            return
        state = {
            'epoch': epoch,
            'iter': current_iter,
            'optimizers': [o.state_dict() for o in self.optimizers],
            'schedulers': [s.state_dict() for s in self.schedulers],
            'best': getattr(self, 'best', {}),
            'progress': self.opt.get('progress'),
        }
        save_file(state, Path(self.opt['path']['training_states'], f'{current_iter}.state'))

    def resume_training(self, resume_state: dict) -> None:
        """Continues from a training state: its weights, optimisers, schedules and best values."""
        path = self.weights_path(resume_state['iter'])
        unsaved = set(self.net_state()) - set(self.saved_keys(self.net_state()))
        nets = [('params', self.net)] + ([('params_ema', self.net_ema)] if self.ema_decay else [])
        for param_key, net in nets:
            self.load_network(net, str(path), param_key=param_key, missing=tuple(unsaved))
        super().resume_training(resume_state)
        self.best = resume_state.get('best', {})

    def net_state(self) -> dict[str, Tensor]:
        return self.get_bare_model(self.net).state_dict()


def _plain(value):
    """Turns the ordered mappings of an options file into plain dicts and lists, which load with weights_only."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
