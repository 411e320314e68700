"""The checkpoints of the three training stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from basicsr.models.base_model import BaseModel
from basicsr.utils.dist_util import master_only
from torch import Tensor, nn

from lorair_arch.running.resume import networks_folder
from lorair_arch.utils.checkpoint import save_file


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
