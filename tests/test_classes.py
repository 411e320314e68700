"""The order of the classes: files of weights that know theirs are refused beside another one in the options."""

import re
from pathlib import Path

import pytest
import torch

from lorair_arch import cli
from lorair_arch.errors import CheckpointError, OptionsError
from lorair_arch.options.reading import load_each, load_options
from lorair_arch.training import train as training
from lorair_arch.weights.files import save_file
from tests.miniature import as_test, stage, write_options

ROUTER = 'experiments/router/models/net_router_latest.pth'
BASE = 'experiments/pretrain/models/net_g_latest.pth'
EXPERTS = 'experiments/finetune/models/net_g_latest.pth'


def describe(file, *names, kind='router', **network):
    """Lets a file of weights say what it was trained for, in either of the two forms."""
    content = torch.load(file)
    content['lorair'] = {'kind': kind, 'network': network, 'degradations': list(names)}
    save_file(content, file)


def experts():
    """Writes the file of experts that fine-tuning would."""
    opt = stage('finetune')
    opt['val'] = None
    training.run(write_options(Path(), opt), force_yml=['train:total_iter=1'])


def sentence(file, options='noise, rain', trained='rain, noise'):
    return f"found '{file}', which tells {trained} apart, in this order, but degradations says {options}: one would be"


@pytest.mark.parametrize('flags', [[], ['--dry-run']], ids=['run', 'dry run'])
@pytest.mark.parametrize('name', ['pretrain', 'finetune'])
def test_a_router_of_another_order_is_refused_before_anything_starts(here, capfd, name, flags):
    describe(ROUTER, 'rain', 'noise')
    assert cli.basicsr(['train', '-opt', write_options(here, stage(name)), *flags]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f'error: {name}.yml: path.pretrain_network_router: {sentence(ROUTER)}')
    assert error.endswith("taken for another; write the file's list there\n") and error.count('\n') == 1
    assert not Path('experiments', name, 'training_states').exists()


def test_other_names_are_refused_too(here):
    describe(ROUTER, 'noise', 'haze')
    with pytest.raises(OptionsError, match=re.escape(sentence(ROUTER, trained='noise, haze'))):
        load_options(write_options(here, stage('finetune')), True, '.')


def test_safetensors_too(here):
    describe(ROUTER, 'rain', 'noise')
    save_file(torch.load(ROUTER), 'router.safetensors')
    opt = stage('pretrain')
    opt['path']['pretrain_network_router'] = 'router.safetensors'
    with pytest.raises(OptionsError, match=re.escape(sentence('router.safetensors'))):
        load_options(write_options(here, opt), True, '.')


def test_the_same_list_and_silent_files_are_taken(here):
    describe(BASE, 'rain', 'haze', kind='restorer')  # whatever it was pre-trained for: it has no experts
    for names in ((), ('noise', 'rain')):
        describe(ROUTER, *names)
        load_options(write_options(here, stage('finetune')), True, '.')
    opt = stage('finetune')
    del opt['degradations']
    describe(ROUTER, 'rain', 'noise')
    load_options(write_options(here, opt), True, '.')


def test_experts_of_another_order_are_refused_in_tests(here):
    experts()
    opt = as_test(stage('finetune')) | {'degradations': ['rain', 'noise']}
    with pytest.raises(OptionsError) as error:
        load_options(write_options(here, opt), False, '.')
    assert f'path.pretrain_network_experts: {sentence(EXPERTS, "rain, noise", "noise, rain")}' in str(error.value)


def test_caching_priors_refuses_and_remembers(here, capfd):
    opt = stage('pretrain')
    del opt['datasets']['train']['sources'][1]
    opt['datasets']['train']['sources'].append(opt['datasets']['train']['sources'][0] | {'degradation': 'rain'})
    file = write_options(here, opt)
    describe(ROUTER, 'rain', 'noise')
    assert cli.lorair(['data', 'cache-priors', '-opt', file, '-o', 'priors.safetensors']) == 2
    assert sentence(ROUTER) in capfd.readouterr().err
    describe(ROUTER, 'noise', 'rain')
    assert cli.lorair(['data', 'cache-priors', '-opt', file, '-o', 'priors.safetensors']) == 0
    # without validation the router is not needed, and the cache alone tells the order
    opt |= {'degradations': ['rain', 'noise'], 'val': None}
    opt['path'] = {'prior_cache': 'priors.safetensors'}
    opt['train']['prior'] = 'cached'
    del opt['datasets']['val']
    with pytest.raises(CheckpointError, match='priors.safetensors tells noise, rain apart, in this order, but deg'):
        training.run(write_options(here, opt))


def test_files_that_run_in_a_row_are_compared(here):
    """Whatever an earlier training has left in the place of the weights."""
    describe(ROUTER, 'rain', 'noise')
    for name in ('router', 'pretrain', 'finetune'):
        opt = stage(name) | {'degradations': ['rain', 'noise'] if name == 'finetune' else ['noise', 'rain']}
        write_options(here, opt)
    files = ['router.yml', 'pretrain.yml', 'finetune.yml']
    load_each(files[:2], True, '.')
    with pytest.raises(OptionsError) as error:
        load_each(files, True, '.')
    assert str(error.value) == (
        'finetune.yml: degradations: found rain, noise, but router is trained for noise, rain, in this order'
    )


def test_a_router_is_not_continued_with_its_classes_in_another_order(here):
    opt = stage('router') | {'val': None}
    training.run(write_options(here, opt), force_yml=['train:total_iter=2'])
    opt['degradations'] = ['rain', 'noise']
    with pytest.raises(OptionsError) as error:
        training.run(write_options(here, opt), auto_resume=True)
    assert (
        'experiments/router/models/net_router_2.pth tells noise, rain apart, in this order, but degradations says rain'
    ) in str(error.value)
