"""The model classes: what learns, what is saved, in which precision, and what validation reports."""

import json
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lorair_arch.errors import DataError
from lorair_arch.models.lorair_model import LoRAIRFinetuneModel
from lorair_arch.training.train import run
from lorair_arch.weights.loading import state_dict_of
from tests.miniature import stage, write_data, write_options

STAGES = ('router', 'pretrain', 'finetune')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder in which the first two stages have been trained for two iterations."""
    folder = tmp_path_factory.mktemp('models')
    write_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ('router', 'pretrain'):
            train(folder, stage(name))
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def train(folder, opt, total_iter=2):
    opt['train']['total_iter'] = opt['val']['val_freq'] = opt['logger']['save_checkpoint_freq'] = total_iter
    run(write_options(folder, opt))
    return folder / 'experiments' / opt['name']


def finetune(trainable):
    opt = stage('finetune')
    opt['train']['trainable'], opt['name'] = trainable, f'finetune_{trainable}'
    return opt


@pytest.mark.parametrize('trainable', ['lora', 'lora_bias', 'all'])
def test_only_what_is_trainable_learns_and_is_saved(here, trainable):
    base, _ = state_dict_of(here / 'experiments/pretrain/models/net_g_latest.pth')
    weights, meta = state_dict_of(train(here, finetune(trainable)) / 'models/net_g_latest.pth')
    learns = {'lora': ('lora_A', 'lora_B'), 'lora_bias': ('lora_A', 'lora_B', '.bias'), 'all': ('',)}[trainable]
    assert all(key.endswith(learns) for key in weights)
    assert meta['kind'] == ('restorer' if trainable == 'all' else 'experts')
    assert meta['degradations'] == ['noise', 'rain']
    expected = {key for key in base if key.endswith(learns)}
    assert expected <= set(weights)
    assert any('lora_B' in key and value.any() for key, value in weights.items())
    if expected:
        assert any(not torch.equal(weights[key], base[key]) for key in expected)


@pytest.mark.parametrize('trainable', ['lora', 'lora_bias', 'all'])
def test_gradients_are_exactly_where_trainable_says(here, trainable):
    model = build(finetune(trainable))
    with torch.no_grad():
        for param in model.net.parameters():  # beta, gamma and B start at 0 and would stop gradients
            param.add_(torch.randn_like(param) * 0.1)
    model.feed_data(batch())
    model.compute_losses()['l_pix'].backward()
    endings = LoRAIRFinetuneModel._ENDINGS[trainable]
    for name, param in model.net.named_parameters():
        assert (param.grad is not None) == name.endswith(endings), name
    assert sum(bool(param.grad.any()) for param in model.params) > len(model.params) / 2
    assert not any(param.requires_grad for param in model.net_router.parameters())
    assert not model.net_router.training


@pytest.mark.parametrize('name', STAGES)
def test_bf16_and_fp16_steps_stay_close_to_float32(here, name, monkeypatch):
    monkeypatch.setattr('lorair_arch.models.stage.has_bf16', lambda kind: True)
    losses = {}
    for amp in (None, 'bf16', 'fp16'):
        opt = finetune('all') if name == 'finetune' else stage(name)
        opt['train']['amp'] = amp
        torch.manual_seed(0)
        model = build(opt)
        if amp == 'fp16':
            model.scaler = torch.amp.GradScaler('cpu', init_scale=2.0**8)  # of steps as small as these
        for iteration in range(1, 4):
            model.feed_data(batch())
            model.optimize_parameters(iteration)
        losses[amp] = next(iter(model.get_current_log().values()))
        assert all(param.dtype == torch.float32 for param in model.net.parameters())
    for amp in ('bf16', 'fp16'):
        assert losses[amp] != losses[None]
        assert losses[amp] == pytest.approx(losses[None], rel=0.03)


def test_the_average_follows_the_weights(here):
    opt = stage('pretrain')
    opt['train']['ema_decay'] = 0.75
    model = build(opt)
    expected = [param.detach().clone() for param in model.net.parameters()]
    for iteration in range(1, 4):
        model.feed_data(batch())
        model.optimize_parameters(iteration)
        expected = [0.75 * old + 0.25 * new.detach() for old, new in zip(expected, model.net.parameters())]
    torch.testing.assert_close(list(model.net_ema.parameters()), expected)
    with model.evaluated() as net:
        assert net is model.net_ema


def test_gradients_are_clipped(here):
    opt = stage('pretrain')
    opt['train'] |= {'grad_clip_norm': 0.01, 'ema_decay': 0, 'optim_g': {'type': 'SGD', 'lr': 1.0}}
    model = build(opt)
    before = torch.cat([param.detach().flatten() for param in model.net.parameters()])
    model.feed_data(batch())
    model.optimize_parameters(1)
    after = torch.cat([param.detach().flatten() for param in model.net.parameters()])
    assert (after - before).norm() == pytest.approx(0.01, rel=1e-3)


def test_basicsr_data_sets_and_several_validation_sets_work(here):
    opt = stage('pretrain') | {'name': 'paired', 'scale': 1}
    for part, key in (('train', 'train'), ('val', 'val'), ('val', 'val_2')):
        opt['datasets'][key] = opt['datasets'][part] | {
            'name': key,
            'type': 'PairedImageDataset',
            'dataroot_lq': f'data/{part}_lq',
            'dataroot_gt': f'data/{part}_gt',
            'io_backend': {'type': 'disk'},
        }
        opt['datasets'][key].pop('sources', None)
    train(here, opt)
    tags = scalars(here / 'tb_logger/paired')
    assert {'metrics/val/psnr', 'metrics/val_2/psnr'} <= set(tags)
    assert tags['metrics/val/psnr'] == tags['metrics/val_2/psnr']


def test_tensorboard_gets_every_degradation_and_pictures(here):
    board = here / 'tb_logger/pretrain'
    tags = scalars(board)
    for name in ('noise', 'rain'):
        assert {f'metrics/tiny_val/{name}/psnr', f'metrics/tiny_val/{name}/router_accuracy'} <= set(tags)
    mean = (tags['metrics/tiny_val/noise/psnr'] + tags['metrics/tiny_val/rain/psnr']) / 2
    assert tags['metrics/tiny_val/psnr'] == pytest.approx(mean)
    assert 'losses/l_pix' in tags
    events = EventAccumulator(str(board)).Reload()
    assert events.Tags()['images'] == ['tiny_val/noise', 'tiny_val/rain']
    picture = events.Images('tiny_val/noise')[-1]
    assert (picture.width, picture.height) == (3 * 28, 24)  # input, restored, ground truth


def test_tensorboard_starts_and_serves(here):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    command = [sys.executable, '-m', 'tensorboard.main', '--logdir', 'tb_logger', '--port', str(port)]
    server = subprocess.Popen([*command, '--host', '127.0.0.1'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert 'pretrain' in ask(port, 'runs', lambda runs: 'pretrain' in runs)
        assert 'metrics/tiny_val/psnr' in ask(port, 'plugin/scalars/tags', lambda tags: 'pretrain' in tags)['pretrain']
        assert 'tiny_val/noise' in ask(port, 'plugin/images/tags', lambda tags: 'pretrain' in tags)['pretrain']
    finally:
        server.terminate()
        server.wait()


def ask(port, what, ready):
    """Asks TensorBoard until the answer is ready."""
    for _ in range(120):
        try:
            with urllib.request.urlopen(f'http://127.0.0.1:{port}/data/{what}') as reply:
                answer = json.load(reply)
            if ready(answer):
                return answer
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError(f'TensorBoard did not serve {what}')


def test_a_router_needs_to_know_the_degradation(here):
    model = build(stage('router'))
    with pytest.raises(DataError, match='does not say how its images are degraded'):
        model.feed_data({'lq': torch.rand(2, 3, 16, 16)})
    with pytest.raises(DataError, match=r"yields the degradation 'fog', not in degradations: \[noise, rain\]"):
        model.feed_data({'lq': torch.rand(1, 3, 16, 16), 'degradation': ['fog']})


def batch():
    generator = torch.Generator().manual_seed(1)
    gt = torch.rand(4, 3, 16, 16, generator=generator)
    return {'lq': gt * 0.5, 'gt': gt, 'degradation': ['noise', 'rain', 'rain', 'noise'], 'lq_path': ['a'] * 4}


def build(opt):
    """Builds a model of options as the loop would."""
    from basicsr.models import build_model

    return build_model(opt | {'is_train': True, 'dist': False, 'rank': 0, 'world_size': 1})


def scalars(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()['scalars']}
