"""Resuming with other options: what they say holds from the next step on, and what cannot be continued is refused."""

import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from basicsr.models.base_model import BaseModel

from lorair_arch import cli
from lorair_arch.errors import CheckpointError, OptionsError
from lorair_arch.training import train as training
from lorair_arch.weights.files import save_file
from tests.miniature import stage, write_options
from tests.outcome import outcome, same

STATE = 'experiments/run/training_states/5.state'


def options(name='pretrain', **train):
    opt = stage(name) | {'name': 'run'}
    opt['logger'] |= {'save_checkpoint_freq': 1, 'print_freq': 1, 'use_tb_logger': False}
    opt['val'] = None
    opt['train'] |= train
    return opt


def train(opt, **kwargs):
    training.run(write_options(Path(), opt), **kwargs)


def stop_at_5(opt, old=False):
    """Trains five of eight iterations; `old`: leaves a state as versions did that did not save their options."""
    train(opt, force_yml=['train:total_iter=5'])
    if old:
        state = torch.load(STATE, weights_only=True)
        del state['options']
        save_file(state, STATE)


def state_of(iteration, name='run'):
    return torch.load(f'experiments/{name}/training_states/{iteration}.state', weights_only=True)


def rates(name, iterations):
    return [state_of(i, name)['optimizers'][0]['param_groups'][0]['lr'] for i in iterations]


def cosine(*periods, **more):
    return {'type': 'CosineAnnealingRestartLR', 'periods': list(periods), 'eta_min': 1e-5, **more}


def steps(*milestones, kind='MultiStepLR', **more):
    return {'type': kind, 'milestones': list(milestones), 'gamma': 0.5, **more}


ADAM, ADAMW = ({'type': name, 'lr': 1e-3} for name in ('Adam', 'AdamW'))
SCHEDULES = {
    'longer': (cosine(8), {'total_iter': 12, 'scheduler': cosine(12)}),
    'more periods': (cosine(8), {'total_iter': 12, 'scheduler': cosine(4, 8, restart_weights=[1, 0.5])}),
    'another end': (cosine(8), {'scheduler': cosine(8) | {'eta_min': 1e-4}}),
    'other milestones': (steps(4), {'scheduler': steps(2, 6)}),
    'another gamma': (steps(4), {'scheduler': steps(4) | {'gamma': 0.1}}),
    'milestones later': (steps(2), {'scheduler': steps(7)}),
    'restarts': (steps(4), {'scheduler': steps(3, kind='MultiStepRestartLR', restarts=[0, 4], restart_weights=[1, 2])}),
    'steps in place of a cosine': (cosine(8), {'scheduler': steps(7)}),
    'a cosine in place of steps': (steps(2, 4), {'scheduler': cosine(8)}),
    'another rate': (cosine(8), {'optim_g': ADAM | {'lr': 4e-3}}),
    'another rate of steps': (steps(4), {'optim_g': ADAM | {'lr': 4e-3}}),
    'warm-up': (cosine(8), {'warmup_iter': 7}),
    'no warm-up': (cosine(8), {'warmup_iter': -1}),
}


def rates_from_the_start(opt):
    """Gives the learning rate of every iteration, of a model that takes no steps."""
    opt = deepcopy(opt) | {'is_train': True}
    model = BaseModel(opt)
    optimizer = opt['train']['optim_g']
    model.optimizers = [getattr(torch.optim, optimizer.pop('type'))([torch.nn.Parameter(torch.ones(1))], **optimizer)]
    model.setup_schedulers()
    found = []
    for iteration in range(1, opt['train']['total_iter'] + 1):
        model.update_learning_rate(iteration, opt['train']['warmup_iter'])
        found += model.get_current_learning_rate()
    return found


@pytest.mark.parametrize(
    ('change', 'old'),
    [*((change, False) for change in SCHEDULES), ('longer', True), ('steps in place of a cosine', True)],
)
def test_schedules_are_as_if_they_had_run_from_the_start(here, change, old):
    scheduler, changes = SCHEDULES[change]
    opt = options('sr', scheduler=scheduler, warmup_iter=7 if change == 'no warm-up' else -1, optim_g=ADAM)
    stop_at_5(opt, old)
    assert rates('run', range(1, 6)) == rates_from_the_start(opt)[:5]
    opt['train'] |= changes
    train(opt, auto_resume=True)
    assert rates('run', range(6, opt['train']['total_iter'] + 1)) == rates_from_the_start(opt)[5:]


