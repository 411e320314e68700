"""Losses and gradients that are not finite: the step is skipped, counted and told, and never reaches a weight."""

import copy
import logging
from pathlib import Path

import pytest
import torch
from basicsr.models import build_model

from lorair_arch.errors import NumericsError
from lorair_arch.models.stage import StageModel
from lorair_arch.training import train as training
from tests.miniature import run, stage, write_options
from tests.outcome import outcome, same

NAN = float('nan')


def build(name, **train):
    opt = stage(name)
    opt['train'] |= train
    return build_model(opt | {'is_train': True, 'dist': False, 'rank': 0, 'world_size': 1})


def batch(value=None):
    gt = torch.rand(4, 3, 16, 16)
    data = {'lq': gt * 0.5, 'gt': gt, 'degradation': ['noise', 'rain'] * 2, 'lq_path': list('abcd')}
    if value is not None:
        data['lq'][3, 1, 5, 7] = value
    return data


def everything(model):
    """Gives a copy of all that a step may change."""
    parts = model.net.state_dict(), model.net_ema.state_dict(), model.optimizers[0].state_dict()
    return copy.deepcopy(parts)


def step(model, data, iteration=1):
    model.feed_data(data)
    model.optimize_parameters(iteration)


@pytest.mark.parametrize('amp', [None, 'bf16', 'fp16'])
@pytest.mark.parametrize(
    ('name', 'value'), [('router', NAN), ('pretrain', NAN), ('pretrain', float('inf')), ('finetune', NAN)]
)
def test_a_bad_step_leaves_everything_as_it_was(here, caplog, monkeypatch, name, value, amp):
    monkeypatch.setattr('lorair_arch.models.stage.has_bf16', lambda kind: True)
    model = build(name, amp=amp)
    if amp == 'fp16':
        model.scaler = torch.amp.GradScaler('cpu', init_scale=2.0**8)  # of steps as small as these
    step(model, batch())
    before = everything(model)
    logging.getLogger('basicsr').addHandler(caplog.handler)
    # the router looks at images in 8 bits, where nothing is NaN
    spoilt = name == 'router' and model.net.register_forward_hook(lambda net, args, out: [part * value for part in out])
    step(model, batch(value), 1234)
    if spoilt:
        spoilt.remove()
    assert same(everything(model), before)
    assert model.bad_steps == [1, 1]
    (record,) = caplog.records
    assert 'iteration 1,234: the loss or its gradient is not finite (l_' in record.getMessage()
    assert record.getMessage().endswith('; the step was skipped (1 in a row, 1 in all); its images: a, b, c, d')
    step(model, batch())
    assert not same(everything(model), before)
    assert model.bad_steps == [1, 0]
    assert model.get_current_log()['skipped_steps'] == 1


def test_a_loss_that_is_not_finite_is_enough(here):
    """Also where every gradient is: here the loss is infinite by a constant."""
    model = build('pretrain')
    losses = model.compute_losses
    model.compute_losses = lambda: {'l_pix': losses()['l_pix'] + float('inf')}
    before = everything(model)
    step(model, batch())
    assert same(everything(model), before)


def test_a_gradient_that_is_not_finite_is_enough(here):
    model = build('pretrain', grad_clip_norm=None)
    model.params[0].register_hook(lambda gradient: gradient * float('inf'))
    before = everything(model)
    step(model, batch())
    assert torch.tensor(list(model.get_current_log().values())).isfinite().all()
    assert same(everything(model), before)


def test_only_the_bad_part_of_a_step_is_named(here, caplog):
    model = build('pretrain', accumulate=2)
    before = everything(model)
    logging.getLogger('basicsr').addHandler(caplog.handler)
    step(model, batch(NAN))
    assert same(everything(model), before)
    assert caplog.records[0].getMessage().endswith('its images: c, d')


@pytest.fixture
def bad_iterations(monkeypatch):
    """Gives a function that makes the images of some iterations NaN."""
    feed = StageModel.feed_data

    def spoil(*iterations):
        left = list(iterations)

        def feed_data(self, data):
            self.count = getattr(self, 'count', 0) + 1
            if self.count in left:
                data['lq'] = data['lq'] * NAN
            feed(self, data)

        monkeypatch.setattr(StageModel, 'feed_data', feed_data)

    return spoil


