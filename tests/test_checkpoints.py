"""Checkpoints: verified when written, few are kept, damaged ones are passed over, and what a full disk does to them."""

import logging
import os
import resource
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from lorair_arch import cli
from lorair_arch.console import open_log, session
from lorair_arch.errors import CheckpointError, LoRAIRError
from lorair_arch.training import train as training
from lorair_arch.training.board import Board
from lorair_arch.training.session import disk_errors
from lorair_arch.weights.files import load_file, save_file
from tests.disks import disk, fill
from tests.miniature import stage, write_options
from tests.outcome import outcome, same


def options(name='sr', save_checkpoint_freq=1, **more):
    opt = stage(name) | {'name': 'run'}
    opt['logger'] |= {'save_checkpoint_freq': save_checkpoint_freq, 'print_freq': 1, **more}
    return opt


def train(opt, **kwargs):
    training.run(write_options(Path(), opt), **kwargs)


def kept(kind='*'):
    """Gives the iterations of all states, having checked that each has its weights, and no weights are left over."""
    states = {path.stem for path in Path('experiments/run/training_states').glob('*.state')}
    networks = {path.stem.split('_')[-1] for path in Path('experiments/run/models').glob('net_*.pth')}
    assert networks - {'latest'} == states
    return sorted(map(int, states))


