"""Every adjustment that BasicSR 1.4.2 needs on today's stack, and what this package adds to it; see `compat`.

Each does nothing where it is not needed.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import types
from importlib import import_module

# What this package adds to BasicSR, by the registry; file suffixes are BasicSR's habit.
_ADDED = {
    'ARCH': ('archs.lorair_arch:LoRAIR', 'archs.degradation_router_arch:DegradationRouter'),
    'DATASET': ('data.all_in_one_dataset:AllInOneDataset',),
    'LOSS': ('losses.psnr_loss:PSNRLoss',),
    'METRIC': (
        'metrics.allweather_metric:calculate_psnr_allweather',
        'metrics.allweather_metric:calculate_ssim_allweather',
    ),
    'MODEL': (
        'models.degradation_router_model:DegradationRouterModel',
        'models.lorair_model:LoRAIRPretrainModel',
        'models.lorair_model:LoRAIRFinetuneModel',
    ),
}


def make_importable() -> None:
    """Provides what `import basicsr` needs and today's packages lack."""
    provide_distutils()
    provide_functional_tensor()


@functools.cache
def mend() -> None:
    """Makes BasicSR able to train, resume and run distributed with or without a GPU."""
    distributed_without_gpu()
    resume_without_gpu()
    gpu_without_cuda()
    ddp_without_gpu()
    tensors_without_gpu()
    files_written_whole()
    texts_in_utf8()
    lmdb_opened_once()
    images_of_any_name()
    prefetch_errors_passed_on()


def register() -> None:
    """Puts the networks, data sets, losses, metrics and model classes of this package into BasicSR's registries."""
    from basicsr.utils import registry

    for kind, places in _ADDED.items():
        for place in places:
            module, _, name = place.partition(':')
            into = getattr(registry, f'{kind}_REGISTRY')
            if name not in into:
                into.register(getattr(import_module(f'lorair_arch.{module}'), name))


def provide_distutils() -> None:
    """`basicsr.archs.arch_util` compares versions with distutils, which Python 3.12 removed.

    setuptools brings it back where it is installed; elsewhere the one class that is used is provided.
    """
    try:
        import distutils.version  # noqa: F401
    except ImportError:
        from packaging.version import Version

        package, module = types.ModuleType('distutils'), types.ModuleType('distutils.version')
        package.version, package.__path__ = module, []
        module.LooseVersion = Version
        sys.modules.update({'distutils': package, 'distutils.version': module})


def provide_functional_tensor() -> None:
    """`basicsr.data.degradations` imports `rgb_to_grayscale` from a module that torchvision 0.17 removed."""
    name = 'torchvision.transforms.functional_tensor'
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    from torchvision.transforms.functional import rgb_to_grayscale

    module = types.ModuleType(name)
    module.rgb_to_grayscale = rgb_to_grayscale
    sys.modules[name] = module


def distributed_without_gpu() -> None:
    """`basicsr.utils.dist_util.init_dist` needs NCCL and divides by the number of GPUs."""
    from basicsr.utils import dist_util, options

    from lorair_arch.training.launch import init_dist

    dist_util.init_dist = options.init_dist = init_dist  # `options` has imported it by name


def resume_without_gpu() -> None:
    """`basicsr.train.load_resume_state` asks for the current GPU and maps every tensor to it."""
    import basicsr.train

    from lorair_arch.training.resume import load_resume_state

    basicsr.train.load_resume_state = load_resume_state


def gpu_without_cuda() -> None:
    """`BaseModel` takes every GPU for one of CUDA's."""
    from basicsr.models.base_model import BaseModel

    init = BaseModel.__init__

    @functools.wraps(init)
    def with_device(self, opt):
        import torch

        from lorair_arch.devices import device_name

        init(self, opt)
        self.device = torch.device(device_name(opt['num_gpu']))

    BaseModel.__init__ = with_device


def ddp_without_gpu() -> None:
    """`BaseModel.model_to_device` builds DistributedDataParallel with the ids of CUDA devices.

    It does so too where nothing is to be trained, as in tests, which DistributedDataParallel refuses.
    """
    from basicsr.models.base_model import BaseModel
    from torch.nn.parallel import DistributedDataParallel

    original = BaseModel.model_to_device

    @functools.wraps(original)
    def model_to_device(self, net):
        if not self.opt['dist']:
            return original(self, net)
        if not any(param.requires_grad for param in net.parameters()):
            return net.to(self.device)
        if self.device.type != 'cpu':
            return original(self, net)
        unused = self.opt.get('find_unused_parameters', False)
        return DistributedDataParallel(net.to(self.device), find_unused_parameters=unused)

    BaseModel.model_to_device = model_to_device


def tensors_without_gpu() -> None:
    """Some model classes of BasicSR write `.cuda()` and `device='cuda'` instead of `self.device`."""
    import torch
    from basicsr.models import realesrgan_model, realesrnet_model, video_base_model, video_recurrent_model

    if torch.cuda.is_available():
        return
    for owner, names in (
        (realesrgan_model.RealESRGANModel, ('__init__', '_dequeue_and_enqueue')),
        (realesrnet_model.RealESRNetModel, ('__init__', '_dequeue_and_enqueue')),
        (video_base_model.VideoBaseModel, ('dist_validation',)),
        (video_recurrent_model.VideoRecurrentModel, ('dist_validation',)),
    ):
        for name in names:
            setattr(owner, name, _without_cuda(getattr(owner, name)))


