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

from lorair_arch.metrics import OWN

# What this package adds to BasicSR, by the registry; file suffixes are BasicSR's habit.
_ADDED = {
    'ARCH': ('archs.lorair_arch:LoRAIR', 'archs.degradation_router_arch:DegradationRouter'),
    'DATASET': ('data.all_in_one_dataset:AllInOneDataset',),
    'LOSS': ('losses.psnr_loss:PSNRLoss',),
    'METRIC': tuple(f'metrics.{module}:{name}' for name, module in OWN.items()),
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
    from lorair_arch.compat import base_model

    base_model.mend()
    distributed_without_gpu()
    resume_without_gpu()
    tensors_without_gpu()
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
            # BasicSR's registries raise for a name that is there; `register()` may be called again.
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
        # A path, even an empty one, is what makes a module a package.
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

    from lorair_arch.compat.launch import init_dist

    dist_util.init_dist = options.init_dist = init_dist  # `options` has imported it by name


def resume_without_gpu() -> None:
    """`basicsr.train.load_resume_state`, which `python -m basicsr.train` runs, maps every tensor to the current GPU."""
    import basicsr.train

    # Imported when it runs: training is above BasicSR, which is being imported now.
    def load_resume_state(opt):
        from lorair_arch.training import resume

        return resume.load_resume_state(opt)

    basicsr.train.load_resume_state = load_resume_state


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


def texts_in_utf8() -> None:
    """BasicSR reads and writes options, lists of images and other texts in the encoding of the locale."""
    # The two that `import basicsr` leaves out.
    from basicsr.utils import lmdb_util, plot_util  # noqa: F401

    from lorair_arch.files import open_text

    # A name in the module goes before the built-in one; other packages keep theirs.
    for name, module in list(sys.modules.items()):
        if name.startswith('basicsr.'):
            module.open = open_text


def lmdb_opened_once() -> None:
    """lmdb 3 refuses to open an LMDB a second time in a process, as two data sets on the same files do."""
    import lmdb
    from basicsr.utils.file_client import LmdbBackend

    if int(lmdb.__version__.split('.')[0]) < 3:
        return

    def init(self, db_paths: str | list[str], client_keys: str | list[str] = 'default', **_) -> None:
        from lorair_arch.data.stores import lmdb_environment

        self.db_paths = [str(path) for path in ([db_paths] if isinstance(db_paths, str) else db_paths)]
        # As BasicSR's own, whose keyword arguments for LMDB are left out: all readers share one environment.
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

    # BasicSR's own two functions, everywhere; `cv2.imread` itself only in its modules, for cv2 belongs to all.
    for name in ('imwrite', 'imfrombytes'):
        original, ours = getattr(img_util, name), getattr(opencv_style, name)
        for module in list(sys.modules.values()):  # most have imported it by name
            if vars(module).get(name) is original:
                setattr(module, name, ours)
    safe = types.ModuleType('cv2', 'OpenCV with the reader and the writer of this package.')
    vars(safe).update(vars(cv2))
    safe.imread = opencv_style.imread
    # OpenCV's returns whether it could write; ours raises.
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
            # In the queue, so that it comes in its turn: batches that were read before it are used.
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

    # A mode sees every call of PyTorch in the method, `.cuda()` and `device='cuda'` alike, without a copy of its code.
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
