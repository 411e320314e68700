"""What the three training stages share: networks and optimisers, in BasicSR's model interface."""

from __future__ import annotations

from copy import deepcopy
from inspect import signature

import torch
from basicsr.archs import build_network
from basicsr.utils import get_root_logger
from torch import nn

from lorair_arch.errors import CheckpointError, OptionsError
from lorair_arch.models.compiling import compile_training
from lorair_arch.models.saving import Saving
from lorair_arch.models.stepping import Stepping
from lorair_arch.utils.checkpoint import load_into, state_dict_of
from lorair_arch.utils.recognise import other_classes


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
        optimizer = getattr(torch.optim, optim_type, None)
        if optimizer is None:
            raise OptionsError(
                f'train.optim_{self.role}.type is {optim_type!r}, expected one of torch.optim, e.g. AdamW.'
            )
        # one pass over all weights; PyTorch's own choice on CPUs is a loop in Python
        if 'fused' in signature(optimizer).parameters and not kwargs.keys() & {'foreach', 'fused', 'differentiable'}:
            kwargs['fused'] = True
        return optimizer(params, lr=lr, **kwargs)

    def evaluated_net(self) -> nn.Module:
        """Gives the network that validation and tests use: the averaged one if there is one."""
        return getattr(self, 'net_ema', None) or self.get_bare_model(self.net)