def test_pytorch_s_own_schedulers_too(here, monkeypatch):
    """A model class of another package may use them."""
    from basicsr.models.sr_model import SRModel

    def setup_schedulers(self):
        gamma = self.opt['train']['scheduler']['gamma']
        self.schedulers.append(torch.optim.lr_scheduler.ExponentialLR(self.optimizers[0], gamma))

    monkeypatch.setattr(SRModel, 'setup_schedulers', setup_schedulers)
    opt = options('sr')
    stop_at_5(opt)
    opt['train']['scheduler']['gamma'] = 0.9
    train(opt, auto_resume=True)
    assert rates('run', (5, 8)) == pytest.approx([1e-3 * 0.5**4, 1e-3 * 0.9**7])


@pytest.mark.parametrize('old', [False, True], ids=['', 'old state'])
@pytest.mark.parametrize('name', ['router', 'finetune', 'sr'])
def test_the_same_options_continue_to_the_last_bit(here, name, old, capfd):
    opt = options(name, warmup_iter=3)
    train(opt | {'name': 'whole'})
    stop_at_5(opt, old)
    opt['train']['total_iter'] = 8
    train(opt, auto_resume=True)
    whole = outcome('whole')
    assert same(outcome('run'), whole)
    assert len(whole['logged']) == 8


def test_settings_of_the_optimiser_hold_and_its_moments_stay(here):
    opt = options()
    stop_at_5(opt)
    opt['train'] |= {'optim_g': ADAMW | {'weight_decay': 0.3, 'betas': [0.5, 0.6], 'eps': 1e-6}}
    before = state_of(5)['optimizers'][0]
    train(opt, auto_resume=True, force_yml=['train:total_iter=6'])
    after = state_of(6)['optimizers'][0]
    group = after['param_groups'][0]
    assert (group['weight_decay'], tuple(group['betas']), group['eps']) == (0.3, (0.5, 0.6), 1e-6)
    assert after['state'][0]['step'] == 6
    weights = [outcome('run', i)[f'net_g_{i}.pth']['params'] for i in (5, 6)]
    checked = 0
    for i, name in enumerate(weights[0]):
        old, new = (state['state'][i] for state in (before, after))
        gradient = (new['exp_avg'] - 0.5 * old['exp_avg']) / 0.5
        torch.testing.assert_close(new['exp_avg_sq'], 0.6 * old['exp_avg_sq'] + 0.4 * gradient**2, rtol=1e-3, atol=1e-9)
        average, square = new['exp_avg'] / (1 - 0.5**6), new['exp_avg_sq'] / (1 - 0.6**6)
        expected = weights[0][name] * (1 - 0.3 * group['lr']) - group['lr'] * average / (square.sqrt() + 1e-6)
        torch.testing.assert_close(weights[1][name], expected, rtol=1e-4, atol=1e-6)
        checked += old['exp_avg'].any().item()
    assert checked > 10


def test_every_change_is_told_with_its_old_and_new_value(here, capfd):
    opt = options()
    stop_at_5(opt)
    opt['train'] |= {'total_iter': 12, 'scheduler': cosine(12), 'grad_clip_norm': None, 'accumulate': 2}
    opt['datasets']['train']['sources'][1]['degrade']['length'] = [5, 9]
    capfd.readouterr()
    train(opt, auto_resume=True)
    lines = [line for line in capfd.readouterr().err.splitlines() if 'other options' in line]
    assert lines == [
        f'warning: {STATE} was trained with other options, the new ones hold from iteration 6: '
        'datasets.train.sources[1].degrade.length [5, 9] (was not given), train.total_iter 12 (was 5), '
        'train.scheduler.periods [12] (was [8]), train.accumulate 2 (was not given), '
        'train.grad_clip_norm not given (was 0.01)'
    ]
    assert lines[0].removeprefix('warning: ') in max(Path('experiments/run').glob('*.log')).read_text()
    # and then it is what the training is continued with
    train(opt | {'name': 'run'}, auto_resume=True)
    assert 'other options' not in capfd.readouterr().err


