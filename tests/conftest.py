"""Every test starts from the same random state, on one thread, without a network."""

import os

# before PyTorch: the miniature networks of the tests are faster on one thread, and processes share the cores
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ['HF_HUB_OFFLINE'] = '1'

import logging  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from pathlib import Path  # noqa: E402
from types import SimpleNamespace  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

import lorair_arch  # noqa: E402, F401  before torchvision and open_clip, which need its adjustments here
from lorair_arch.restoring.restorer import Restored  # noqa: E402
from tests.hub_server import BIG, CONFIG, serving  # noqa: E402
from tests.miniature import write_data, write_weights  # noqa: E402
from tests.scoring import folders  # noqa: E402, F401  a fixture
from tests.zoo import load, zoo  # noqa: E402, F401  fixtures

# Where BasicSR cannot be built, on Python 3.13 and newer, all that does not train is tested.
WITHOUT_BASICSR = """
    bundle checkpoint convert data_degradations data_images demo evaluate experts export files hub hub_downloads
    image_files image_metadata image_tiff memory official output_obstacles outputs protocols published restore_files
    restore_formats restore_inputs restore_killed restore_ray restore_report restore_run restorer restorer_kinds
    router statistics tiling
""".split()  # noqa: SIM905
if not find_spec('basicsr'):
    collect_ignore = [
        file.name
        for file in Path(__file__).parent.glob('test_*.py')
        if file.stem.removeprefix('test_') not in WITHOUT_BASICSR
    ]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data and weights, where the test runs."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    write_weights(tmp_path)
    return tmp_path


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback in place of huggingface.co, with an empty cache; processes see it too."""
    from huggingface_hub import constants

    with serving() as hub:
        folder = tmp_path / 'huggingface'
        env = {'HF_ENDPOINT': hub.url, 'HF_HOME': str(folder), 'HF_HUB_OFFLINE': '0', 'HF_HUB_DISABLE_XET': '1'}
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        for name, value in {
            'ENDPOINT': hub.url,
            'HUGGINGFACE_CO_URL_TEMPLATE': hub.url + '/{repo_id}/resolve/{revision}/{filename}',
            'HF_HUB_CACHE': str(folder / 'hub'),
            'HF_TOKEN_PATH': str(folder / 'token'),
            'HF_HUB_OFFLINE': False,
            'HF_HUB_DISABLE_XET': True,
            'HF_HUB_ETAG_TIMEOUT': 1,
            'HF_HUB_DOWNLOAD_TIMEOUT': 1,
            'DOWNLOAD_CHUNK_SIZE': 1000,
        }.items():
            monkeypatch.setattr(constants, name, value)  # which the client has read from the environment before
        monkeypatch.setattr('huggingface_hub.file_download.time', SimpleNamespace(sleep=lambda seconds: None))
        yield hub


@pytest.fixture
def single(hub):
    """The hub with 'some/repo': a single file, of random bytes, with its config.json."""
    hub.add('some/repo', {'model.safetensors': BIG, 'config.json': CONFIG, 'README.md': b'card', 'x.pth': b'else'})
    return hub


@pytest.fixture
def inverting(monkeypatch):
    """`lorair restore` inverts images in place of restoring them; gives those that it met."""
    calls = []

    class Inverting:
        device, precision = 'cpu', 'fp32'

        @classmethod
        def from_pretrained(cls, weights, device=None, precision=None):
            return cls()

        def check(self, degradation, strength, tile):
            pass

        def restore(self, image, degradation, strength, tile):
            calls.append(image)
            return Restored(np.iinfo(image.dtype).max - image, {'noise': 0.25, 'rain': 0.75}, None)

    monkeypatch.setattr('lorair_arch.restoring.folders.Restorer', Inverting)
    return calls


@pytest.fixture(autouse=True)
def seed():
    """Seeds every generator."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def kept_loggers():
    """Gives the loggers back as they were: commands and BasicSR's models set them up for the whole process."""
    names = ('basicsr', 'lorair_arch')
    before = [(list((logger := logging.getLogger(name)).handlers), logger.level, logger.propagate) for name in names]
    yield
    for name, (handlers, level, propagate) in zip(names, before):
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
    if 'basicsr' in sys.modules:
        sys.modules['basicsr'].utils.logger.initialized_logger.clear()


loggers_of_a_module = pytest.fixture(kept_loggers, autouse=True, scope='module')  # for commands that its fixtures run
loggers = pytest.fixture(kept_loggers, autouse=True)
