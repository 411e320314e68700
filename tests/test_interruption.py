"""Ctrl-C and SIGTERM: a training saves, says so and ends; resumed, it is the same as one that was left alone."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from lorair_arch import cli
from lorair_arch.errors import Interrupted
from lorair_arch.training import train as training
from lorair_arch.training.train import Training
from tests.miniature import run, stage, write_options
from tests.outcome import outcome, same

NUMBERS = signal.SIGINT, signal.SIGTERM


@pytest.fixture
def before_step(monkeypatch):
    """Gives a function that has something done before an iteration, in the next training alone."""
    begin = Training.begin_step

    def at(iteration, do):
        def begin_step(self, current_iter):
            if current_iter == iteration:
                monkeypatch.setattr(Training, 'begin_step', begin)
                do()
            begin(self, current_iter)

        monkeypatch.setattr(Training, 'begin_step', begin_step)

    return at


def signalled(number):
    return lambda: os.kill(os.getpid(), number)


def options(name):
    opt = stage(name) | {'name': 'run'}
    opt['logger'] |= {'save_checkpoint_freq': 8, 'print_freq': 1}
    return opt


def train(opt, **kwargs):
    training.run(write_options(Path(), opt), **kwargs)


@pytest.mark.parametrize(('name', 'workers'), [('router', 0), ('pretrain', 1), ('finetune', 0), ('sr', 1)])
def test_an_interrupted_training_continues_bit_for_bit(here, before_step, name, workers):
    opt = options(name)
    train(opt | {'name': 'whole'})
    opt['datasets']['train']['num_worker_per_gpu'] = workers
    for iteration, number in ((4, signal.SIGINT), (6, signal.SIGTERM)):
        before_step(iteration, signalled(number))
        with pytest.raises(Interrupted) as stop:
            train(opt, auto_resume=True)
        assert stop.value.code == 128 + number
        path = f'experiments/run/training_states/{iteration - 1}.state'
        expected = f'{number.name} after iteration {iteration - 1}: saved as {path}; --auto_resume continues'
        assert str(stop.value) == expected
    train(opt, auto_resume=True)
    assert same(outcome('run'), outcome('whole'))
    assert len(outcome('run')['logged']) == 8


def test_a_validation_is_interrupted_and_made_up_for(here, monkeypatch):
    from lorair_arch.models.lorair_model import RestorationModel

    opt = options('pretrain')
    train(opt | {'name': 'whole'})
    evaluate, images = RestorationModel.evaluate, []

    def evaluate_and_signal(self, data, dataset, current_iter, save_img):
        images.append(data['lq_path'][0])
        if len(images) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self, data, dataset, current_iter, save_img)

    monkeypatch.setattr(RestorationModel, 'evaluate', evaluate_and_signal)
    with pytest.raises(Interrupted, match='SIGTERM after iteration 4: saved'):
        train(opt)
    assert len(images) == 2
    train(opt, auto_resume=True)
    assert len(images) == 2 + 6 + 6
    assert same(outcome('run'), outcome('whole'))


@pytest.mark.parametrize('number', NUMBERS)
def test_the_command_says_one_sentence(here, before_step, capfd, number):
    file = write_options(here, options('sr'))
    before_step(3, signalled(number))
    handlers = [signal.getsignal(n) for n in NUMBERS]
    assert cli.basicsr(['train', '-opt', file]) == 128 + number
    assert [signal.getsignal(n) for n in NUMBERS] == handlers
    console = capfd.readouterr().err
    last = console.splitlines()[-1]
    assert last == f'{number.name} after iteration 2: saved as experiments/run/training_states/2.state; ' + (
        '--auto_resume continues'
    )
    assert ('interrupted: saving after this step (Ctrl-C again ends at once)' in console) == (number == signal.SIGINT)
    assert 'Traceback' not in console


def test_before_the_first_step_there_is_nothing_to_save(here, before_step):
    before_step(1, signalled(signal.SIGTERM))
    with pytest.raises(Interrupted, match='SIGTERM after iteration 0: nothing new to save'):
        train(options('sr'))
    assert not list(Path('experiments').rglob('*.state'))


def test_a_checkpoint_that_is_there_is_not_written_again(here, before_step):
    opt = options('sr')
    opt['logger']['save_checkpoint_freq'] = 2
    path = Path('experiments/run/training_states/2.state')
    times = []

    def note_and_signal():
        times.append(path.stat().st_mtime_ns)
        os.kill(os.getpid(), signal.SIGINT)

    before_step(3, note_and_signal)
    with pytest.raises(Interrupted, match='2.state'):
        train(opt)
    assert path.stat().st_mtime_ns == times[0]


def test_a_second_ctrl_c_ends_at_once(here):
    """In the middle of a step, in a process of its own."""
    code = (
        'import os, signal, sys\n'
        'from lorair_arch.cli import basicsr\n'
        'from lorair_arch.models.stage import StageModel\n'
        'def twice(self, current_iter):\n'
        '    for _ in range(2): os.kill(os.getpid(), signal.SIGINT)\n'
        '    sys.stderr.write("still there")\n'
        'StageModel.optimize_parameters = twice\n'
        f'sys.exit(basicsr(["train", "-opt", "{write_options(here, options("pretrain"))}"]))'
    )
    done = run(here, python=('-c', code))
    assert done.returncode == -signal.SIGINT
    assert 'still there' not in done.stderr
    assert not list(Path('experiments/run').rglob('*.state'))


def test_data_workers_outlive_signals_to_the_whole_group(here, before_step):
    opt = options('pretrain')
    train(opt | {'name': 'whole'})
    opt['datasets']['train']['num_worker_per_gpu'] = 1
    hit = []

    def signal_workers():
        for worker in multiprocessing.active_children():
            hit.append(worker.pid)
            for number in (*NUMBERS, signal.SIGTERM):
                os.kill(worker.pid, number)

    before_step(2, signal_workers)
    train(opt)
    assert hit
    assert same(outcome('run')['net_g_8.pth'], outcome('whole')['net_g_8.pth'])


def test_two_processes_stop_at_the_same_step_when_one_gets_a_signal(here):
    """Process 1 gets it; both end with a checkpoint of process 0; a single process continues from it."""
    opt = options('pretrain')
    opt['datasets']['train']['batch_size_per_gpu'] = 1
    file = write_options(here, opt)
    (here / 'job.py').write_text(
        'import os, signal, sys\n'
        'from lorair_arch import cli\n'
        'from lorair_arch.training.train import Training\n'
        'begin = Training.begin_step\n'
        'def begin_step(self, current_iter):\n'
        '    if current_iter == 4 and os.environ["RANK"] == "1":\n'
        '        os.kill(os.getpid(), signal.SIGTERM)\n'
        '    begin(self, current_iter)\n'
        'Training.begin_step = begin_step\n'
        f'code = cli.basicsr(["train", "-opt", "{file}", "--launcher", "pytorch"])\n'
        'open("code" + os.environ["RANK"], "w").write(str(code))\n'
    )
    done = run(here, python=('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', 'job.py'))
    assert done.returncode == 0, done.stderr
    assert [Path(f'code{rank}').read_text() for rank in range(2)] == ['143', '143']
    assert done.stderr.count('SIGTERM after iteration 4: saved as experiments/run/training_states/4.state') == 1
    assert 'Traceback' not in done.stderr
    train(opt, auto_resume=True)
    assert set(outcome('run')) == {'logged', '8.state', 'net_g_8.pth'}
