"""A miniature of everything: tiny photographs, and options files of the three stages and of one of BasicSR's models."""

from __future__ import annotations

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from tests.photos import photo, write

REPO = Path(__file__).parents[1]
NAMES = ('noise', 'rain')
_ROUTER = {
    'type': 'DegradationRouter',
    'num_degradations': 2,
    'freeze_clip': False,
    'clip_model': {
        'embed_dim': 8,
        'vision_cfg': {'image_size': 16, 'patch_size': 8, 'layers': 1, 'width': 8, 'head_width': 8},
    },
}
_RESTORER = {
    'type': 'LoRAIR',
    'width': 16,
    'enc_blk_nums': [1],
    'middle_blk_num': 1,
    'dec_blk_nums': [1],
    'prior_dim': 4,
}
_PSNR = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}


def write_data(root: Path) -> None:
    """Writes data/{train,val}_{lq,gt}: seven and three pairs of PNGs, lq darker, and the same at half the size."""
    for part, count in (('train', 7), ('val', 3)):
        for seed in range(count):
            image = photo(seed, 24, 28)
            write(root / f'data/{part}_gt/{seed}.png', image)
            write(root / f'data/{part}_lq/{seed}.png', image // 2)
            write(root / f'data/{part}_half/{seed}.png', image[::2, ::2])


def write_weights(root: Path) -> None:
    """Writes random weights where those of the router and of pre-training would be."""
    from lorair_arch.archs.degradation_router_arch import DegradationRouter
    from lorair_arch.archs.lorair_arch import LoRAIR
    from lorair_arch.weights.files import save_file
    from tests.tiny import perturbed

    for name, kind, options in (('router', DegradationRouter, _ROUTER), ('pretrain', LoRAIR, _RESTORER)):
        net = kind(**{key: value for key, value in options.items() if key != 'type'})
        label = 'router' if name == 'router' else 'g'
        save_file({'params': perturbed(net).state_dict()}, root / f'experiments/{name}/models/net_{label}_latest.pth')


def stage(name: str) -> dict[str, Any]:
    """Gives the options of the stage 'router', 'pretrain' or 'finetune', or of 'sr' or 'gan', BasicSR's own models."""
    opt = {
        'name': name,
        'num_gpu': 0,
        'manual_seed': 3,
        'datasets': {'train': _dataset('train'), 'val': _dataset('val')},
        'path': {},
        'train': {
            'total_iter': 8,
            'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [8], 'eta_min': 1e-5},
            'ema_decay': 0.9,
        },
        'val': {'val_freq': 4, 'pbar': False},
        'logger': {'print_freq': 2, 'save_checkpoint_freq': 2, 'use_tb_logger': True},
    }
    optimizer = {'type': 'AdamW', 'lr': 1e-3}
    if name in ('sr', 'gan'):
        opt |= {'model_type': 'SRModel', 'scale': 2, 'network_g': _small_sr()}
        for part, dataset in opt['datasets'].items():
            roots = {'dataroot_lq': f'data/{part}_half', 'dataroot_gt': f'data/{part}_gt'}
            crops = {'gt_size': 16, 'use_hflip': True, 'use_rot': True} if part == 'train' else {}
            del dataset['sources']
            dataset |= {'type': 'PairedImageDataset', 'io_backend': {'type': 'disk'}, **roots, **crops}
        opt['train'] |= {'optim_g': optimizer | {'type': 'Adam'}, 'pixel_opt': {'type': 'L1Loss'}}
        opt['train']['scheduler'] = {'type': 'MultiStepLR', 'milestones': [4], 'gamma': 0.5}
        opt['val']['metrics'] = _PSNR
        if name == 'gan':
            opt['model_type'] = 'ESRGANModel'
            opt['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}
            opt['train']['optim_d'] = dict(opt['train']['optim_g'])
            opt['train']['gan_opt'] = {'type': 'GANLoss', 'gan_type': 'vanilla'}
        return deepcopy(opt)
    opt |= {'degradations': list(NAMES), 'network_router': _ROUTER}
    if name == 'router':
        opt |= {'model_type': 'DegradationRouterModel'}
        opt['train']['optim_router'] = optimizer
        return deepcopy(opt)
    opt['network_g'] = _RESTORER
    opt['path']['pretrain_network_router'] = 'experiments/router/models/net_router_latest.pth'
    opt['train'] |= {'optim_g': optimizer, 'pixel_opt': {'type': 'PSNRLoss'}, 'grad_clip_norm': 0.01}
    opt['val']['metrics'] = _PSNR
    opt['model_type'] = 'LoRAIRPretrainModel' if name == 'pretrain' else 'LoRAIRFinetuneModel'
    if name == 'finetune':
        opt['network_g'] = _RESTORER | {'lora': {'rank': 2, 'num_experts': 2, 'top_k': 1}}
        opt['path']['pretrain_network_g'] = 'experiments/pretrain/models/net_g_latest.pth'
        opt['train']['trainable'] = 'lora'
    return deepcopy(opt)


def as_test(opt: dict[str, Any]) -> dict[str, Any]:
    """Turns the options of a training into those of a test of what it trained."""
    opt = deepcopy(opt)
    del opt['train'], opt['logger']
    opt['datasets'] = {'test': opt['datasets']['val']}
    opt['val'] = {'save_img': True, 'metrics': _PSNR} if 'network_g' in opt else {}
    label = 'experts' if opt['model_type'] == 'LoRAIRFinetuneModel' else 'g' if 'network_g' in opt else 'router'
    file = 'net_router_latest.pth' if label == 'router' else 'net_g_latest.pth'
    opt['path'][f'pretrain_network_{label}'] = f'experiments/{opt["name"]}/models/{file}'
    return opt


def write_options(folder: Path, opt: dict[str, Any], name: str | None = None) -> str:
    """Writes an options file into a folder; gives its name."""
    file = f'{name or opt["name"]}.yml'
    (folder / file).write_text(yaml.safe_dump(opt, sort_keys=False))
    return file


def run(folder: Path, *command: str, python: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess:
    """Runs `python -m lorair_arch ...` in a folder; `python` gives another way to start it."""
    command = [sys.executable, *(python or ('-m', 'lorair_arch')), *command]
    env = os.environ | {'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1'} | env
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, errors='replace', timeout=120)


def _small_sr() -> dict[str, Any]:
    return {'type': 'MSRResNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 2}


def _dataset(part: str) -> dict[str, Any]:
    roots = {'dataroot_lq': f'data/{part}_lq', 'dataroot_gt': f'data/{part}_gt'}
    sources = [roots | {'degradation': 'noise'}, {'dataroot_gt': roots['dataroot_gt'], 'degrade': {'type': 'rain'}}]
    loader = {'gt_size': 16, 'batch_size_per_gpu': 2, 'num_worker_per_gpu': 0, 'use_hflip': True, 'use_rot': True}
    return {
        'name': f'tiny_{part}',
        'type': 'AllInOneDataset',
        'sources': sources,
        **(loader if part == 'train' else {}),
    }