def changed(opt, places):
    opt = deepcopy(opt)
    for place, value in places.items():
        *sections, last = place.split('.')
        section = opt
        for key in sections:
            section = section[key]
        section[last] = value
    return opt


REFUSED = {
    'another optimiser': (
        'pretrain',
        {'train.optim_g': {'type': 'SGD', 'lr': 1e-3}},
        "optim_g.type 'SGD' (was 'AdamW')",
    ),
    'a close relative': ('pretrain', {'train.optim_g.type': 'Adam'}, "train.optim_g.type 'Adam' (was 'AdamW')"),
    'more moments': (
        'pretrain',
        {'train.optim_g.amsgrad': True},
        'train.optim_g: amsgrad true (was not given), for which there is no max_exp_avg_sq',
    ),
    'another network': (
        'pretrain',
        {'network_g.width': 32},
        'network_g: experiments/run/models/net_g_5.pth does not f',
    ),
    'more blocks': (
        'pretrain',
        {'network_g.middle_blk_num': 2},
        'network_g: experiments/run/models/net_g_5.pth does n',
    ),
    'another rank': ('finetune', {'network_g.lora.rank': 3}, 'network_g: experiments/run/models/net_g_5.pth does not'),
    'all trainable': ('finetune', {'train.trainable': 'all'}, "train.trainable 'all' (was 'lora')"),
    'frozen': ('router', {'network_router.freeze_clip': True}, 'network_router.freeze_clip true (was false)'),
    'another encoder': (
        'router',
        {'network_router.clip_model.vision_cfg.width': 16},
        'network_router: experiments/run/models/net_router_5.pth does not fit',
    ),
    "another of BasicSR's networks": ('sr', {'network_g.num_feat': 8}, 'network_g: experiments/run/models/net_g_5.pth'),
    "another optimiser of BasicSR's": ('sr', {'train.optim_g': {'type': 'SGD', 'lr': 1}}, "type 'SGD' (was 'Adam')"),
    'another model': ('sr', {'model_type': 'SwinIRModel'}, "model_type 'SwinIRModel' (was 'SRModel')"),
}


WAYS = [('run', what) for what in REFUSED]
WAYS += [(way, what) for way in ('several files', 'dry run') for what in ('another optimiser', 'another rank')]


@pytest.mark.parametrize(('way', 'what'), WAYS)
def test_what_cannot_be_continued_is_refused_before_anything_starts(here, capfd, what, way):
    name, places, reason = REFUSED[what]
    opt = options(name)
    stop_at_1(opt)
    before = content(here)
    files = [write_options(here, stage('sr') | {'name': 'first'})] if way == 'several files' else []
    before |= content(here)
    files.append(write_options(here, changed(opt, places), 'other'))
    before[Path('other.yml').absolute()] = Path('other.yml').read_bytes()
    capfd.readouterr()
    flags = ['--dry-run'] if way == 'dry run' else []
    assert cli.basicsr(['train', '-opt', *files, '--auto_resume', *flags]) == 2
    error = capfd.readouterr().err
    assert error.count('\n') == 1
    assert re.match(rf'error: (other.yml: )?{STATE} cannot be continued with other options: ', error)
    assert reason in error
    assert error.endswith('from weights in experiments/run/models if they fit\n')
    assert content(here) == before


def stop_at_1(opt):
    """Leaves a state of one iteration, in the place of one of five."""
    train(opt, force_yml=['train:total_iter=1'])
    for path in Path('experiments/run').rglob('*_1.pth'):
        path.rename(path.with_name(path.name.replace('_1', '_5')))
    state = Path(STATE).with_name('1.state')
    save_file(torch.load(state, weights_only=True) | {'iter': 5}, STATE)
    state.unlink()


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


