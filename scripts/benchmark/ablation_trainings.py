"""The trainings that ablations.py compares: those of options/zoo, narrower and shorter, and each without a part."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from lorair_arch import Restorer
from lorair_arch.archs import network_class
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.settings import ROUTER
from lorair_arch.cli import basicsr
from lorair_arch.errors import LoRAIRError
from lorair_arch.options.yaml_file import read_files
from lorair_arch.schema import Section, boolean
from lorair_arch.weights.pretrained import load_networks

_ZOO = Path(__file__).parents[2] / 'options/zoo'
_ROUTER = 'lorair-tiny'
_RANK, _NUM = 2, 7
_EXPERTS = {'rank': _RANK, 'num_experts': _NUM, 'top_k': 1}
# Weights that have been trained before are changed more slowly than experts, which begin at zero.
_RATE, _RATE_AGAIN = 1e-3, 3e-4


@dataclass(frozen=True)
class Training:
    """A training.

    Attributes:
        name: In tables.
        before: The training whose weights of the same seed it begins with; None: a pre-training from scratch.
        lora: The experts; None: none.
        learns: `train.trainable` of those with experts.
        router: Options of `AblatedRouter`.
    """

    name: str
    before: str | None = None
    lora: dict[str, int] | None = None
    learns: str = 'lora'
    router: dict[str, Any] | None = None

    @property
    def is_again(self) -> bool:
        """Whether weights learn that have been trained before."""
        return bool(self.before) and not (self.lora and self.learns == 'lora')

    def experiment(self, seed: int, folder: Path) -> str:
        """Gives the name of its folder in experiments/; results of other settings are in a `folder` of another name."""
        return f'{folder.name}_{self.name.replace(",", "").replace(" ", "_")}_{seed}'


TRAININGS = {
    training.name: training
    for training in (
        Training('no prior', router={'prior': False}),
        Training('prior'),
        Training('prior, trained longer', 'prior'),
        Training('experts', 'prior', _EXPERTS),
        Training('experts, all weights learn', 'prior', _EXPERTS, 'all'),
        Training('one adapter', 'prior', _EXPERTS | {'rank': _RANK * _NUM}, router={'first': True}),
    )
}


class AblatedRouter(DegradationRouter):
    """A router without its prior, or without its choice.

    Args:
        prior: Whether there is a prior; else it is zero.
        first: Whether the first expert is chosen whatever the image, so that it is one adapter for all.
        more: See `DegradationRouter`.
    """

    OPTIONS = Section(keys=ROUTER.keys | {'prior': boolean(), 'first': boolean()})

    def __init__(self, prior: bool = True, first: bool = False, **more: Any) -> None:
        super().__init__(**more)
        self.has_prior, self.first = prior, first

    def classify(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """See `DegradationRouter`."""
        logits, prior = super().classify(views)
        if self.first:
            logits = nn.functional.one_hot(torch.zeros(len(logits), dtype=torch.long), logits.shape[1]).to(logits)
        return logits, prior if self.has_prior else torch.zeros_like(prior)


def train(training: Training, seed: int, steps: int, crop: int, batch: int, folder: Path) -> Path:
    """Trains in experiments/, or continues there; what is trained already stays as it is.

    Args:
        training: What to train.
        seed: Of the weights and of the order of the images.
        steps: Iterations.
        crop: Side of the crops in pixels.
        batch: Crops of a step.
        folder: Where its options file is written.

    Returns:
        The options file.

    Raises:
        LoRAIRError: The training failed.
    """
    from basicsr.utils.registry import ARCH_REGISTRY  # after lorair_arch, which mends its imports

    if AblatedRouter.__name__ not in ARCH_REGISTRY:
        ARCH_REGISTRY.register(AblatedRouter)
    stage = '3_finetune' if training.lora else '2_pretrain'
    rate = _RATE_AGAIN if training.is_again else _RATE
    opt: dict[str, Any] = {
        'base': os.path.relpath(_ZOO / f'{stage}.yml', folder),
        'name': training.experiment(seed, folder),
        'manual_seed': seed,
        'datasets': {'train': {'gt_size': crop, 'batch_size_per_gpu': batch, 'num_worker_per_gpu': 1, 'seed': seed}},
        'network_g': {'width': 16} | ({'lora': training.lora} if training.lora else {}),
        'network_router': {'type': 'AblatedRouter'} | (training.router or {}),
        'path': {'pretrain_network_router': _ROUTER},
        'train': {
            'amp': None,
            'total_iter': steps,
            'optim_g': {'lr': rate},
            'scheduler': {'periods': [steps]},
            'ema_decay': 0.99,
        },
        'val': None,
        'logger': {'use_tb_logger': False},
    }
    if training.lora:
        opt['train']['trainable'] = training.learns
    if training.before:
        opt['path'] |= {
            'pretrain_network_g': _weights(TRAININGS[training.before], seed, folder),
            'param_key_g': 'params_ema',
        }
    file = folder / f'{training.experiment(seed, folder)}.yml'
    file.write_text(yaml.safe_dump(opt, sort_keys=False), encoding='utf-8')
    # the last weights are written at the end
    if not Path(_weights(training, seed, folder)).exists() and basicsr(['train', '-opt', str(file), '--auto_resume']):
        raise LoRAIRError(f'{file}: the training failed')
    return file


def restorer_of(training: Training, seed: int, file: Path) -> Restorer:
    """Gives the restorer of a training's averaged weights.

    Args:
        training, seed: Which.
        file: Its options file.
    """
    opt = read_files([file])[0].content()
    router, net = (
        network_class(opt[key]['type'])(**_without_type(opt[key])) for key in ('network_router', 'network_g')
    )
    router.load_state_dict(load_networks(_ROUTER)[0].state_dict())
    state: dict[str, Tensor] = {}  # a file of experts has nothing else
    for part in filter(None, (TRAININGS.get(training.before or ''), training)):
        state |= torch.load(_weights(part, seed, file.parent), map_location='cpu', weights_only=True)['params_ema']
    net.load_state_dict(state)
    return Restorer(router, net, opt['degradations'])


def _without_type(network: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in network.items() if key != 'type'}


def _weights(training: Training, seed: int, folder: Path) -> str:
    return f'experiments/{training.experiment(seed, folder)}/models/net_g_latest.pth'
