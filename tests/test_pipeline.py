"""The whole of training and testing in miniature: three stages and two model classes of BasicSR's own."""

import inspect
import json
import logging
import re
from pathlib import Path

import basicsr.test
import basicsr.train
import pytest
import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import MODEL_REGISTRY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lorair_arch.errors import CheckpointError, DataError, sentence
from lorair_arch.training import test as testing
from lorair_arch.training import train as training
from tests.miniature import as_test, run, stage, write_data, write_options
from tests.outcome import same

STAGES = ('router', 'pretrain', 'finetune')
ALL = (*STAGES, 'sr', 'gan')


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data, where the test runs."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    return tmp_path


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder in which all were trained without interruption; not to be changed."""
    folder = tmp_path_factory.mktemp('trained')
    write_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ALL:
            train(stage(name))
    return folder


def train(opt, **kwargs):
    training.run(write_options(Path(), opt), **kwargs)


def weights(folder, name, what):
    files = sorted(Path(folder, 'experiments', name, 'models').glob(f'net_*_{what}.pth'))
    assert len(files) == (2 if name == 'gan' else 1)
    return [torch.load(file, weights_only=True) for file in files]


def training_lines(folder, name):
    """Gives iteration, learning rate and losses of every line of the newest log."""
    text = max(Path(folder, 'experiments', name).glob('train_*.log')).read_text()
    found = re.findall(r'iter: +([\d,]+), lr:\((\S+),\)\] .*\)\] (.*)', text)
    assert found
    return found


@pytest.mark.parametrize('name', ALL)
def test_a_training_leaves_what_basicsr_leaves(trained, name):
    experiment = trained / 'experiments' / name
    assert {p.name for p in experiment.iterdir() if p.suffix != '.log'} == {
        'models', 'training_states', 'visualization', f'{name}.yml',
    }  # fmt: skip
    iterations = [*map(str, range(2, 10, 2))]
    assert {p.stem.split('_')[-1] for p in (experiment / 'models').iterdir()} == {*iterations, 'latest'}
    assert {p.stem for p in (experiment / 'training_states').iterdir()} == set(iterations)
    assert [line[0] for line in training_lines(trained, name)] == iterations
    board = EventAccumulator(str(trained / 'tb_logger' / name))
    board.Reload()
    losses = [tag for tag in board.Tags()['scalars'] if tag.startswith('losses/l_')]
    assert [event.step for event in board.Scalars(losses[0])] == [2, 4, 6, 8]


@pytest.mark.parametrize('name', ALL)
def test_validation_runs_once_for_each_iteration(trained, name):
    log = next((trained / 'experiments' / name).glob('train_*.log')).read_text()
    assert log.count('Validation tiny_val') == 2
    board = EventAccumulator(str(trained / 'tb_logger' / name))
    board.Reload()
    metric = next(tag for tag in board.Tags()['scalars'] if tag.startswith('metrics/'))
    assert [event.step for event in board.Scalars(metric)] == [4, 8]


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('name', ALL)
def test_an_interrupted_training_continues_bit_for_bit(trained, here, name, workers):
    opt = stage(name)
    opt['datasets']['train']['num_worker_per_gpu'] = workers
    for key, path in opt['path'].items():
        opt['path'][key] = str(trained / path)
    opt['logger']['save_checkpoint_freq'] = 5  # in the middle of an epoch
    train(opt, force_yml=['train:total_iter=5', 'val:val_freq=5'], auto_resume=True)
    train(opt, force_yml=['logger:save_checkpoint_freq=8'], auto_resume=True)
    assert same(weights(here, name, '8'), weights(trained, name, '8'))
    states = [Path(root, 'experiments', name, 'training_states/8.state') for root in (here, trained)]
    interrupted, whole = (torch.load(state, weights_only=True) for state in states)
    for state in (interrupted, whole):
        for key in ('best', 'best_metric_results', 'options'):
            state.pop(key, None)  # the validations were at other iterations
    assert same(interrupted, whole)
    assert training_lines(here, name)[-2:] == training_lines(trained, name)[-2:]
    logs = ''.join(log.read_text() for log in Path('experiments', name).glob('*.log'))
    assert f'Resuming training from epoch: {0 if name in STAGES else 1}, iter: 5.' in logs


class Watching(SRModel):
    """Notes in each step whether all is as it was when the package was imported."""

    modules = (basicsr.train, basicsr.test, basicsr.utils.misc, basicsr.utils.logger)
    before = [dict(vars(owner)) for owner in (*modules, SRModel, BaseModel)]
    seen = []

    def optimize_parameters(self, current_iter):
        now = [dict(vars(owner)) for owner in (*self.modules, SRModel, BaseModel)]
        self.seen.append(now == self.before and not any(map(inspect.isroutine, vars(self).values())))
        super().optimize_parameters(current_iter)


def test_nothing_of_basicsr_is_replaced_while_a_training_runs(here, monkeypatch):
    monkeypatch.setitem(MODEL_REGISTRY._obj_map, 'Watching', Watching)
    train(stage('sr') | {'model_type': 'Watching'})
    assert Watching.seen == [True] * 8


@pytest.mark.parametrize('name', STAGES)
def test_test_measures_and_saves(trained, monkeypatch, name):
    monkeypatch.chdir(trained)
    opt = as_test(stage(name))
    testing.run(write_options(Path(), opt, f'test_{name}'))
    result = json.loads(Path('results', name, 'metrics_tiny_val.json').read_text())
    assert len(result['images']) == 6
    images = list(Path('results', name, 'visualization').rglob('*.png'))
    assert len(images) == (0 if name == 'router' else 6)
    log = next(Path('results', name).glob('test_*.log')).read_text()
    assert log.count('Validation tiny_val') == 1
    assert f'results in results/{name}' in log


def test_an_old_experiment_is_kept_and_the_user_told(here, capfd):
    opt = stage('sr')
    train(opt, force_yml=['train:total_iter=2'])
    train(opt, force_yml=['train:total_iter=4'])
    kept = next(Path('experiments').glob('sr_archived_*'))
    assert (kept / 'models/net_g_2.pth').exists()
    assert len(list(Path('tb_logger').glob('sr_archived_*'))) == 1
    console = capfd.readouterr().err
    assert console.count(f'experiments/sr existed; it is kept as {kept} (--auto_resume continues instead)') == 1


def test_the_console_shows_progress_and_the_file_everything(here, capfd):
    """Also when several runs follow each other in a process: no line twice, each in its own file."""
    before = list(logging.getLogger('basicsr').handlers)
    for name in ('one', 'two'):
        train(stage('sr') | {'name': name})
        out, err = capfd.readouterr()
        assert out == ''
        assert len(err.splitlines()) == 10, err  # heading, 4 training lines, 2 validations of 2 lines, the end
        assert len(re.findall(r'\[eta: .*l_pix: ', err)) == 4
        log = next(Path('experiments', name).glob('*.log')).read_text()
        for once in ('Version Information', 'model_type: SRModel', '(conv_first): Conv2d', 'Save the latest model'):
            assert log.count(once) == 1
            assert once not in err
        assert log.count('l_pix: ') == 4
    assert logging.getLogger('basicsr').handlers == before


def test_a_training_without_a_seed_continues_with_the_one_it_drew(trained, here):
    opt = stage('pretrain')
    del opt['manual_seed']
    opt['path']['pretrain_network_router'] = str(trained / opt['path']['pretrain_network_router'])
    train(opt, force_yml=['train:total_iter=2'])
    train(opt, force_yml=['train:total_iter=4'], auto_resume=True)
    seeds = [torch.load(state, weights_only=True)['progress']['seed'] for state in Path('experiments').rglob('*.state')]
    assert len(seeds) == 2
    assert len(set(seeds)) == 1


def test_auto_resume_passes_over_damaged_states(trained, here, capfd):
    train(stage('sr'))
    states = Path('experiments/sr/training_states')
    (states / '8.state').write_bytes((states / '8.state').read_bytes()[:-100])
    Path('experiments/sr/models/net_g_6.pth').unlink()
    capfd.readouterr()
    train(stage('sr'), auto_resume=True)
    console = capfd.readouterr().err
    assert 'warning: ' in console and '8.state seems to be a' in console
    assert '6.state has no networks' in console
    assert 'Resuming training from epoch: 1, iter: 4.' in console
    assert same(weights(here, 'sr', '8'), weights(trained, 'sr', '8'))


def test_auto_resume_with_nothing_sound_refuses(here):
    train(stage('sr'), force_yml=['train:total_iter=2'])
    Path('experiments/sr/training_states/2.state').write_bytes(b'')
    with pytest.raises(CheckpointError, match='leave out --auto_resume to start anew'):
        train(stage('sr'), auto_resume=True)
    assert Path('experiments/sr/models/net_g_2.pth').exists()


def test_weights_are_no_training_state(here):
    train(stage('sr'), force_yml=['train:total_iter=2'])
    opt = stage('sr')
    opt['path']['resume_state'] = 'experiments/sr/models/net_g_2.pth'
    with pytest.raises(CheckpointError, match='net_g_2.pth is not a training state: it has no epoch, iter'):
        train(opt)


def test_a_finished_training_has_nothing_left_to_do(here):
    train(stage('sr'))
    before = weights(here, 'sr', '8')
    train(stage('sr'), auto_resume=True)
    assert same(weights(here, 'sr', 'latest'), before)


def test_too_few_images_for_a_batch(here):
    with pytest.raises(DataError, match='tiny_train: 7 images do not fill one batch of 8.*dataset_enlarge_ratio'):
        train(stage('sr'), force_yml=['datasets:train:batch_size_per_gpu=8'])


def test_unpaired_images_of_basicsr_data_sets(here):
    Path('data/train_half/0.png').unlink()
    with pytest.raises(
        DataError, match='data set tiny_train: lq and gt datasets have different number of images: 6, 7'
    ):
        train(stage('sr'))


@pytest.mark.parametrize('workers', [0, 1])
def test_a_damaged_image_of_a_basicsr_data_set_is_named(here, workers):
    Path('data/train_half/3.png').write_bytes(b'nothing')
    opt = stage('sr')
    opt['datasets']['train']['num_worker_per_gpu'] = workers
    with pytest.raises(
        DataError, match=r'^data set tiny_train: data/train_half/3.png or data/train_gt/3.png cannot be used'
    ):
        try:
            train(opt)
        except DataError as error:
            raise DataError(sentence(error)) from error


def test_a_damaged_validation_image_of_a_basicsr_data_set_is_named(here):
    Path('data/val_gt/1.png').write_bytes(b'')
    with pytest.raises(DataError, match='data set tiny_val: data/val_half/1.png or data/val_gt/1.png cannot be used'):
        train(stage('sr'))


def test_workers_that_start_anew_read_the_same(trained, here):
    """As they do beside NCCL: nothing of this process is there but what is sent to them."""
    opt = stage('sr')
    opt['datasets']['train'] |= {'num_worker_per_gpu': 1, 'persistent_workers': True}
    code = (
        'import sys, torch; sys.argv[0] = "basicsr"; torch.multiprocessing.set_start_method("spawn")\n'
        f'from lorair_arch.cli import basicsr; sys.exit(basicsr(["train", "-opt", "{write_options(here, opt)}"]))'
    )
    done = run(here, python=('-c', code))
    assert done.returncode == 0, done.stderr
    assert same(weights(here, 'sr', '8'), weights(trained, 'sr', '8'))