def train(save_checkpoint_freq=2, **options):
    opt = stage('pretrain')
    opt['logger'] |= {'print_freq': 1, 'save_checkpoint_freq': save_checkpoint_freq}
    opt['train'] |= options
    training.run(write_options(Path(), opt))


def test_training_goes_on_after_bad_steps(here, bad_iterations, capfd):
    bad_iterations(3, 4, 6)
    train(max_bad_steps=3)
    state = outcome('pretrain')
    assert state['8.state']['bad_steps'] == [3, 0]
    assert all(
        value.isfinite().all() for net in ('params', 'params_ema') for value in state['net_g_8.pth'][net].values()
    )
    console = capfd.readouterr().err
    for iteration, counts in ((3, '1 in a row, 1 in all'), (4, '2 in a row, 2 in all'), (6, '1 in a row, 3 in all')):
        assert console.count(f'warning: iteration {iteration}: the loss or its gradient is not finite') == 1
        assert f'({counts}); its images: data/train_' in console
    assert 'skipped_steps: 3.0000e+00' in console


def test_too_many_in_a_row_end_the_training(here, bad_iterations):
    bad_iterations(*range(4, 9))
    with pytest.raises(NumericsError) as error:
        train(max_bad_steps=4)
    assert str(error.value) == (
        'the loss or its gradient was not finite in 4 steps in a row, up to iteration 7; look at the images that the '
        'log names, or lower the learning rate; the last good checkpoint is '
        'experiments/pretrain/training_states/6.state (--auto_resume continues from it)'
    )
    kept = outcome('pretrain', 6)
    assert kept['6.state']['bad_steps'] == [3, 3]
    assert all(value.isfinite().all() for value in kept['net_g_6.pth']['params'].values())


def test_the_default_is_ten(here, bad_iterations):
    bad_iterations(*range(1, 20))
    with pytest.raises(NumericsError, match='10 steps in a row, up to iteration 10;.*there is no checkpoint yet'):
        train(save_checkpoint_freq=20, total_iter=20, scheduler={'type': 'MultiStepLR', 'milestones': [5]})


def test_two_processes_skip_the_same_steps(here):
    """Process 1 alone meets a bad image, in the first half of a step; the first process says which."""
    opt = stage('pretrain')
    opt['train']['accumulate'] = 2
    opt['datasets']['train']['batch_size_per_gpu'] = 1
    opt['logger']['save_checkpoint_freq'] = opt['val']['val_freq'] = 8
    (here / 'job.py').write_text(
        'import os, torch\n'
        'from lorair_arch import cli\n'
        'from lorair_arch.models.stage import StageModel\n'
        'feed, step = StageModel.feed_data, StageModel.optimize_parameters\n'
        'def feed_data(self, data):\n'
        '    self.count = getattr(self, "count", 0) + 1\n'
        '    if os.environ["RANK"] == "1" and self.count == 3:\n'
        '        data["lq"][0] *= float("nan")\n'
        '        open("image", "w").write(data["lq_path"][0])\n'
        '    feed(self, data)\n'
        'def optimize_parameters(self, current_iter):\n'
        '    step(self, current_iter)\n'
        '    if current_iter == 8:\n'
        '        torch.save([self.net.module.state_dict(), self.bad_steps], "end" + os.environ["RANK"])\n'
        'StageModel.feed_data, StageModel.optimize_parameters = feed_data, optimize_parameters\n'
        f'raise SystemExit(cli.basicsr(["train", "-opt", "{write_options(here, opt)}", "--launcher", "pytorch"]))\n'
    )
    done = run(here, python=('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', 'job.py'))
    assert done.returncode == 0, done.stderr
    ends = [torch.load(f'end{rank}', weights_only=True) for rank in range(2)]
    assert same(*ends)
    assert ends[0][1] == [1, 0]
    assert all(value.isfinite().all() for value in ends[0][0].values())
    assert done.stderr.count('is not finite') == 1
    assert f'(1 in a row, 1 in all); its images: {Path("image").read_text()}\n' in done.stderr
