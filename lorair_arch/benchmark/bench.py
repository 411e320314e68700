"""What the contestants are made of: the model classes that users train, batches, networks and routers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.benchmark.dense import perturb
from lorair_arch.benchmark.naive import NaiveLoRAIR
from lorair_arch.benchmark.settings import Setting
from lorair_arch.models.lorair_model import LoRAIRFinetuneModel, LoRAIRPretrainModel, RestorationModel
from lorair_arch.weights.loading import save_file

# Weights far enough from their start, where many are 0, and small enough for finite activations.
_STD = 0.02


class NaiveModel(LoRAIRPretrainModel):
    """Pre-training of the naive network, with the weights of the plain one."""

    def build(self) -> nn.Module:
        net = NaiveLoRAIR(**{key: value for key, value in self.opt['network_g'].items() if key != 'type'})
        self.load_network(net, self.opt['path']['pretrain_network_g'])
        return net


@dataclass
class Bench:
    """Builds contestants.

    Attributes:
        setting: Their size.
        device: 'cpu' or 'cuda'.
        bf16: Train in bf16 where a contestant does not say otherwise.
        folder: For files.
    """

    setting: Setting
    device: str
    bf16: bool
    folder: Path

    def plain_net(self, **options) -> LoRAIR:
        """Gives the plain network for inference."""
        return self._ready(LoRAIR(**self.setting.network, **options))

    def expert_net(self) -> LoRAIR:
        """Gives the network with experts for inference."""
        return self._ready(LoRAIR(**self.setting.network, lora=self.setting.lora))

    def router(self) -> DegradationRouter:
        """Gives a frozen router with random weights."""
        router = DegradationRouter(self.setting.clip_model, num_degradations=self.setting.lora['num_experts'])
        return router.to(self.device).eval().requires_grad_(False)

    def images(self, number: int, side: int) -> Tensor:
        """Gives random images, [number, 3, side, side]."""
        return torch.rand(number, 3, side, side, device=self.device)

    def batch(self) -> dict[str, Tensor]:
        """Gives a batch of training crops, with prior and with logits that choose the experts of the setting."""
        experts = torch.tensor(self.setting.experts, device=self.device)
        logits = torch.randn(len(experts), self.setting.lora['num_experts'], device=self.device)
        logits.scatter_(1, experts[:, None], 10)
        prior = torch.randn(len(experts), self.setting.network.get('prior_dim', 384), device=self.device)
        lq, gt = (self.images(len(experts), self.setting.crop) for _ in range(2))
        return {'lq': lq, 'gt': gt, 'prior': prior, 'logits': logits}

    def plain(self, bf16: bool | None = None) -> RestorationModel:
        """Gives the pre-training of the plain network."""
        return self._in_precision(LoRAIRPretrainModel(self._options()), bf16)

    def naive(self) -> RestorationModel:
        """Gives the pre-training of the naive network."""
        return self._in_precision(NaiveModel(self._options()))

    def finetune(self, trainable: str = 'all', top_k: int = 1, bf16: bool | None = None) -> RestorationModel:
        """Gives the fine-tuning of the network with experts."""
        options = self._options()
        options['network_g']['lora'] = {**self.setting.lora, 'top_k': top_k}
        options['train']['trainable'] = trainable
        model = LoRAIRFinetuneModel(options)
        with torch.no_grad():
            for name, param in model.net.named_parameters():
                if name.endswith('lora_B'):
                    param.normal_(std=_STD)
        return self._in_precision(model, bf16)

    def _in_precision(self, model: RestorationModel, bf16: bool | None = None) -> RestorationModel:
        """Lets a model train in bf16, also where its options would not, because the machine is slow at it."""
        model.amp = torch.bfloat16 if (self.bf16 if bf16 is None else bf16) else None
        return model

    def _ready(self, net: LoRAIR) -> LoRAIR:
        perturb(net, _STD)
        return net.eval().to(self.device)

    def _options(self) -> dict[str, Any]:
        return {
            'is_train': True,
            'dist': False,
            'num_gpu': int(self.device == 'cuda'),
            'manual_seed': 0,
            'network_g': {'type': 'LoRAIR', **self.setting.network},
            'path': {'pretrain_network_g': str(self._weights())},
            'train': {
                'optim_g': {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 1e-3, 'betas': [0.9, 0.9]},
                'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [100_000], 'eta_min': 1e-5},
                'pixel_opt': {'type': 'PSNRLoss'},
                'grad_clip_norm': 0.01,
            },
            'val': {},
        }

    def _weights(self) -> Path:
        path = self.folder / 'plain.pth'
        if not path.exists():
            net = LoRAIR(**self.setting.network)
            perturb(net, _STD)
            save_file({'params': net.state_dict()}, path)
        return path


def step(model: RestorationModel, batch: dict[str, Tensor]) -> Callable[[], None]:
    """Gives a whole training step: gradients to zero, forward, loss, backward, clipping, optimiser."""

    def run() -> None:
        model.feed_data(batch)
        model.optimize_parameters(1)

    return run