# written and read back


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('damage', ['flipped', 'truncated', 'zeros at the end'])
def test_what_the_disk_does_not_keep_is_not_taken_for_written(tmp_path, monkeypatch, suffix, damage):
    path = tmp_path / f'net{suffix}'
    save_file({'params': {'w': torch.zeros(5000)}}, path)
    before, sync = path.read_bytes(), os.fsync

    def forgetful(descriptor):
        sync(descriptor)
        size = os.fstat(descriptor).st_size
        if size > 10_000:  # the file, not its folder
            if damage == 'flipped':
                byte = os.pread(descriptor, 1, size // 2)[0]
                os.pwrite(descriptor, bytes([byte ^ 1]), size // 2)
            elif damage == 'truncated':
                os.ftruncate(descriptor, size - 4096)
            else:
                os.pwrite(descriptor, bytes(4096), size - 4096)

    monkeypatch.setattr(os, 'fsync', forgetful)
    with pytest.raises(CheckpointError, match=f'net{suffix} cannot be written: what was read back is not what was wri'):
        save_file({'params': {'w': torch.ones(5000)}}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_what_could_not_be_loaded_is_not_written(tmp_path):
    with pytest.raises(CheckpointError, match='what was read back is not what was written'):
        save_file({'iter': object}, tmp_path / '1.state')
    assert not os.listdir(tmp_path)


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'w': torch.ones(3)}, tmp_path / 'net.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_file(tmp_path / 'net.pth')['w'].sum() == 3


# which are kept


@pytest.mark.parametrize('name', ['sr', 'finetune'])
def test_the_newest_and_the_best_are_kept(here, name):
    train(options(name, keep_last=2))
    state = outcome('run')['8.state']
    records = [metric for metrics in state.get('best', {}).values() for metric in metrics.values()]
    best = {iteration for _, iteration in records} or {state['best_metric_results']['tiny_val']['psnr']['iter']}
    assert best <= {4, 8}
    assert kept() == sorted({7, 8} | (best - {8}))
    assert Path('experiments/run/models').joinpath('net_g_latest.pth').exists()


def test_all_are_kept_without_it(here):
    train(options())
    assert kept() == list(range(1, 9))


def test_the_one_that_was_continued_from_is_kept(here):
    opt = options(keep_last=1)
    opt['val']['val_freq'] = 8
    train(opt, force_yml=['train:total_iter=3'])
    assert kept() == [3]
    train(opt, auto_resume=True)
    assert kept() == [3, 8]


def test_nothing_is_removed_before_the_newer_one_is_safe(here, monkeypatch):
    opt = options(keep_last=1)
    opt['val']['val_freq'] = 8
    train(opt, force_yml=['train:total_iter=3'])
    replace = os.replace

    def full(source, target):
        if str(target).endswith('.state'):
            raise OSError(28, 'No space left on device')
        replace(source, target)

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(CheckpointError, match='4.state cannot be written'):
        train(opt, auto_resume=True)
    monkeypatch.undo()
    os.chdir(here)
    assert [path.name for path in Path('experiments/run/training_states').iterdir()] == ['3.state']
    assert Path('experiments/run/models/net_g_3.pth').exists()


def test_later_checkpoints_stay_when_training_goes_back(here):
    opt = options()
    train(opt)
    opt['logger']['keep_last'] = 1
    opt['path']['resume_state'] = 'experiments/run/training_states/2.state'
    opt['val']['val_freq'] = 8
    train(opt, force_yml=['train:total_iter=5'])
    assert kept() == [2, 5, 6, 7, 8]


def test_what_a_killed_run_left_half_written_is_removed(here):
    opt = options(save_checkpoint_freq=8)
    train(opt)
    left = [Path('experiments/run', name) for name in ('models/.net_g_9.pth.123.tmp', 'training_states/.9.state.1.tmp')]
    for path in left:
        path.write_bytes(b'half')
    train(opt, auto_resume=True)
    assert not any(path.exists() for path in left)


# damaged ones


@pytest.mark.parametrize('where', ['training_states/8.state', 'models/net_g_8.pth'])
@pytest.mark.parametrize('damage', ['truncated', 'empty', 'flipped', 'zeros', 'gone'])
def test_damaged_checkpoints_are_passed_over(here, capfd, damage, where):
    opt = options('pretrain' if damage == 'flipped' else 'sr', save_checkpoint_freq=4)
    train(opt)
    whole = outcome('run')
    path = Path('experiments/run', where)
    content = bytearray(path.read_bytes())
    if damage == 'flipped':
        with zipfile.ZipFile(path) as file:
            tensor = file.read(max(file.infolist(), key=lambda entry: entry.file_size))
        content[content.index(tensor) + len(tensor) // 2] ^= 16
    changed = {'truncated': content[: len(content) // 2], 'empty': b'', 'zeros': bytes(len(content))}
    path.write_bytes(changed.get(damage, content))
    if damage == 'gone':
        path.unlink()
    capfd.readouterr()
    train(opt, auto_resume=True)
    console = capfd.readouterr().err
    assert 'iter: 4.' in console
    if damage != 'gone' or 'models' in where:
        assert f'{path.name if damage != "gone" else "8.state"}' in console
        assert 'trying the state before it' in console
    assert same(outcome('run'), whole)


# disks


def test_a_full_disk_stops_training_and_leaves_the_last_checkpoint(here, capfd):
    """The command, in a folder with room for some checkpoints, the log and TensorBoard's curves."""
    opt = options('pretrain')
    for key, path in opt['path'].items():
        opt['path'][key] = str(here / path)
    with disk(here / 'small', '16m'):
        shutil.copytree('data', 'small/data')
        os.chdir('small')
        file = write_options(Path(), opt)
        fill(leave=1_000_000)
        assert cli.basicsr(['train', '-opt', file]) == 2
        console = capfd.readouterr().err
        last = max(int(path.stem) for path in Path('experiments/run/training_states').glob('*.state'))
        errors = [line for line in console.splitlines() if line.startswith('error: ')]
        assert len(errors) == 1
        assert errors[0].endswith(
            'cannot be written: No space left on device; free some space; the last good checkpoint is '
            f'experiments/run/training_states/{last}.state (--auto_resume continues from it)'
        )
        assert 'Traceback' not in console
        assert not list(Path('experiments').rglob('*.tmp'))
        os.remove('ballast')
        assert cli.basicsr(['train', '-opt', file, '--auto_resume']) == 0
        assert f'iter: {last}.' in capfd.readouterr().err
        os.chdir(here)


def test_a_disk_that_is_full_from_the_start_is_a_sentence(here, capfd):
    opt = options('sr')
    with disk(here / 'small', '64k'):
        os.chdir('small')
        for dataset in opt['datasets'].values():
            dataset |= {key: str(here / dataset[key]) for key in ('dataroot_lq', 'dataroot_gt')}
        file = write_options(here, opt)
        fill()
        assert cli.basicsr(['train', '-opt', str(here / file)]) == 2
        console = capfd.readouterr().err
        os.chdir(here)
    assert 'cannot be written: No space left on device; free some space; there is no checkpoint yet' in console
    assert 'Traceback' not in console


def test_a_read_only_folder_stops_training(here, capfd):
    opt = options('sr', save_checkpoint_freq=8)
    train(opt, force_yml=['train:total_iter=2', 'logger:save_checkpoint_freq=2'])
    folder = Path('experiments/run/training_states')
    if subprocess.run(['chattr', '+i', folder], capture_output=True).returncode:
        pytest.skip('a folder that root cannot write needs chattr')
    try:
        assert cli.basicsr(['train', '-opt', 'run.yml', '--auto_resume']) == 2
    finally:
        subprocess.run(['chattr', '-i', folder], check=True)
    assert capfd.readouterr().err.splitlines()[-1] == (
        f'error: {here}/experiments/run/training_states/8.state cannot be written: Operation not permitted; make its '
        'folder writable; the last good checkpoint is experiments/run/training_states/2.state (--auto_resume continues '
        'from it)'
    )


def test_a_limit_on_the_size_of_files_is_named(tmp_path):
    path = tmp_path / '1.state'
    save_file({'w': torch.zeros(10)}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r'1.state cannot be written: File too large; raise the limit'):
            save_file({'w': torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_file(path)['w'].shape == (10,)


def test_log_and_curves_on_a_full_disk_do_not_stop_a_training(here, capfd, monkeypatch):
    """They are told once each; the disk here is that of the log and the curves alone."""
    opt = options('sr', save_checkpoint_freq=8)
    train(opt, force_yml=['train:total_iter=1'])
    shutil.rmtree('tb_logger')
    capfd.readouterr()
    with disk(here / 'tb_logger', '64k'):
        flush = Board.add_scalar

        def fill_first(self, *args):
            if not Path('tb_logger/ballast').exists():
                self.flush()
                fill('tb_logger')
            for _ in range(100):
                flush(self, *args)
            self.flush()

        monkeypatch.setattr(Board, 'add_scalar', fill_first)
        train(opt)
        console = capfd.readouterr().err
    assert console.count('training goes on: No space left on device') == 1
    assert 'Traceback' not in console
    assert kept() == [8]


def test_a_log_that_cannot_be_written_is_told_once(tmp_path, capfd):
    with disk(tmp_path / 'small', '8k'), session():
        open_log(tmp_path / 'small/train.log')
        logger = logging.getLogger('basicsr')
        for _ in range(5):
            logger.info('x' * 5000)
        logging.getLogger('lorair_arch').warning('still there')
    console = capfd.readouterr().err
    assert console.count('train.log cannot be written, training goes on: No space left on device') == 1
    assert 'still there' in console
    assert 'Traceback' not in console and 'Logging error' not in console


def test_other_errors_of_the_disk_are_left_alone():
    with pytest.raises(OSError, match='nowhere') as error, disk_errors({'path': {}}):
        Path('nowhere').read_bytes()
    assert not isinstance(error.value, LoRAIRError)
