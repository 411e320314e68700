"""Each adjustment that BasicSR needs: it mends what is broken here, and leaves alone what is not."""

import re
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
from lorair_arch.compat import launch, mending
from lorair_arch.errors import OptionsError
from tests.miniature import REPO, run, stage, write_data, write_options


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
    mending.mend()
    compat.install()
    assert BaseModel.model_to_device is adjusted
    assert dist_util.init_dist is launch.init_dist


def in_a_new_process(code):
    done = subprocess.run([sys.executable, '-c', code], cwd=REPO, check=True, capture_output=True, text=True)
    return done.stdout


NAMES = (
    '; from basicsr.utils import registry as r; import basicsr.train; '
    'print("LoRAIR" in r.ARCH_REGISTRY, "AllInOneDataset" in r.DATASET_REGISTRY, "PSNRLoss" in r.LOSS_REGISTRY, '
    '"calculate_psnr_allweather" in r.METRIC_REGISTRY, "LoRAIRFinetuneModel" in r.MODEL_REGISTRY, '
    'basicsr.data.data_util.cv2.imread.__module__)'
)
ALL_THERE = 'True True True True True lorair_arch.compat.opencv_style\n'


@pytest.mark.parametrize(
    'first',
    [
        'import lorair_arch, basicsr',
        'import lorair_arch; from basicsr.data.data_util import paired_paths_from_folder',
        'import lorair_arch.models.lorair_model',
        'import lorair_arch.data.all_in_one_dataset',
        'from lorair_arch.models.stage import StageModel',
        'import lorair_arch; lorair_arch.register(); lorair_arch.register()',
    ],
)
def test_basicsr_is_joined_in_whatever_order(first):
    assert in_a_new_process(first + NAMES) == ALL_THERE


def test_basicsr_that_was_imported_before_is_joined_too():
    before = (  # as another plugin makes BasicSR importable
        'import sys, lorair_arch; from lorair_arch.compat import mending; import torchvision; '
        'hook = sys.meta_path.pop(0); mending.make_importable(); import basicsr; '
        'assert "LoRAIR" not in basicsr.archs.ARCH_REGISTRY; lorair_arch.compat.install()'
    )
    assert in_a_new_process(before + NAMES) == ALL_THERE


@pytest.mark.parametrize(
    'first', ['import lorair_arch.cli', 'import lorair_arch.restoring.folders', 'from lorair_arch import Restorer']
)
def test_what_restores_never_imports_basicsr_nor_what_few_images_need(first):
    heavy = ('basicsr', 'scipy.stats', 'skimage', 'cv2', 'tifffile', *(['torch'] if 'cli' in first else []))
    assert in_a_new_process(f'import sys; {first}; print([name for name in {heavy} if name in sys.modules])') == '[]\n'


def test_a_missing_basicsr_stays_missing():
    code = (
        'import sys, lorair_arch; sys.meta_path[1:] = [f for f in sys.meta_path[1:] if not hasattr(f, "find_spec")]\n'
        'try: import basicsr\n'
        'except ModuleNotFoundError as error: print(error)'
    )
    assert in_a_new_process(code) == "No module named 'basicsr'\n"


def test_distutils(monkeypatch):
    for name in ('distutils', 'distutils.version'):
        monkeypatch.setitem(sys.modules, name, None)  # as on Python 3.12 without setuptools
    mending.provide_distutils()
    from distutils.version import LooseVersion

    assert LooseVersion('0.28.0+cpu') >= LooseVersion('0.9.0')


def test_distutils_that_is_there_stays(monkeypatch):
    there = types.ModuleType('distutils.version')
    monkeypatch.setitem(sys.modules, 'distutils', types.ModuleType('distutils'))
    monkeypatch.setitem(sys.modules, 'distutils.version', there)
    mending.provide_distutils()
    assert sys.modules['distutils.version'] is there


def test_torchvision_without_its_operators(monkeypatch):
    calls = []

    def load():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError('operator torchvision::nms does not exist')

    defined = []
    monkeypatch.setattr(torch.library, 'Library', lambda *args: SimpleNamespace(define=defined.append))
    monkeypatch.setattr(sys, 'modules', dict(sys.modules))
    compat.load_with_operators(load)
    assert len(calls) == 2
    assert [schema.partition('(')[0] for schema in defined] == ['nms', 'qnms']


def test_another_failure_of_torchvision_is_not_hidden():
    def load():
        raise RuntimeError('no such disk')

    with pytest.raises(RuntimeError, match='no such disk'):
        compat.load_with_operators(load)


def test_functional_tensor(monkeypatch):
    name = 'torchvision.transforms.functional_tensor'
    monkeypatch.delitem(sys.modules, name, raising=False)
    mending.provide_functional_tensor()
    module = __import__(name, fromlist=['x'])
    grey = module.rgb_to_grayscale(torch.rand(1, 3, 4, 4), num_output_channels=1)
    assert grey.shape == (1, 1, 4, 4)
    mending.provide_functional_tensor()
    assert sys.modules[name] is module


def test_basicsr_s_own_training_runs_and_resumes(tmp_path):
    """As by `python -m basicsr.train`, which knows nothing of this package's loop."""
    write_data(tmp_path)
    opt = stage('sr')
    opt['path'] = {'resume_state': None}
    opt['logger']['use_tb_logger'] = opt['val']['save_img'] = False
    code = 'import os, lorair_arch; from basicsr.train import train_pipeline; train_pipeline(os.getcwd())'
    for total, flags in ((4, ()), (6, ('--auto_resume',))):
        opt['train']['total_iter'] = total
        done = run(tmp_path, '-opt', write_options(tmp_path, opt), *flags, python=('-c', code))
        assert done.returncode == 0, done.stderr
    assert re.search(r'Resuming training from epoch: \d, iter: 4\.', done.stderr)
    assert (tmp_path / 'experiments/sr/training_states/6.state').exists()


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
    assert {tensor.device.type for tensor in mending._without_cuda(method)(model)} == {'cpu'}
    assert VideoBaseModel.dist_validation.__wrapped__
    with pytest.raises((AssertionError, RuntimeError)):
        method(model)
