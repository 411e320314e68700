"""Devices and precision: Apple's GPUs, processors without bfloat16, and the scaled loss of float16."""

import logging
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from basicsr.models.base_model import BaseModel

from lorair_arch import Restorer, devices
from lorair_arch.errors import OptionsError
from lorair_arch.options.reading import load_options
from lorair_arch.training import train as training
from tests.miniature import REPO, stage, write_options
from tests.outcome import outcome, same
from tests.test_models import batch, build

BF16 = 'lorair_arch.models.stage.has_bf16'


@pytest.fixture
def mac(monkeypatch):
    """A machine with Apple's GPU, as far as PyTorch is asked."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)


class Anything:
    """Takes the place of a network that would be moved to a device that is not there."""

    def eval(self):
        return self

    def to(self, device):
        self.device = device
        return self


def test_apple_s_gpu_is_taken_where_it_is(here, mac):
    assert (devices.device_name(), devices.device_name(1), devices.device_name(0)) == ('mps', 'mps', 'cpu')
    net = Anything()
    assert Restorer(Anything(), net, ['noise']).device.type == net.device.type == 'mps'
    opt = stage('pretrain')
    del opt['num_gpu']
    opt = load_options(write_options(here, opt), True, '.')
    assert opt['num_gpu'] == 1
    assert BaseModel(opt).device.type == 'mps'
    assert BaseModel(opt | {'num_gpu': 0}).device.type == 'cpu'
    # processes cannot share gradients on it
    assert load_options('pretrain.yml', True, '.', ['num_gpu=auto'], launcher='pytorch')['num_gpu'] == 0


def test_cuda_comes_first_and_the_cpu_last(monkeypatch):
    assert devices.device_name() == ('cuda' if torch.cuda.is_available() else 'cpu')
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert (devices.device_name(), devices.gpu_count(), devices.gpu_count(True)) == ('cuda', 2, 2)


def test_one_place_asks_for_gpus():
    """Others ask for CUDA alone: NCCL, the prefetcher, and peak memory."""
    asks = {
        str(file.relative_to(REPO / 'lorair_arch'))
        for file in (REPO / 'lorair_arch').rglob('*.py')
        if re.search(r'cuda\.(is_available|device_count)|mps\.is_available', file.read_text())
    }
    cuda_alone = {'compat/launch.py', 'training/dry_run.py', 'options/keys.py'}
    assert asks == {'devices.py', 'compat/mending.py'} | cuda_alone


def test_bf16_that_would_be_emulated_is_float32(here, monkeypatch, caplog):
    monkeypatch.setattr(BF16, lambda kind: False)
    logging.getLogger('basicsr').addHandler(caplog.handler)
    weights = []
    for amp in (None, 'bf16'):
        torch.manual_seed(0)
        model = build(stage('pretrain') | {'train': stage('pretrain')['train'] | {'amp': amp}})
        for iteration in (1, 2):
            model.feed_data(batch())
            model.optimize_parameters(iteration)
        weights.append(model.net.state_dict())
    assert same(*weights)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        'train.amp: bf16 would take many times as long as float32 on this CPU, which does not compute in it by itself: '
        'training goes on in float32'
    ]


@pytest.mark.parametrize('has', [False, True])
def test_who_is_asked(monkeypatch, has):
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation: has or including_emulation)
    assert devices.has_bf16('cuda') == has
    monkeypatch.setattr(torch.backends.mps, 'is_macos_or_newer', lambda major, minor: has and (major, minor) == (14, 0))
    assert devices.has_bf16('mps') == has
    assert devices.has_bf16('cpu') == torch.ops.mkldnn._is_mkldnn_bf16_supported()


def test_fp16_needs_a_gpu(here, monkeypatch):
    opt = stage('pretrain')
    opt['train']['amp'] = 'fp16'
    with pytest.raises(OptionsError, match="train.amp: found 'fp16', expected 'bf16' or null: without a GPU"):
        load_options(write_options(here, opt), True, '.')
    monkeypatch.setattr('lorair_arch.options.consistency.gpu_count', lambda distributed: 1)
    load_options('pretrain.yml', True, '.', ['num_gpu=1'])


def fp16(**train):
    opt = stage('pretrain')
    opt['train'] |= {'amp': 'fp16', **train}
    return opt


def state(model):
    return model.net.state_dict(), model.net_ema.state_dict(), model.optimizers[0].state_dict()['state']


def test_a_scale_that_is_too_large_is_lowered_and_nothing_else_happens(here):
    model = build(fp16(max_bad_steps=1))
    model.scaler = torch.amp.GradScaler('cpu', init_scale=2.0**120)
    before = [value.clone() for value in model.net.state_dict().values()]
    for iteration in (1, 2):
        model.feed_data(batch())
        model.optimize_parameters(iteration)
    assert model.scaler.get_scale() == 2.0**118
    assert model.bad_steps == [0, 0]
    assert all(map(torch.equal, before, model.net.state_dict().values()))
    assert not state(model)[2]


def test_the_scale_leaves_no_trace_in_the_step(here):
    """Clipped at 0.01, a gradient that was still scaled would be another one."""
    weights = []
    for scale in (2.0**4, 2.0**8):
        torch.manual_seed(0)
        model = build(fp16(grad_clip_norm=0.01, optim_g={'type': 'SGD', 'lr': 1.0}))
        model.scaler = torch.amp.GradScaler('cpu', init_scale=scale)
        before = torch.cat([value.detach().flatten() for value in model.net.parameters()])
        model.feed_data(batch())
        model.optimize_parameters(1)
        weights.append(torch.cat([value.detach().flatten() for value in model.net.parameters()]) - before)
    assert weights[0].norm() == pytest.approx(0.01, rel=1e-3)
    assert (weights[0] - weights[1]).norm() < 1e-3


def test_a_loss_that_is_not_finite_is_a_bad_step_still(here):
    model = build(fp16())
    model.feed_data(batch() | {'lq': torch.full((4, 3, 16, 16), float('nan'))})
    model.optimize_parameters(1)
    assert model.bad_steps == [1, 1]
    assert all(value.isfinite().all() for value in model.net.state_dict().values())


def test_the_scale_is_saved_and_continued(here, monkeypatch):
    monkeypatch.setattr('lorair_arch.options.reading.check_machine', lambda *args: None)
    monkeypatch.setattr(torch.amp, 'GradScaler', partial(torch.amp.GradScaler, init_scale=2.0**10, growth_interval=3))
    opt = fp16() | {'name': 'run', 'val': None}
    opt['logger']['save_checkpoint_freq'] = 1

    def train(opt, total, **kwargs):
        training.run(write_options(Path(), opt), force_yml=[f'train:total_iter={total}'], **kwargs)

    train(opt | {'name': 'whole'}, 8)
    train(opt, 5)
    train(opt, 8, auto_resume=True)
    assert same(outcome('run'), outcome('whole'))
    scaler = outcome('run')['8.state']['scaler']
    assert (scaler['scale'], scaler['_growth_tracker']) == (2.0**12, 2)