def files_written_whole() -> None:
    """`BaseModel` writes checkpoints in place, goes on without a word if that fails, and forgets the best values.

    On resuming it takes schedules and settings of optimisers from the state, whatever the options say.
    """
    from basicsr.models.base_model import BaseModel
    from basicsr.utils.dist_util import master_only

    from lorair_arch.training import checkpoints

    BaseModel.save_network = master_only(checkpoints.save_network)
    BaseModel.save_training_state = master_only(checkpoints.save_training_state)

    def resume_training(self, resume_state):
        from lorair_arch.training import continuing

        continuing.resume_training(self, resume_state)

    BaseModel.resume_training = resume_training


def texts_in_utf8() -> None:
    """BasicSR reads and writes options, lists of images and other texts in the encoding of the locale."""
    import basicsr.train
    from basicsr.utils import lmdb_util, plot_util  # noqa: F401
    from basicsr.utils.dist_util import master_only

    from lorair_arch.files import open_text
    from lorair_arch.options.yaml_file import copy_opt_file

    for name, module in list(sys.modules.items()):
        if name.startswith('basicsr.'):
            module.open = open_text
    basicsr.train.copy_opt_file = master_only(copy_opt_file)


def lmdb_opened_once() -> None:
    """lmdb 3 refuses to open an LMDB a second time in a process, as two data sets on the same files do."""
    import lmdb
    from basicsr.utils.file_client import LmdbBackend

    if int(lmdb.__version__.split('.')[0]) < 3:
        return

    def init(self, db_paths: str | list[str], client_keys: str | list[str] = 'default', **_) -> None:
        from lorair_arch.data.stores import lmdb_environment

        self.db_paths = [str(path) for path in ([db_paths] if isinstance(db_paths, str) else db_paths)]
        keys = [client_keys] if isinstance(client_keys, str) else client_keys
        self._client = {key: lmdb_environment(os.path.realpath(path)) for key, path in zip(keys, self.db_paths)}

    LmdbBackend.__init__ = init


def images_of_any_name() -> None:
    """OpenCV's `imread` and `imwrite` end the process at names that are not UTF-8; its TIFF reader is wrong in places.

    Keys of LMDBs are ASCII for BasicSR, whose own names need not be.
    """
    import cv2
    from basicsr.data import data_util
    from basicsr.utils import flow_util, img_util, lmdb_util
    from basicsr.utils.file_client import LmdbBackend

    from lorair_arch.compat import opencv_style

    for name in ('imwrite', 'imfrombytes'):
        original, ours = getattr(img_util, name), getattr(opencv_style, name)
        for module in list(sys.modules.values()):  # most have imported it by name
            if vars(module).get(name) is original:
                setattr(module, name, ours)
    safe = types.ModuleType('cv2', 'OpenCV with the reader and the writer of this package.')
    vars(safe).update(vars(cv2))
    safe.imread = opencv_style.imread
    safe.imwrite = lambda path, image, params=None: opencv_style.imwrite(image, path, params, auto_mkdir=False) is None
    for module in (data_util, flow_util, lmdb_util):
        module.cv2 = safe

    def get(self, filepath: str, client_key: str) -> bytes | None:
        with self._client[client_key].begin(write=False) as transaction:
            return transaction.get(str(filepath).encode('utf-8', 'surrogateescape'))

    LmdbBackend.get = get


def prefetch_errors_passed_on() -> None:
    """An error while a batch is read ends the thread of `prefetch_mode: cpu`, and the training waits for ever.

    Where there are workers, which read ahead by themselves, the thread is left out: it would keep them from ending.
    """
    from basicsr.data.prefetch_dataloader import PrefetchDataLoader, PrefetchGenerator
    from torch.utils.data import DataLoader

    def batches(self):
        loader = DataLoader.__iter__(self)
        return loader if self.num_workers else PrefetchGenerator(loader, self.num_prefetch_queue)

    def run(self) -> None:
        try:
            for item in self.generator:
                self.queue.put(item)
            self.queue.put(None)
        except Exception as error:
            self.queue.put(error)

    def following(self):
        item = self.queue.get()
        if isinstance(item, Exception):
            raise item
        if item is None:
            raise StopIteration
        return item

    PrefetchDataLoader.__iter__ = batches
    PrefetchGenerator.run, PrefetchGenerator.__next__ = run, following


def _without_cuda(method):
    """Wraps a method of a model so that within it 'cuda' means the model's device."""
    import torch
    from torch.overrides import TorchFunctionMode

    class WithoutCuda(TorchFunctionMode):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.cuda:
                return args[0].to(self.model.device)
            kwargs = dict(kwargs or {})
            if kwargs.get('device') == 'cuda':
                kwargs['device'] = self.model.device
            return function(*args, **kwargs)

    @functools.wraps(method)
    def wrapper(model, *args, **kwargs):
        with WithoutCuda(model):
            return method(model, *args, **kwargs)

    return wrapper
