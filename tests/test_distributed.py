"""Two and three processes against one: the same weights, the same numbers, continued by one another."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.miniature import as_test, stage, write_data, write_options
from tests.photos import photo, write
from tests.processes import do, end, launch, start

STAGES = ('router', 'pretrain', 'finetune', 'sr')
STEPS = 20
COUNTS = {'train': 7, 'one': 1, 'small': 3}  # images of the test sets
# The gradient of this bias is zero but for rounding (softmax ignores what all keys have in common), and Adam makes
# whole steps of it; nothing depends on it.
KEYS = 'clip.transformer.resblocks.0.attn.in_proj_bias'


def training(name, run, batch):
    opt = stage(name) | {'name': f'{name}_{run}'}
    opt['train'] |= {'total_iter': STEPS}
    opt['train']['scheduler'] = {'type': 'CosineAnnealingRestartLR', 'periods': [STEPS], 'eta_min': 1e-5}
    opt['datasets']['train'] |= {'batch_size_per_gpu': batch}
    opt['logger'] |= {'save_checkpoint_freq': STEPS // 2}
    opt['val']['val_freq'] = STEPS // 2
    for key, path in opt['path'].items():
        opt['path'][key] = re.sub('experiments/([a-z]+)/', r'experiments/\1_alone/', path)
    return write_options(Path(), opt)


def measuring(name, run):
    """A test of what one process trained, on seven images, on one, and on three of which two are too small for SSIM."""
    opt = as_test(stage(name) | {'name': f'{name}_alone'}) | {'name': f'{name}_{run}'}
    opt['path'] = {key: path.replace('/router/', '/router_alone/') for key, path in opt['path'].items()}
    if name == 'finetune':
        opt['path']['pretrain_network_g'] = 'experiments/pretrain_alone/models/net_g_latest.pth'
    if name == 'finetune':
        opt['val']['metrics']['ssim'] = {'type': 'calculate_ssim', 'crop_border': 0}
    for number, part in enumerate(COUNTS):
        roots = {'dataroot_lq': f'data/{part}_lq', 'dataroot_gt': f'data/{part}_gt'}
        opt['datasets'][f'test_{number}'] = opt['datasets']['test'] | {
            'name': part, 'sources': [roots | {'degradation': 'noise'}],
        }  # fmt: skip
    del opt['datasets']['test']
    return write_options(Path(), opt, f'test_{name}_{run}')


@pytest.fixture(scope='module')
def here(tmp_path_factory):
    """A folder with all trainings and tests by one process and by two; not to be changed but by continuations."""
    folder = tmp_path_factory.mktemp('processes')
    write_data(folder)
    for side in ('lq', 'gt'):
        write(folder / f'data/one_{side}/0.png', photo(9))
        for number, size in enumerate(((6, 9), (24, 28), (10, 30))):
            write(folder / f'data/small_{side}/{number}.png', photo(number, *size))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in STAGES:
            do('train', training(name, 'alone', 4))
        do('train', training('finetune', 'experts_alone', 4), one_expert_each=True)
        for name in ('router', 'finetune'):
            do('test', measuring(name, 'alone'))
        jobs = [{'command': 'train', 'file': training(name, 'two', 2)} for name in STAGES]
        jobs.append({'command': 'train', 'file': training('finetune', 'experts_two', 2), 'one_expert_each': True})
        jobs += [{'command': 'test', 'file': measuring(name, 'two')} for name in ('router', 'finetune')]
        for name in ('pretrain', 'sr'):
            half(name, 'alone', 'one_then_two')
            jobs.append({'command': 'train', 'file': training(name, 'one_then_two', 2), 'auto_resume': True})
        done = launch(folder, 2, jobs)
    assert done.returncode == 0, done.stderr
    return folder


def half(name, old, new):
    """Copies a training that was ended half-way."""
    for path in Path('experiments', f'{name}_{old}').glob(f'*/*{STEPS // 2}.*'):
        copy = Path('experiments', f'{name}_{new}', path.parent.name, path.name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)


def difference(folder, one, other, iteration):
    """Gives the largest difference of any weight or averaged weight."""
    label = 'router' if one.startswith('router') else 'g'
    nets = [
        torch.load(folder / f'experiments/{name}/models/net_{label}_{iteration}.pth', weights_only=True)
        for name in (one, other)
    ]
    return max(
        (nets[0][key][name] - nets[1][key][name]).abs().max().item()
        for key in ('params', 'params_ema')
        for name in nets[0][key]
        if name != KEYS
    )


def log(folder, name):
    (file,) = Path(folder, 'experiments', name).glob('train_*.log')
    return file.read_text()


@pytest.mark.parametrize('name', [*STAGES, 'finetune_experts'])
def test_two_processes_train_like_one(here, name):
    """With AdamW, averaged weights, and in the restorer's stages clipped gradients; no expert is used by both."""
    for iteration in (STEPS // 2, STEPS):
        assert difference(here, f'{name}_alone', f'{name}_two', iteration) < 1e-6
    losses = [re.findall(r'\)\] (l_\w+): (\S+)', log(here, f'{name}_{run}')) for run in ('alone', 'two')]
    assert len(losses[0]) == STEPS // 2
    for (_, one), (_, other) in zip(*losses, strict=True):
        assert float(one) == pytest.approx(float(other), abs=1e-4)


@pytest.mark.parametrize('name', ['pretrain', 'sr'])
def test_two_processes_continue_what_one_began(here, name):
    assert difference(here, f'{name}_alone', f'{name}_one_then_two', STEPS) < 1e-6
    assert (
        '10.state was saved with other settings: number of processes 2 (was 1), images in a step of each process 2 '
        f'(was 4); going on after {4 if name == "pretrain" else 0} images of epoch {3 if name == "pretrain" else 10}'
    ) in log(here, f'{name}_one_then_two')


@pytest.mark.parametrize('name', ['pretrain', 'sr'])
def test_one_process_continues_what_two_began(here, monkeypatch, name):
    monkeypatch.chdir(here)
    half(name, 'two', 'two_then_one')
    do('train', training(name, 'two_then_one', 4), auto_resume=True)
    assert difference(here, f'{name}_alone', f'{name}_two_then_one', STEPS) < 1e-6
    assert 'number of processes 1 (was 2), images in a step of each process 4 (was 2); going' in log(
        here, f'{name}_two_then_one'
    )


def metrics(folder, name, part):
    return json.loads(Path(folder, 'results', name, f'metrics_{part}.json').read_text())


@pytest.mark.parametrize('name', ['router', 'finetune'])
def test_two_processes_measure_what_one_does(here, name):
    for part, count in COUNTS.items():
        alone, two = (metrics(here, f'{name}_{run}', part) for run in ('alone', 'two'))
        assert alone == two
        assert len({image['image'] for image in two['images']}) == len(two['images']) == count


def test_what_no_process_can_measure_is_left_out(here):
    content = metrics(here, 'finetune_two', 'small')
    assert ['left_out' in image for image in content['images']] == [True, False, True]
    assert content['mean']['ssim'] == content['images'][1]['ssim']


def test_three_processes_measure_what_one_does(here, monkeypatch):
    monkeypatch.chdir(here)
    file = measuring('finetune', 'three')
    done = end(start(here, 'dist_test.sh', '3', file))
    assert done.returncode == 0, done.stderr
    for part in COUNTS:
        assert metrics(here, 'finetune_three', part) == metrics(here, 'finetune_alone', part)
    names = [
        sorted(p.name.replace('three', 'alone') for p in Path('results', f'finetune_{run}').rglob('*.png'))
        for run in ('alone', 'three')
    ]
    assert names[0] == names[1]
    assert len(names[0]) == sum(COUNTS.values())


def test_only_the_first_process_writes(here):
    """The others would have failed at it; here it is seen that nothing was written twice either."""
    for name in STAGES:
        assert log(here, f'{name}_two').count('Validation tiny_val') == 2
        assert len(list((here / 'tb_logger' / f'{name}_two').iterdir())) == 1
    for name in ('router', 'finetune'):
        assert len(list((here / 'results' / f'{name}_two').glob('*.log'))) == 1
    assert not list(here.glob('*/*_archived_*'))
