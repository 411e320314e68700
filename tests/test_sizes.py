"""The smallest and the largest value of what options/README.md documents: two steps are taken, all numbers finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.errors import DataError, OptionsError
from lorair_arch.options.reading import load_options
from lorair_arch.training import train as training
from lorair_arch.weights.files import save_file
from tests.miniature import stage, write_options

DATA, NET, OPTIM = 'datasets.train', 'network_g', 'train.optim_g'
HUGE = 10**15
TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    'crops of one pixel': ('pretrain', {f'{DATA}.gt_size': 1}),
    'crops of one pixel for the router': ('router', {f'{DATA}.gt_size': 1}),
    'crops of one pixel through Pillow': ('router', {f'{DATA}.gt_size': 1, 'network_router.views': 'pillow'}),
    'crops as large as the images': ('pretrain', {f'{DATA}.gt_size': 24}),
    'crops many times as large': ('pretrain', {f'{DATA}.gt_size': 100, f'{DATA}.pad_small': True}),
    'batches of one': ('finetune', {f'{DATA}.batch_size_per_gpu': 1}),
    'batches of all images': ('finetune', {f'{DATA}.batch_size_per_gpu': 7}),
    'the longest epochs': ('pretrain', {f'{DATA}.dataset_enlarge_ratio': 10**6}),
    'the longest queue': ('pretrain', {f'{DATA}.prefetch_mode': 'cpu', f'{DATA}.num_prefetch_queue': 1000}),
    'more workers than images': ('pretrain', {f'{DATA}.num_worker_per_gpu': 8}),
    'the largest seeds': ('pretrain', {'manual_seed': 2**32 - 1, f'{DATA}.seed': 2**63 - 1}),
    'weights far apart': ('pretrain', {f'{DATA}.sources.0.weight': 1e-30, f'{DATA}.sources.1.weight': 1e8}),
    'rank 1': ('finetune', {f'{NET}.lora.rank': 1}),
    'rank as large as the width': ('finetune', {f'{NET}.lora.rank': 16}),
    'all experts': ('finetune', {f'{NET}.lora.top_k': 2}),
    'the smallest alpha': ('finetune', {f'{NET}.lora.alpha': 1e-30}),
    'no blocks': ('pretrain', {f'{NET}.enc_blk_nums': [0], f'{NET}.dec_blk_nums': [0], f'{NET}.middle_blk_num': 0}),
    'deeper than the crops': (
        'pretrain',
        {f'{NET}.enc_blk_nums': [0] * 5, f'{NET}.dec_blk_nums': [0] * 5, f'{NET}.middle_blk_num': 0},
    ),
    'a prior of one number': ('pretrain', {f'{NET}.prior_dim': 1, 'network_router.clip_model.embed_dim': 2}),
    'windows of one pixel': ('pretrain', {f'{NET}.local_pool_size': [1, 1]}),
    'the largest windows': ('pretrain', {f'{NET}.local_pool_size': [100_000, 100_000]}),
    'one view': ('pretrain', {'network_router.clip_grid': 1}),
    'one degradation': (
        'pretrain',
        {'degradations': ['noise'], 'network_router.num_degradations': 1, f'{DATA}.sources': slice(1)},
    ),
    'one expert': (
        'finetune',
        {
            'degradations': ['noise'],
            'network_router.num_degradations': 1,
            f'{DATA}.sources': slice(1),
            f'{NET}.lora.num_experts': 1,
        },
    ),
    'the slowest average': ('pretrain', {'train.ema_decay': 0.999999}),
    'the longest warm-up': ('pretrain', {'train.warmup_iter': HUGE}),
    'no steps of warm-up': ('pretrain', {'train.warmup_iter': 0}),
    'gradients of no length': ('pretrain', {'train.grad_clip_norm': 1e-30}),
    'all images in a step': ('finetune', {'train.accumulate': 7, f'{DATA}.batch_size_per_gpu': 1}),
    'no bad steps': ('pretrain', {'train.max_bad_steps': 1}),
    'moments of the last step alone': ('pretrain', {f'{OPTIM}.betas': [0, 0]}),
    'nothing but the last checkpoint': ('pretrain', {'logger.keep_last': 1, 'logger.save_checkpoint_freq': 1}),
    'intervals that never come': (
        'pretrain',
        {'logger.print_freq': HUGE, 'logger.keep_last': HUGE, 'logger.save_checkpoint_freq': HUGE},
    ),
}
REFUSED = {
    'no pixels': ('pretrain', {f'{DATA}.gt_size': 0}, 'found 0, expected a whole number, at least 1'),
    'less than an epoch': ('pretrain', {f'{DATA}.dataset_enlarge_ratio': 1e-6}, 'has 0 samples for 1 processes'),
    'an average that never moves': ('pretrain', {'train.ema_decay': 1}, 'at most 0.999999'),
    'rank above the width': ('finetune', {f'{NET}.lora.rank': 17}, 'found 17, expected at most width = 16'),
    'more experts than there are': ('finetune', {f'{NET}.lora.top_k': 3}, 'expected at most num_experts = 2'),
    'a negative rate': ('pretrain', {'train.scheduler.eta_min': -1}, 'eta_min: found -1, expected a number at least 0'),
    'rates of changing sign': (
        'pretrain',
        {'train.scheduler': {'type': 'MultiStepLR', 'milestones': [1], 'gamma': -1}},
        'gamma: found -1, expected a number at least 0',
    ),
    'an odd width': ('pretrain', {f'{NET}.width': 8}, 'expected a multiple of 16, at most 4096'),
    'more levels than channels': (
        'pretrain',
        {f'{NET}.enc_blk_nums': [0] * 13, f'{NET}.dec_blk_nums': [0] * 13},
        'found 13 levels, expected at most 12',
    ),
}


def changed(name: str, places: dict[str, Any]) -> dict[str, Any]:
    opt = stage(name) | {'name': 'run', 'val': None}
    del opt['datasets']['val']
    opt['logger'] |= {'use_tb_logger': False}
    opt['train'] |= {'total_iter': 2}
    for place, value in places.items():
        *sections, last = place.split('.')
        section = opt
        for key in sections:
            section = section[int(key)] if key.isdecimal() else section[key]
        section[last] = section[last][value] if isinstance(value, slice) else value
    return opt


@pytest.mark.parametrize('what', TAKEN)
def test_extremes_are_taken(here, what):
    opt = changed(*TAKEN[what])
    if opt['model_type'] != 'DegradationRouterModel':
        router = {key: value for key, value in opt['network_router'].items() if key != 'type'}
        save_file({'params': DegradationRouter(**router).state_dict()}, opt['path']['pretrain_network_router'])
    training.run(write_options(here, opt))
    (file,) = Path('experiments/run/models').glob('net_*_latest.pth')
    content = torch.load(file, weights_only=True)
    assert all(value.isfinite().all() for key in ('params', 'params_ema') for value in content[key].values())
    assert 'skipped' not in max(Path('experiments/run').glob('*.log')).read_text()


@pytest.mark.parametrize('what', REFUSED)
def test_what_is_beyond_them_is_refused(here, what):
    name, places, message = REFUSED[what]
    file = write_options(here, changed(name, places))
    with pytest.raises((OptionsError, DataError), match=message):
        load_options(file, True, '.')
        training.run(file)
