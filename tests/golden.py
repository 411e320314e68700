"""Frozen numbers of the official release (data/golden/README.md) and the weights and inputs that belong to them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / 'data' / 'golden'


def random(seed: int | None, name: str) -> np.random.RandomState:
    """The generator of one tensor: a function of its name alone."""
    text = name if seed is None else f'{seed}/{name}'
    return np.random.RandomState(zlib.crc32(text.encode()))


class Golden:
    """One golden file: `spec` (JSON), `arrays` (npz) and what can be made from names."""

    def __init__(self, name: str) -> None:
        self.spec = json.loads((FOLDER / f'{name}.json').read_text())
        with np.load(FOLDER / f'{name}.npz') as file:
            self.arrays = dict(file)
        self.seed = self.spec['seed']

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name]))

    def normal(self, name: str, shape: list[int]) -> Tensor:
        return torch.from_numpy(random(self.seed, name).standard_normal(shape).astype(np.float32))

    def uniform(self, name: str, shape: list[int]) -> Tensor:
        return torch.from_numpy(random(self.seed, name).random_sample(shape).astype(np.float32))

    def input(self, name: str) -> Tensor:
        """An input by its name, such as '0.lq'."""
        entry = self.spec['inputs'][name]
        return getattr(self, entry['kind'])(name, entry['shape'])

    def official(self) -> dict[str, Tensor]:
        """The official state dict."""
        weights = {}
        for key, entry in self.spec['state_dict'].items():
            value = entry['mean'] + entry['std'] * random(self.seed, key).standard_normal(entry['shape'])
            weights[key] = torch.from_numpy(value.astype(np.float32))
        return weights

    def network_g(self) -> dict:
        """Options of the restorer, without local pooling."""
        network, lora = dict(self.spec['network']), self.spec['lora']
        del network['train_size']
        if lora:
            network['lora'] = {'rank': lora['r'], 'num_experts': lora['num_experts'], 'top_k': lora['top_k']}
        return network

    def network_router(self) -> dict:
        """Options of the router."""
        clip = self.spec['clip']
        width = clip['hidden_size']
        vision = {
            'image_size': clip['image_size'],
            'patch_size': clip['patch_size'],
            'layers': clip['num_hidden_layers'],
            'width': width,
            'head_width': width // clip['num_attention_heads'],
            'mlp_ratio': clip['intermediate_size'] / width,
        }
        clip_model = {'embed_dim': clip['projection_dim'], 'vision_cfg': vision, 'quick_gelu': True}
        return {'clip_model': clip_model, 'num_degradations': self.spec['num_classes']}
