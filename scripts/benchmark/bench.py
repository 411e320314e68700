"""What the contestants are made of: sizes, the model classes that users train, batches, networks, photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lorair_arch.archs import reference
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.data.degradations import build_degradation
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import decode_image, read_bytes, to_float
from lorair_arch.data.images.writing import write_photo
from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.models.lorair_model import LoRAIRFinetuneModel, LoRAIRPretrainModel, RestorationModel
from lorair_arch.options.yaml_file import read_files
from lorair_arch.training.loaders import build_train_loader
from lorair_arch.weights.files import save_file
from measures import STD, perturb

_NAMES = ('astronaut.png', 'chelsea.png', 'coffee.png', 'rocket.jpg')
_EPOCH = 6  # times that each photograph is read
_RECIPE = Path(__file__).parents[2] / 'options/zoo/2_pretrain.yml'


@dataclass(frozen=True)
class Setting:
    """One size.

    Attributes:
        network: Options of `LoRAIR`, without experts; its prior is half of CLIP's embedding.
        crop: Side of the training crops, pixels.
        image: Side of the image for local pooling, pixels.
        experts: The expert of each image of a batch.
        clip_model: Image encoder of the router.
        view: Side of the views in their own comparison, pixels.
        matrix: Side of the matrices whose product tells the machine's peak.
        lora: Experts.
    """

    network: dict[str, Any]
    crop: int
    image: int
    experts: tuple[int, ...]
    clip_model: str | dict[str, Any]
    view: int = 336
    matrix: int = 2048
    lora: dict[str, Any] = field(default_factory=lambda: {'rank': 8, 'num_experts': 3})


# Small enough for two CPU cores; the router is the encoder of the quickstart.
SMALL = Setting(
    network={'width': 32, 'enc_blk_nums': [1, 1, 1, 8], 'middle_blk_num': 1, 'dec_blk_nums': [1, 1, 1, 1]},
    crop=128,
    image=512,
    experts=(0, 1, 2, 1),
    clip_model={
        'embed_dim': 768,
        'vision_cfg': {'image_size': 96, 'layers': [1, 1, 1, 1], 'width': 8, 'head_width': 32},
    },
)
# The published network, and the batch of one of its eight GPUs.
OFFICIAL = Setting(
    network={'width': 64, 'enc_blk_nums': [1, 1, 1, 28], 'middle_blk_num': 1, 'dec_blk_nums': [1, 1, 1, 1]},
    crop=256,
    image=512,
    experts=(0, 1, 2, 1, 0, 2, 1, 0),
    clip_model='ViT-L-14-336-quickgelu',
    matrix=8192,
)


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

    def written(self, model: RestorationModel) -> RestorationModel:
        """Lets the network of a model compute as `reference.py` does."""
        model.net.forward = partial(reference.restore, model.net)
        return model

    def finetune(self, trainable: str = 'all', top_k: int = 1, bf16: bool | None = None) -> RestorationModel:
        """Gives the fine-tuning of the network with experts."""
        options = self._options()
        options['network_g']['lora'] = {**self.setting.lora, 'top_k': top_k}
        options['train']['trainable'] = trainable
        model = LoRAIRFinetuneModel(options)
        with torch.no_grad():
            for name, param in model.net.named_parameters():
                if name.endswith('lora_B'):
                    param.normal_(std=STD)
        return self._in_precision(model, bf16)

    def _in_precision(self, model: RestorationModel, bf16: bool | None = None) -> RestorationModel:
        """Lets a model train in bf16, also where its options would not, because the machine is slow at it."""
        model.amp = torch.bfloat16 if (self.bf16 if bf16 is None else bf16) else None
        return model

    def _ready(self, net: LoRAIR) -> LoRAIR:
        perturb(net)
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
            perturb(net)
            save_file({'params': net.state_dict()}, path)
        return path


def step(model: RestorationModel, batch: dict[str, Tensor]) -> Callable[[], None]:
    """Gives a whole training step: gradients to zero, forward, loss, backward, clipping, optimiser."""

    def run() -> None:
        model.feed_data(batch)
        model.optimize_parameters(1)

    return run


def photo_loader(folder: Path, kind: str, crop: int) -> DataLoader:
    """Writes the photographs and gives a training loader of them that works in this process.

    Args:
        folder: For the files.
        kind: 'disk', PNG files; 'lmdb'; or 'zoo', clean ones in an LMDB, degraded on the fly as options/zoo says.
        crop: Side of the crops, at most 300 pixels.
    """
    roots = {side: str(folder / (side if kind == 'disk' else f'{kind}_{side}.lmdb')) for side in ('lq', 'gt')}
    degrade, rng = build_degradation({'type': 'noise', 'sigma': 25}), np.random.default_rng(0)
    images: dict[str, dict[str, np.ndarray]] = {'lq': {}, 'gt': {}}
    for name in _NAMES:
        path = Path(skimage.__file__).parent / 'data' / name
        gt = decode_image(read_bytes(path), str(path))
        images['gt'][path.stem] = gt
        images['lq'][path.stem] = np.rint(degrade(to_float(gt), rng) * 255).astype(np.uint8)
    if kind == 'zoo':
        del roots['lq']  # made from clean ones while they are read
    for side, root in roots.items():
        if kind != 'disk':
            with LmdbWriter(root) as writer:
                for key, image in images[side].items():
                    writer.put(key, image)
        else:
            for key, image in images[side].items():
                write_photo(Path(root, f'{key}.png'), Photo(image))
    sources = [{'degradation': 'noise'} | {f'dataroot_{side}': root for side, root in roots.items()}]
    if kind == 'zoo':
        recipe = read_files([_RECIPE])[0].content()['datasets']['train']
        whole = [source for source in recipe['sources'] if 'train' in source['dataroot_gt']]  # others: at half size
        sources = [source | {'dataroot_gt': roots['gt']} for source in whole]
    options = {
        'name': kind,
        'type': 'AllInOneDataset',
        'phase': 'train',
        'sources': sources,
        'gt_size': crop,
        'use_hflip': True,
        'use_rot': True,
        'batch_size_per_gpu': len(_NAMES),
        'num_worker_per_gpu': 0,
        'dataset_enlarge_ratio': 1 if kind == 'zoo' else _EPOCH,
    }
    run = {'train': {}, 'manual_seed': 0, 'world_size': 1, 'rank': 0, 'num_gpu': 0, 'dist': False}
    return build_train_loader(run, options)[0]
