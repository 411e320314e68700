"""Accumulated gradients: two batches of two make the step of one batch of four."""

from pathlib import Path

import pytest
import torch

from lorair_arch.errors import OptionsError
from lorair_arch.training import train as training
from tests.miniature import stage, write_options
from tests.outcome import outcome, same


def options(name, images, accumulate):
    opt = stage(name) | {'name': f'{images}_{accumulate}'}
    opt['datasets']['train'] |= {'batch_size_per_gpu': images, 'dataset_enlarge_ratio': 3}
    opt['logger'] |= {'print_freq': 1, 'save_checkpoint_freq': 4}
    opt['train']['accumulate'] = accumulate
    if name == 'router':  # Adam would make steps of the rounding of gradients that are 0, as those of the keys' bias
        opt['train']['optim_router'] = {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}
    return opt


def train(opt, **kwargs):
    training.run(write_options(Path(), opt), **kwargs)


@pytest.mark.parametrize('name', ['router', 'pretrain', 'finetune'])
def test_two_batches_make_one_step(here, name):
    results = []
    for images, accumulate in ((4, 1), (2, 2)):
        train(options(name, images, accumulate))
        results.append(outcome(f'{images}_{accumulate}'))
    one, two = (result['net_router_8.pth' if name == 'router' else 'net_g_8.pth'] for result in results)
    for params in ('params', 'params_ema'):
        assert two[params].keys() == one[params].keys()
        for key, value in two[params].items():
            torch.testing.assert_close(value, one[params][key], rtol=0, atol=1e-6)
    logged = [[float(line[2].split()[1]) for line in result['logged']] for result in results]
    assert len(logged[0]) == 8
    assert logged[1] == pytest.approx(logged[0], rel=1e-3, abs=1e-4)


def test_whole_images_of_the_router_are_accumulated(here):
    results = []
    for images, accumulate in ((4, 1), (2, 2)):
        opt = options('router', images, accumulate)
        opt['datasets']['train']['gt_size'] = None
        train(opt)
        results.append(outcome(opt['name'])['net_router_8.pth']['params'])
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=0, atol=1e-6)


def test_it_resumes_bit_for_bit(here):
    opt = options('pretrain', 1, 2)
    train(opt | {'name': 'whole'})
    train(opt, force_yml=['train:total_iter=5', 'logger:save_checkpoint_freq=5'])
    train(opt, auto_resume=True)
    assert same(outcome(opt['name'])['8.state'] | {'best': 0}, outcome('whole')['8.state'] | {'best': 0})
    assert same(outcome(opt['name'])['net_g_8.pth'], outcome('whole')['net_g_8.pth'])


def test_model_classes_of_others_refuse_it(here):
    with pytest.raises(OptionsError, match='train.accumulate: found 2, expected 1'):
        train(options('sr', 2, 2))
