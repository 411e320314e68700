"""Each adjustment that BasicSR needs: it mends what is broken here, and leaves alone what is not."""

import subprocess
import sys
import types
from types import SimpleNamespace

import pytest
import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.video_base_model import VideoBaseModel
from torch.nn.parallel import DistributedDataParallel

from lorair_arch import compat
from lorair_arch.errors import OptionsError
from lorair_arch.running import launch
from tests.miniature import REPO


@pytest.fixture
def one_process(monkeypatch):
    """The environment that torchrun gives to the only process of a run; its process group is gone afterwards."""
    port = str(torch.randint(20000, 40000, ()).item())
    for name, value in {'RANK': '0', 'WORLD_SIZE': '1', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port}.items():
        monkeypatch.setenv(name, value)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_basicsr_imports_and_a_second_call_changes_nothing():
    from basicsr.utils import dist_util

    adjusted = BaseModel.model_to_device
    compat.apply()
    compat.apply()
    assert BaseModel.model_to_device is adjusted
    assert dist_util.init_dist is launch.init_dist


def test_basicsr_that_was_imported_before_is_adjusted_too():
    code = (
        'import sys; sys.argv[0] = "basicsr"\n'
        'from lorair_arch import compat\n'
        'compat.provide_distutils(); compat.provide_torchvision_ops(); compat.provide_functional_tensor()\n'
        'import basicsr.train\n'
        'compat.apply()\n'
        'assert basicsr.train.load_resume_state.__module__ == "lorair_arch.running.resume"\n'
    )
    subprocess.run([sys.executable, '-c', code], cwd=REPO, check=True)


def test_only_the_standard_library_until_it_is_needed():
    code = (
        'import sys; sys.argv[0] = "basicsr"; import lorair_arch.cli, lorair_arch.compat; print("torch" in sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=REPO, check=True, capture_output=True, text=True)
    assert done.stdout == 'False\n'


def test_distutils(monkeypatch):
    for name in ('distutils', 'distutils.version'):
        monkeypatch.setitem(sys.modules, name, None)  # as on Python 3.12 without setuptools
    compat.provide_distutils()
    from distutils.version import LooseVersion

    assert LooseVersion('0.28.0+cpu') >= LooseVersion('0.9.0')


def test_distutils_that_is_there_stays(monkeypatch):
    there = types.ModuleType('distutils.version')
    monkeypatch.setitem(sys.modules, 'distutils', types.ModuleType('distutils'))
    monkeypatch.setitem(sys.modules, 'distutils.version', there)
    compat.provide_distutils()
    assert sys.modules['distutils.version'] is there


def test_torchvision_operators(monkeypatch):
    import torchvision

    assert torch.ops.torchvision.nms is not None
    compat.provide_torchvision_ops()
    assert sys.modules['torchvision'] is torchvision


def test_another_failure_of_torchvision_is_not_hidden(monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == 'torchvision':
                raise RuntimeError('no such disk')

    monkeypatch.delitem(sys.modules, 'torchvision')
    monkeypatch.setattr(sys, 'meta_path', [Broken(), *sys.meta_path])
    with pytest.raises(RuntimeError, match='no such disk'):
        compat.provide_torchvision_ops()


def test_functional_tensor(monkeypatch):
    name = 'torchvision.transforms.functional_tensor'
    monkeypatch.delitem(sys.modules, name, raising=False)
    compat.provide_functional_tensor()
    module = __import__(name, fromlist=['x'])
    grey = module.rgb_to_grayscale(torch.rand(1, 3, 4, 4), num_output_channels=1)
    assert grey.shape == (1, 1, 4, 4)
    compat.provide_functional_tensor()
    assert sys.modules[name] is module


def test_processes_start_without_a_gpu(one_process, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    launch.init_dist('pytorch')
    assert torch.distributed.get_backend() == 'gloo'


def test_each_process_gets_the_gpu_of_its_local_rank(one_process, monkeypatch):
    given = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    monkeypatch.setattr(torch.cuda, 'set_device', given.append)
    monkeypatch.setattr(torch.multiprocessing, 'get_start_method', lambda allow_none: 'fork')
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda backend: given.append(backend))
    monkeypatch.setenv('RANK', '5')
    monkeypatch.setenv('LOCAL_RANK', '3')
    launch.init_dist('pytorch')
    assert given == [3, 'nccl']
    monkeypatch.setenv('LOCAL_RANK', '4')
    with pytest.raises(OptionsError, match='start at most 4 processes here'):
        launch.init_dist('pytorch')


def test_slurm(one_process, monkeypatch, tmp_path):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\necho 127.0.0.1\necho node2\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR'):
        monkeypatch.delenv(name)
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    slurm = {'PROCID': '0', 'NTASKS': '1', 'NODELIST': 'node[1-2]', 'LOCALID': '0'}
    for name, value in slurm.items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    launch.init_dist('slurm')
    assert torch.distributed.get_world_size() == 1


@pytest.mark.parametrize(('launcher', 'expected'), [('pytorch', 'torchrun'), ('slurm', 'srun'), ('mpi', "'mpi'")])
def test_a_launcher_that_was_not_used_is_named(monkeypatch, launcher, expected):
    for name in ('RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OptionsError, match=expected):
        launch.init_dist(launcher)


def test_distributed_networks_on_the_cpu(one_process):
    launch.init_dist('pytorch', 'gloo')
    net = BaseModel({'num_gpu': 0, 'is_train': True, 'dist': True}).model_to_device(torch.nn.Linear(2, 2))
    assert isinstance(net, DistributedDataParallel)
    net(torch.ones(1, 2)).sum().backward()
    assert net.module.weight.grad is not None


@pytest.mark.parametrize('gpus', [0, 1])
def test_distributed_networks_without_anything_to_train(monkeypatch, gpus):
    monkeypatch.setattr(torch.nn.Module, 'to', lambda net, device: net)
    net = torch.nn.Linear(2, 2).requires_grad_(False)
    assert BaseModel({'num_gpu': gpus, 'is_train': False, 'dist': True}).model_to_device(net) is net


def test_networks_of_a_single_process_are_left_alone():
    net = torch.nn.Linear(2, 2)
    assert BaseModel({'num_gpu': 0, 'is_train': True, 'dist': False}).model_to_device(net) is net


@pytest.mark.skipif(torch.cuda.is_available(), reason='only adjusted where there is no GPU')
def test_cuda_means_the_cpu_in_methods_that_insist_on_it():
    def method(model):
        return torch.zeros(2, device='cuda'), torch.ones(1).cuda(), torch.nn.Linear(1, 1).cuda().weight

    model = SimpleNamespace(device=torch.device('cpu'))
    assert {tensor.device.type for tensor in compat._without_cuda(method)(model)} == {'cpu'}
    assert VideoBaseModel.dist_validation.__wrapped__
    with pytest.raises((AssertionError, RuntimeError)):
        method(model)
