"""--dry-run: everything is tried, one line says so, and nothing is left of it."""

import os
import re
import tempfile
from pathlib import Path

import pytest

from lorair_arch.cli import basicsr
from lorair_arch.losses.psnr_loss import PSNRLoss
from lorair_arch.training import train as training
from tests.miniature import as_test, run, stage, write_data, write_options

STAGES = ('router', 'pretrain', 'finetune')


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data, where the test runs, and one for what is temporary."""
    folder = tmp_path / 'here'
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
    write_data(folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_temporary_is_left(here):
    yield
    assert not any(name.startswith('lorair') for name in os.listdir(tempfile.tempdir))


def content(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob('*')}


def dry_run(folder, opts, command='train', *flags):
    """Runs the command on options; gives its exit code. Nothing in the folder may change."""
    files = [write_options(folder, opt) for opt in opts]
    before = content(folder)
    code = basicsr([command, '-opt', *files, '--dry-run', *flags])
    assert content(folder) == before
    return code


def test_stages_in_a_row_take_the_weights_of_each_other(here, capfd):
    assert dry_run(here, [stage(name) for name in (*STAGES, 'sr')]) == 0
    out, err = capfd.readouterr()
    assert out == ''
    sizes = {'sr': '8 x 8'}
    for line, name in zip(err.splitlines(), (*STAGES, 'sr'), strict=True):
        start = rf'{name}\.yml: sound; one step of 2 images of {sizes.get(name, "16 x 16")} pixels took '
        assert re.fullmatch(rf'{start}[\d.]+ s, peak memory [\d.]+ GiB', line)


def test_weights_that_an_earlier_stage_will_not_write(here, capfd):
    opt = stage('pretrain')
    opt['path']['pretrain_network_router'] = 'experiments/router/models/net_g_latest.pth'
    assert dry_run(here, [stage('router'), opt]) == 2
    assert capfd.readouterr().err.splitlines()[1] == (
        "error: pretrain.yml: path.pretrain_network_router: found 'experiments/router/models/net_g_latest.pth', which "
        'the training router does not write'
    )


def test_weights_that_no_stage_writes(here, capfd):
    assert dry_run(here, [stage('router') | {'name': 'other'}, stage('pretrain')]) == 2
    assert capfd.readouterr().err == (
        "error: pretrain.yml: path.pretrain_network_router: found 'experiments/router/models/net_router_latest.pth', "
        f'which does not exist (looked for from {here})\n'
    )


def test_a_test_sees_one_image_of_each_set(here, capfd):
    training.run(write_options(here, stage('router')), force_yml=['train:total_iter=2'])
    opt = as_test(stage('router'))
    opt['datasets']['test_1'] = opt['datasets']['test'] | {'name': 'again'}
    Path('data/val_gt/2.png').write_bytes(b'')  # not the first image
    capfd.readouterr()
    assert dry_run(here, [opt], 'test') == 0
    start = r'router\.yml: sound; an image of 2 data sets took '
    assert re.fullmatch(rf'{start}[\d.]+ s, peak memory [\d.]+ GiB\n', capfd.readouterr().err)


@pytest.mark.parametrize(
    ('force', 'message'),
    [
        ('datasets:train:gt_size=400', r"error: 'data/train_gt/\d.png' \(28 x 24 pixels\) is smaller than gt_size"),
        (
            'datasets:val:dataroot_gt=data/train_gt',
            'error: data set tiny_val: lq and gt datasets have different number',
        ),
        ('path:resume_state=sr.yml', 'error: sr.yml seems to be a text file, weights saved by torch.save'),
        ('train:total_iter=0', 'error: --force_yml train:total_iter=0: found 0, expected a whole number, at least 1'),
    ],
)
def test_mistakes_end_it(here, capfd, force, message):
    opt = stage('sr') if 'gt_size' not in force else stage('router')
    assert dry_run(here, [opt], 'train', '--force_yml', force) == 2
    error = capfd.readouterr().err
    assert re.match(message, error) and error.count('\n') == 1


def test_a_loss_that_is_not_finite_ends_it(here, capfd, monkeypatch):
    monkeypatch.setattr(PSNRLoss, 'forward', lambda self, pred, target: pred.sum() * float('nan'))
    assert dry_run(here, [stage('router'), stage('pretrain')]) == 2
    assert 'error: the loss or its gradient was not finite in 1 steps in a row' in capfd.readouterr().err


def test_an_old_experiment_is_neither_moved_nor_continued(here, capfd):
    opt = stage('sr')
    training.run(write_options(here, opt), force_yml=['train:total_iter=2'])
    capfd.readouterr()
    assert dry_run(here, [opt], 'train', '--auto_resume') == 0
    assert capfd.readouterr().err.count('\n') == 1


def test_several_processes(here):
    python = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', '-m', 'lorair_arch')
    command = ('train', '-opt', write_options(here, stage('sr')), '--launcher', 'pytorch', '--dry-run')
    before = content(here)
    done = run(here, *command, python=python, TMPDIR=tempfile.tempdir)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('sr.yml: sound; one step of 2 images of 8 x 8 pixels in each of 2 processes took ') == 1
    assert content(here) == before
