"""Tiny networks with random weights, saved as the three training stages save theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.weights.files import save_file

NAMES = ['noise', 'rain', 'haze']
VISION = {'image_size': 16, 'patch_size': 8, 'layers': 1, 'width': 16, 'head_width': 8}
ROUTER = {'clip_model': {'embed_dim': 16, 'vision_cfg': VISION}, 'num_degradations': 3}
PLAIN = {'width': 16, 'enc_blk_nums': [1], 'middle_blk_num': 1, 'dec_blk_nums': [1], 'prior_dim': 8}
LORA = {**PLAIN, 'lora': {'rank': 2, 'num_experts': 3, 'top_k': 2}}


def perturbed(net: nn.Module) -> nn.Module:
    """Makes every parameter matter, those that start at 0 too."""
    with torch.no_grad():
        for param in net.parameters():
            param.add_(torch.randn_like(param), alpha=0.1)
    return net


def save(path: Path, kind: str, network: dict, state_dict: dict, names: list[str] | None = NAMES, **more) -> None:
    """Writes one file of weights."""
    kinds = {'router': 'DegradationRouter'}
    network = {'type': kinds.get(kind, 'LoRAIR'), **network}
    container = {'params': state_dict, 'lorair': {'kind': kind, 'network': network, 'degradations': names}}
    save_file({**container, **more}, path)


def save_weights(folder: Path) -> Path:
    """Writes router.pth, base.pth and experts.pth."""
    net = perturbed(LoRAIR(**LORA)).state_dict()
    experts = {key: value for key, value in net.items() if key.endswith(('lora_A', 'lora_B'))}
    save(folder / 'router.pth', 'router', ROUTER, perturbed(DegradationRouter(**ROUTER)).state_dict())
    save(folder / 'base.pth', 'restorer', PLAIN, {key: value for key, value in net.items() if key not in experts})
    save(folder / 'experts.pth', 'experts', LORA, experts)
    return folder


def photo(height=37, width=50, dtype=np.uint8, channels=3):
    """Gives a random image [H, W, C], the same each time."""
    image = np.random.default_rng(0).random((height, width, channels), dtype=np.float32)
    return image.astype(dtype) if np.issubdtype(dtype, np.floating) else (image * np.iinfo(dtype).max).astype(dtype)
