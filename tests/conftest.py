"""Every test starts from the same random state, on one thread, without a network."""

import os

# before PyTorch: the miniature networks of the tests are faster on one thread, and processes share the cores
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ['HF_HUB_OFFLINE'] = '1'

import logging  # noqa: E402
import random  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

import lorair_arch  # noqa: E402, F401  before torchvision and open_clip, which need its adjustments here
from lorair_arch.restoring import folders  # noqa: E402
from tests.miniature import write_data, write_weights  # noqa: E402


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data and weights, where the test runs."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    write_weights(tmp_path)
    return tmp_path


@pytest.fixture
def inverting(monkeypatch):
    """`lorair restore` inverts images in place of restoring them; gives those that it met."""
    calls = []

    class Inverting:
        @classmethod
        def from_pretrained(cls, weights, device):
            return cls()

        def check(self, degradation, tile):
            pass

        def __call__(self, image, degradation, tile):
            calls.append(image)
            return np.iinfo(image.dtype).max - image

    monkeypatch.setattr(folders, 'Restorer', Inverting)
    return calls


@pytest.fixture(autouse=True)
def seed():
    """Seeds every generator."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def loggers():
    """Gives the loggers back as they were: commands and BasicSR's models set them up for the whole process."""
    from basicsr.utils.logger import initialized_logger

    names = ('basicsr', 'lorair_arch')
    before = [(list((logger := logging.getLogger(name)).handlers), logger.level, logger.propagate) for name in names]
    yield
    for name, (handlers, level, propagate) in zip(names, before):
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
    initialized_logger.clear()