OLD_REFUSED = {
    'another optimiser': (
        {'train.optim_g': {'type': 'SGD', 'lr': 1e-3}},
        r'train.optim_g.type SGD \(was one with amsgrad, betas, capturable, decoupled_weight_decay, eps\)',
    ),
    'another network': ({'network_g.width': 32}, 'network_g: experiments/run/models/net_g_5.pth does not fit LoRAIR'),
}


@pytest.mark.parametrize('what', OLD_REFUSED)
def test_states_that_do_not_know_their_options_are_compared_too(here, what):
    places, reason = OLD_REFUSED[what]
    opt = options()
    stop_at_5(opt, old=True)
    with pytest.raises(OptionsError, match=reason):
        train(changed(opt, places), auto_resume=True)


def test_other_parameters_than_an_old_state_has_are_refused(here):
    opt = options('router')
    stop_at_5(opt, old=True)
    with pytest.raises(CheckpointError) as error:
        train(changed(opt, {'network_router.freeze_clip': True}), auto_resume=True)
    assert re.fullmatch(
        r'the training state of iteration 5 has moments of \d+ parameters, but now 6 learn: set back what has changed '
        r'\(as train.trainable\), or begin a new training',
        str(error.value),
    )


def test_an_end_that_has_been_passed_is_refused(here):
    opt = options()
    stop_at_5(opt)
    with pytest.raises(OptionsError) as error:
        train(opt, auto_resume=True, force_yml=['train:total_iter=4'])
    assert str(error.value) == (
        f'train.total_iter: found 4, expected at least 5: that far {STATE} has come (path.resume_state names an '
        'earlier state)'
    )
    train(opt, auto_resume=True, force_yml=['train:total_iter=5'])  # nothing is left to do


def test_defaults_may_be_written_out(here, capfd):
    opt = options('finetune')
    del opt['train']['trainable']
    stop_at_5(opt)
    train(changed(opt, {'train.trainable': 'lora', 'network_g.local_pool_size': [16, 16]}), auto_resume=True)
    assert "train.trainable 'lora' (was not given)" in capfd.readouterr().err


def test_another_experiment_goes_on_from_a_state(here, capfd):
    """In folders of its own; the first experiment and an older one of the second's name stay as they are."""
    opt = options()
    stop_at_5(opt)
    train(opt | {'name': 'whole'})
    other = opt | {'name': 'other', 'path': opt['path'] | {'resume_state': STATE}}
    train(opt | {'name': 'other'}, force_yml=['train:total_iter=7'])
    before = content(here / 'experiments/run')
    train(other)
    assert content(here / 'experiments/run') == before
    assert same(outcome('other')['net_g_8.pth'], outcome('whole')['net_g_8.pth'])
    assert sorted(path.stem for path in Path('experiments/other/training_states').iterdir()) == ['6', '7', '8']
    assert len(list(Path('experiments').glob('other_archived_*/training_states/7.state'))) == 1


def test_an_average_begins_and_ends_where_the_options_say(here):
    opt = options(ema_decay=0)
    stop_at_5(opt)
    start = outcome('run', 5)['net_g_5.pth']
    assert 'params_ema' not in start
    train(opt, auto_resume=True, force_yml=['train:ema_decay=0.75', 'train:total_iter=6'])
    after = outcome('run', 6)['net_g_6.pth']
    for key, value in after['params_ema'].items():
        torch.testing.assert_close(value, 0.75 * start['params'][key] + 0.25 * after['params'][key])
    train(opt, auto_resume=True, force_yml=['train:total_iter=7'])
    assert 'params_ema' not in outcome('run', 7)['net_g_7.pth']


def test_metrics_may_be_added_to_a_model_of_basicsr(here):
    opt = options('sr') | {'val': stage('sr')['val'] | {'val_freq': 3}}
    stop_at_5(opt)
    opt['val']['metrics'] = opt['val']['metrics'] | {'ssim': {'type': 'calculate_ssim', 'crop_border': 0}}
    train(opt, auto_resume=True)
    best = state_of(8)['best_metric_results']['tiny_val']
    assert best['ssim']['iter'] == 6 and best['psnr']['iter'] in (3, 6)
