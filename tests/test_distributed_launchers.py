"""The scripts that start many processes: on several nodes, after a failure, and with SLURM."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest
import torch

from lorair_arch.training.session import started_again
from tests.miniature import REPO, stage, write_data, write_options
from tests.processes import end, start

# Stands for srun: starts the tasks here.
SRUN = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys
command = sys.argv[sys.argv.index(sys.executable):]
options = sys.argv[1 : -len(command)]
pathlib.Path('srun.json').write_text(json.dumps(options))
tasks = options[options.index('--ntasks') + 1]
slurm = {{'SLURM_NTASKS': tasks, 'SLURM_NODELIST': 'node[1-2]'}}
started = [
    subprocess.Popen(command, env=os.environ | slurm | {{'SLURM_PROCID': str(i), 'SLURM_LOCALID': str(i)}})
    for i in range(int(tasks))
]
sys.exit(max(process.wait() for process in started))
"""
SCONTROL = '#!/bin/sh\necho 127.0.0.1\necho node2\n'
# A plugin that kills the second process in the middle of the training, once.
KILLER = """
import os, signal
from lorair_arch.models.degradation_router_model import DegradationRouterModel

take_step = DegradationRouterModel.optimize_parameters

def optimize_parameters(self, current_iter):
    if current_iter == 8 and self.opt['rank'] == 1 and not os.path.exists('killed'):
        open('killed', 'w').close()
        os.kill(os.getpid(), signal.SIGKILL)
    take_step(self, current_iter)

def register():
    DegradationRouterModel.optimize_parameters = optimize_parameters
"""


def training(folder):
    write_data(folder)
    opt = stage('router')
    opt['train']['total_iter'] = 11
    opt['train']['scheduler']['periods'] = [11]
    opt['logger']['save_checkpoint_freq'] = 5
    return write_options(folder, opt)


def results(folder):
    experiment = Path(folder, 'experiments/router')
    files = (*sorted(experiment.glob('models/*_1[01].pth')), experiment / 'training_states/10.state')
    return [torch.load(file, weights_only=True) for file in (*files, experiment / 'models/net_router_latest.pth')]


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """A folder in which two processes, started by SLURM as it were, have trained."""
    folder = tmp_path_factory.mktemp('slurm')
    for name, script in (('srun', SRUN), ('scontrol', SCONTROL)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    file = training(folder)
    env = {'PATH': f'{folder}:{os.environ["PATH"]}', 'SRUN_ARGS': '--time=1:00 --exclusive'}
    done = end(start(folder, 'slurm_train.sh', '2', file, '--force_yml', 'val:pbar=false', **env))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('End of training') == 1
    return folder


def test_slurm_is_asked_for_what_the_training_needs(undisturbed):
    assert json.loads((undisturbed / 'srun.json').read_text()) == [
        '--job-name', 'router', '--ntasks', '2', '--ntasks-per-node', '2', '--gres', 'gpu:2', '--cpus-per-task', '5',
        '--kill-on-bad-exit=1', '--time=1:00', '--exclusive',
    ]  # fmt: skip


def test_a_killed_process_changes_nothing(undisturbed, tmp_path):
    """Two nodes with a process each; the second's is killed between two checkpoints, and the nodes meet again."""
    (tmp_path / 'killer.py').write_text(KILLER)
    (tmp_path / 'killer-1.dist-info').mkdir()
    (tmp_path / 'killer-1.dist-info/METADATA').write_text('Name: killer\nVersion: 1\n')
    (tmp_path / 'killer-1.dist-info/entry_points.txt').write_text('[basicsr.plugins]\nkiller = killer:register\n')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    env = {
        'PYTHONPATH': f'{REPO}:{tmp_path}',
        'NNODES': '2',
        'RDZV_ENDPOINT': f'127.0.0.1:{port}',
        'LOCAL_ADDR': '127.0.0.1',
        'MAX_RESTARTS': '1',
    }
    file = training(tmp_path)
    nodes = [start(tmp_path, 'dist_train.sh', '1', file, **env) for _ in range(2)]
    nodes = [end(node) for node in nodes]
    said = ''.join(node.stderr for node in nodes)
    assert [node.returncode for node in nodes] == [0, 0], said
    assert (tmp_path / 'killed').exists()
    assert said.count('the processes were started again: continuing from the newest state, if there is one') == 1
    assert said.count('Resuming training from epoch: 1, iter: 5.') == 1
    assert said.count('End of training') == 1
    assert not list(tmp_path.glob('experiments/*archived*'))
    for mine, theirs in zip(results(tmp_path), results(undisturbed), strict=True):
        assert same(mine, theirs)


def same(a, b):
    """Tells whether two nests of dicts, lists and tensors are equal to the last bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh'])
def test_scripts_say_how_they_are_used(tmp_path, script):
    done = end(start(tmp_path, script, '8'))
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr.startswith(f'usage: bash {REPO}/scripts/{script} GPUS FILE [')


def test_several_nodes_need_a_place_to_meet(tmp_path):
    done = end(start(tmp_path, 'dist_train.sh', '8', 'file.yml', NNODES='2'))
    assert done.returncode == 1
    assert 'RDZV_ENDPOINT: error: give HOST:PORT of one of the nodes, the same on all' in done.stderr


@pytest.mark.parametrize(
    ('variable', 'value', 'again'),
    [
        ('TORCHELASTIC_RESTART_COUNT', '0', False),
        ('TORCHELASTIC_RESTART_COUNT', '2', True),
        ('SLURM_RESTART_COUNT', '1', True),
    ],
)
def test_processes_know_that_they_were_started_again(monkeypatch, tmp_path, variable, value, again):
    monkeypatch.setenv(variable, value)
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        assert started_again() is again
    finally:
        torch.distributed.destroy_process_group()
