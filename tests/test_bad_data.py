"""Images and LMDBs that cannot be used, each with the exact sentence that the user gets."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from lorair_arch import cli
from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.errors import LoRAIRError
from tests.bad_data import GT, GT_DB, LQ, LQ_DB, ROWS, Row
from tests.miniature import stage, write_data, write_options
from tests.photos import photo


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with sound data, where the test runs."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    for path in (LQ_DB, GT_DB):
        with LmdbWriter(str(path)) as writer:
            for seed, key in enumerate('abc'):
                writer.put(key, photo(seed, 24, 28))
    return tmp_path


def source(row):
    lq, gt = (LQ_DB, GT_DB) if row.name.startswith('LMDB') else (LQ, GT)
    return {'degradation': 'noise', 'dataroot_lq': str(lq), 'dataroot_gt': str(gt)} | row.source


def read(row):
    """Gives what is wrong with the first image that cannot be read."""
    with pytest.raises(LoRAIRError) as caught:
        list(AllInOneDataset({'name': 'x', 'phase': 'val', 'sources': [source(row)]}))
    return str(caught.value).removeprefix("data set 'x': ")


def run(row, capsys):
    """Gives what a command says on the console; a training would read every image before it ends."""
    opt = stage('sr' if row.command == 'sr' else 'router')
    train = opt['datasets']['train']
    train |= {'dataset_enlarge_ratio': 10, 'num_worker_per_gpu': int(row.command == 'workers')}
    if row.command == 'prefetch':
        train['prefetch_mode'] = 'cpu'
    opt['train']['total_iter'] = 100
    opt['train']['scheduler'] = {'type': 'MultiStepLR', 'milestones': [50]}
    opt['logger'] |= {'use_tb_logger': False, 'save_checkpoint_freq': 1000}
    file = write_options(Path(), opt)
    verb = ['data', 'check'] if row.command == 'check' else ['train']
    assert (cli.lorair if row.command == 'check' else cli.basicsr)([*verb, '-opt', file]) == 2
    said = capsys.readouterr().err
    assert 'Traceback' not in said
    assert multiprocessing.active_children() == []  # at the end of the process each would keep it waiting
    return '\n'.join(line.removeprefix('error: ') for line in said.splitlines() if line.startswith('error: '))


@pytest.mark.parametrize('row', ROWS, ids=[row.name for row in ROWS])
def test_the_sentence(here, capsys, row):
    size = (LQ_DB / 'data.mdb').stat().st_size
    row.spoil()
    said = read(row) if row.command == 'read' else run(row, capsys)
    said = re.sub(r'mdb_get: MDB_[^;]*', 'mdb_get: MDB_...', said)
    assert said == row.sentence.replace('{here}', str(here)).replace('{size}', str(size))


def test_a_file_that_vanishes_during_the_training(here, capsys, monkeypatch):
    log = logging.getLogger('basicsr').info
    row = Row('', None, '', 'workers')

    def vanish(line, *args):
        if 'iter:       4' in line:
            shutil.rmtree('data/train_lq')
        log(line, *args)

    monkeypatch.setattr(logging.getLogger('basicsr'), 'info', vanish)
    said = run(row, capsys)
    assert re.fullmatch(r"cannot read 'data/train_lq/\d\.png': No such file or directory", said)


def test_a_data_worker_that_is_killed(here, capsys, monkeypatch):
    log = logging.getLogger('basicsr').info

    def kill(line, *args):
        log(line, *args)
        if 'iter:       4' in line:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)

    monkeypatch.setattr(logging.getLogger('basicsr'), 'info', kill)
    said = run(Row('', None, '', 'workers'), capsys)
    assert said == (
        'a data worker was killed, most often because the memory is used up; lower num_worker_per_gpu or '
        'batch_size_per_gpu'
    )


def test_names_are_all_different():
    assert len({row.name for row in ROWS}) == len(ROWS) >= 45


def test_sound_data_are_read(here):
    """Else a row could fail for another reason than its own."""
    for roots in ((LQ, GT), (LQ_DB, GT_DB)):
        row = Row('', None, '', source={'dataroot_lq': str(roots[0]), 'dataroot_gt': str(roots[1])})
        assert len(list(AllInOneDataset({'name': 'x', 'phase': 'val', 'sources': [source(row)]}))) in (3, 7)
