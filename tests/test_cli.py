"""The commands as a user meets them: real processes, what they print, how they end."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint

import pytest

from lorair_arch import cli
from lorair_arch.cli import plugins
from lorair_arch.errors import LoRAIRError
from tests.miniature import REPO, run, stage, write_data, write_options
from tests.tiny import save_weights

LORAIR = ('-c', 'import sys; sys.argv[0] = "lorair"; from lorair_arch.cli import lorair; sys.exit(lorair())')


@pytest.fixture
def here(tmp_path):
    write_data(tmp_path)
    return tmp_path


@pytest.mark.parametrize('command', [(), ('train',), ('test',)])
def test_help_of_basicsr_is_quick_and_shows_an_example(tmp_path, command):
    start = time.perf_counter()
    done = run(tmp_path, *command, '--help')
    assert time.perf_counter() - start < 1
    assert done.returncode == 0
    assert re.search(r'examples?:\n  basicsr (train|test) -opt options/\S+\.yml', done.stdout)


@pytest.mark.parametrize('command', [(), ('restore',), ('weights',), ('convert',), ('data', 'cache-priors')])
def test_help_of_lorair_is_quick_and_shows_an_example(tmp_path, command):
    start = time.perf_counter()
    done = run(tmp_path, *command, '--help', python=LORAIR)
    assert time.perf_counter() - start < 1
    assert done.returncode == 0
    examples = r'restore \S+ -o \S+\n|weights\n|convert \S+ \S+\.safetensors|data cache-priors -opt \S+\.yml'
    assert re.search(rf'examples?:\n  lorair ({examples})', done.stdout)


def test_a_reader_that_has_seen_enough(tmp_path):
    """As `lorair weights | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, *LORAIR, 'weights']
    env = os.environ | {'PYTHONPATH': str(REPO)}
    with open(writer, 'wb') as closed:
        done = subprocess.run(command, env=env, cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, '')


def test_names_that_are_no_text_are_printed(tmp_path):
    name = os.fsdecode(b'\xff.pth')
    (save_weights(tmp_path) / 'router.pth').rename(tmp_path / name)
    done = run(tmp_path, 'inspect', name, python=LORAIR, PYTHONIOENCODING='utf-8:strict')
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.startswith(r'\udcff.pth: a degradation router for ')


def test_all_flags_of_basicsr_are_known(monkeypatch):
    seen = []
    monkeypatch.setattr(cli, '_run_files', lambda command, args: seen.append((command, args)))
    flags = (
        '-opt a.yml b.yml --launcher slurm --auto_resume --debug --local_rank 1 --local-rank=2 --force_yml a:b=1 c=2'
    )
    assert cli.basicsr(['train', *flags.split()]) == 0
    command, args = seen[0]
    assert (command, args.opt, args.launcher, args.auto_resume, args.debug) == (
        'train', ['a.yml', 'b.yml'], 'slurm', True, True,
    )  # fmt: skip
    assert args.force_yml == ['a:b=1', 'c=2']


def test_several_files_run_one_after_another(here):
    """The second needs the weights that the first writes."""
    files = [write_options(here, stage(name)) for name in ('router', 'pretrain')]
    done = run(here, 'train', '-opt', *files, '--force_yml', 'train:total_iter=2')
    assert done.returncode == 0, done.stderr
    headings = ['[1/2] basicsr train -opt router.yml', '[2/2] basicsr train -opt pretrain.yml']
    assert re.findall(r'^\[\d/2\] .*', done.stderr, re.MULTILINE) == headings
    assert 'Traceback' not in done.stderr
    assert (here / 'experiments/pretrain/models/net_g_latest.pth').exists()


def test_the_first_failure_stops_the_rest(here):
    (here / 'data/train_half/0.png').write_bytes(b'nothing')
    files = [write_options(here, stage('sr') | {'name': name}) for name in ('one', 'two', 'three')]
    done = run(here, 'train', '-opt', *files)
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    *_, reason, end = done.stderr.splitlines()
    assert reason.startswith('error: data set tiny_train: data/train_half/0.png or data/train_gt/0.png cannot be used')
    assert end == 'error: one.yml failed (exit code 2); not run: two.yml, three.yml'
    assert [path.name for path in (here / 'experiments').iterdir()] == ['one']


def test_mistakes_of_every_file_are_found_before_the_first_runs(here):
    bad = stage('sr') | {'name': 'bad', 'model_type': 'SRModell'}
    worse = stage('sr') | {'name': 'worse', 'trian': 1}
    worse['datasets']['train']['dataroot_gt'] = 'nowhere'
    files = [write_options(here, opt) for opt in (stage('sr'), bad, worse)]
    done = run(here, 'train', '-opt', *files)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first == "error: bad.yml: model_type: unknown model class 'SRModell'; did you mean 'SRModel'?"
    assert second.startswith("error: worse.yml: datasets.train.dataroot_gt: found 'nowhere', which does not exist")
    assert not (here / 'experiments').exists()


def test_a_missing_file_is_named_at_once(tmp_path):
    start = time.perf_counter()
    done = run(tmp_path, 'train', '-opt', 'none.yml')
    assert time.perf_counter() - start < 1
    expected = 'error: none.yml: cannot be read (No such file or directory); check the path\n'
    assert (done.returncode, done.stdout, done.stderr) == (2, '', expected)


def test_several_files_need_one_launch_each(tmp_path):
    done = run(tmp_path, 'train', '-opt', 'a', 'b', '--launcher', 'slurm')
    assert (done.returncode, done.stderr) == (2, 'error: -opt: found 2 files, expected one with --launcher slurm\n')


def test_a_launcher_without_its_environment(here):
    done = run(here, 'train', '-opt', write_options(here, stage('sr')), '--launcher', 'pytorch')
    assert done.returncode == 2
    assert done.stderr.startswith('error: --launcher pytorch: the variable RANK is not set; start the processes with')


def test_flags_that_are_unknown_or_missing(tmp_path):
    for command in (('train',), ('train', '-opt', 'a.yml', '--auto-resum'), ('tarin',), ()):
        done = run(tmp_path, *command)
        assert done.returncode == 2
        assert 'error: ' in done.stderr


def plugin(monkeypatch, *entries):
    points = [EntryPoint(name, value, 'basicsr.plugins') for name, value in entries]
    monkeypatch.setattr(plugins, 'entry_points', lambda group: points)


def test_plugins_are_loaded_and_broken_ones_named(monkeypatch, tmp_path, caplog):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'good_plugin.py').write_text('calls = []\ndef register():\n    calls.append(1)\n')
    (tmp_path / 'bad_plugin.py').write_text('import no_such_module\n')
    plugin(monkeypatch, ('good', 'good_plugin:register'), ('bad', 'bad_plugin'), ('only imported', 'good_plugin'))
    monkeypatch.setattr('lorair_arch.cli.plugins.logger.propagate', True)
    monkeypatch.setattr('lorair_arch.cli.plugins.logger.handlers', [])
    cli.load_plugins()
    import good_plugin

    assert good_plugin.calls == [1]
    assert [record.getMessage() for record in caplog.records] == [
        "the BasicSR plugin 'bad' (bad_plugin) cannot be loaded: "
        """ModuleNotFoundError("No module named 'no_such_module'")"""
    ]


def test_restore_calls_the_restorer(monkeypatch):
    called = []
    monkeypatch.setattr(
        'lorair_arch.restoring.folders.restore_paths', lambda *args, **more: called.append((*args, more))
    )
    command = ['restore', 'in.png', 'more', '-o', 'out', '--weights', 'a.pth', 'b.pth', '--tile', '64', '--device=cpu']
    assert cli.lorair([*command, '--degradation', 'rain=0.7, noise=.3', '--shard', '2/3', '--format', 'jpg']) == 0
    [(inputs, output, weights, more)] = called
    assert (inputs, output, weights) == (['in.png', 'more'], 'out', ['a.pth', 'b.pth'])
    assert more == {
        'degradation': {'rain': 0.7, 'noise': 0.3},
        'strength': 1.0,
        'tile': 64,
        'format': 'jpg',
        'quality': 95,
        'suffix': '',
        'shard': (2, 3),
        'compare': False,
        'overwrite': False,
        'device': 'cpu',
        'precision': None,
        'report': None,
        'log': None,
        'ray': None,
    }


def test_every_line_of_an_error_is_marked(monkeypatch, capsys):
    def fail(*args, **more):
        raise LoRAIRError('a: wrong\nb: wrong')

    monkeypatch.setattr('lorair_arch.restoring.folders.restore_paths', fail)
    assert cli.lorair(['restore', 'in.png', '-o', 'out.png', '--weights', 'a.pth']) == 2
    assert capsys.readouterr().err == 'error: a: wrong\nerror: b: wrong\n'


def test_the_end_of_the_parent_is_passed_on(here):
    files = [write_options(here, stage('sr') | {'name': name}) for name in ('one', 'two')]
    command = [sys.executable, '-m', 'lorair_arch', 'train', '-opt', *files, '--force_yml', 'train:total_iter=100000']
    env = os.environ | {'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1'}
    with subprocess.Popen(command, cwd=here, env=env, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if 'l_pix' in line:
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert 'SIGTERM after iteration ' in rest
    assert rest.endswith('one.yml was interrupted; not run: two.yml\n')
    assert not (here / 'experiments/two').exists()
