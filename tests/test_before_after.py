"""The picture of images before and after restoring."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.miniature import REPO
from tests.photos import photo, write


def draw(folder, *more):
    command = [sys.executable, str(REPO / 'scripts/before_after.py'), 'photos', 'restored', '-o', 'sheet.jpg', *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(('a.jpg', 'b.png', 'c.png')):
        write(tmp_path / 'photos' / name, photo(seed, 40, 60))
    for name in 'ac':
        write(tmp_path / 'restored' / f'{name}.png', np.full((40, 60, 3), 200, np.uint8))
    return tmp_path


def test_pairs_are_beside_each_other(folder):
    done = draw(folder)
    assert done.returncode == 0, done.stderr
    sheet = np.asarray(Image.open(folder / 'sheet.jpg')).astype(int)
    assert sheet.shape[1] > 4 * 320
    grey = (abs(sheet - 200).max(-1) < 6).sum() / (320 * 213)
    assert 1.8 < grey < 2.2  # two restored images, b has none


def test_what_is_there_stays(folder):
    (folder / 'sheet.jpg').write_bytes(b'mine')
    done = draw(folder)
    assert done.returncode == 2
    assert "'sheet.jpg' exists" in done.stderr
    assert (folder / 'sheet.jpg').read_bytes() == b'mine'
    assert draw(folder, '--overwrite').returncode == 0


def test_no_pairs(folder):
    for file in (folder / 'restored').iterdir():
        file.unlink()
    done = draw(folder)
    assert done.returncode == 2
    assert (
        done.stderr == 'error: photos and restored have no images of the same names: restore one into the other first\n'
    )
