"""Names of any bytes, wherever images are read or written; OpenCV's own functions end the process at some of them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from basicsr.data.data_util import read_img_seq
from basicsr.utils import imfrombytes, imwrite
from basicsr.utils.file_client import FileClient
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from PIL import Image

from lorair_arch import cli
from lorair_arch.data.images.reading import read_photo
from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.data.stores import open_store
from lorair_arch.restoring.folders import restore_paths
from tests.miniature import stage, write_options
from tests.photos import photo
from tests.tiny import save_weights

BYTES = b'caf\xe9 \xff'
NAME = os.fsdecode(BYTES)
RGB = photo(0, 24, 28)


def rename():
    """Gives all images of the data set here such names."""
    for file in Path('data').rglob('*.png'):
        file.rename(file.with_name(NAME + file.name))


@pytest.mark.parametrize('kind', ['pretrain', 'sr', 'mixed'])
def test_training_validation_and_check(here, kind):
    rename()
    opt, sr = stage('pretrain' if kind == 'mixed' else kind), stage('sr')
    if kind == 'mixed':  # no degradation: images for TensorBoard are named like files
        opt['datasets']['val'] = sr['datasets']['val'] | {'dataroot_lq': sr['datasets']['val']['dataroot_gt']}
    opt['val']['save_img'], opt['logger']['use_tb_logger'] = True, True
    file = write_options(here, opt)
    assert cli.basicsr(['train', '-opt', file]) == 0
    saved = [os.fsencode(path) for path in Path('experiments', opt['name'], 'visualization').rglob('*.png')]
    assert len(saved) >= 3 and all(BYTES in name for name in saved)
    assert all(read_photo(os.fsdecode(name)).pixels.ndim == 3 for name in saved)
    assert cli.lorair(['data', 'check', '-opt', file]) == 0


def test_restoring(tmp_path, monkeypatch):
    # Else pytest's processes would have to send each other a name that is no text.
    monkeypatch.setattr(logging.getLogger('lorair_arch'), 'disabled', True)
    folder = tmp_path / os.fsdecode(b'\xe9t\xe9')
    folder.mkdir()
    Image.fromarray(RGB).save(folder / f'{NAME}.png')
    restore_paths(folder, tmp_path / NAME, save_weights(tmp_path / 'weights'), device='cpu')
    assert os.listdir(os.fsencode(tmp_path / NAME)) == [BYTES + b'.png']
    assert read_photo(tmp_path / NAME / f'{NAME}.png').pixels.shape == RGB.shape


@pytest.mark.parametrize('key', [NAME, 'Übersee'])
def test_lmdbs(tmp_path, key):
    with LmdbWriter(str(tmp_path / 'x.lmdb')) as writer:
        writer.put(key, RGB)
    store = open_store(str(tmp_path / 'x.lmdb'))
    assert store.keys == [key]
    np.testing.assert_array_equal(store.load(key), RGB)
    client = FileClient('lmdb', db_paths=str(tmp_path / 'x.lmdb'), client_keys='lq')
    np.testing.assert_array_equal(imfrombytes(client.get(key, 'lq'))[..., ::-1], RGB)


def test_functions_of_basicsr(tmp_path):
    path = tmp_path / 'new' / f'{NAME}.png'
    imwrite(RGB[..., ::-1], str(path))
    assert os.listdir(os.fsencode(path.parent)) == [BYTES + b'.png']
    np.testing.assert_array_equal(read_photo(path).pixels, RGB)
    frames = read_img_seq([str(path)])
    np.testing.assert_array_equal((frames[0] * 255).round().byte().permute(1, 2, 0).numpy(), RGB)
    make_lmdb_from_imgs(str(path.parent), str(tmp_path / 'x.lmdb'), [path.name], ['key'], map_size=2**20)
    np.testing.assert_array_equal(open_store(str(tmp_path / 'x.lmdb')).load('key'), RGB)
    with pytest.raises(OSError, match='No such file or directory'):
        imwrite(RGB, str(tmp_path / 'gone' / 'x.png'), auto_mkdir=False)
    assert not list(tmp_path.rglob('*.tmp'))


@pytest.mark.parametrize('image', [RGB, RGB[..., 0], np.dstack([RGB, RGB[..., 0]]), RGB.astype(np.uint16) * 257])
@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.tiff', '.webp'])
def test_written_and_read_as_opencv_does(tmp_path, image, suffix):
    path = str(tmp_path / f'x{suffix}')
    imwrite(image, path)
    if suffix != '.tiff':  # which OpenCV multiplies with the alpha channel
        np.testing.assert_array_equal(imfrombytes(Path(path).read_bytes()), cv2.imread(path))
    expected = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
    expected = expected[..., :3] >> 8 if image.dtype == np.uint16 else expected[..., :3]
    found = imfrombytes(Path(path).read_bytes(), float32=True) * 255
    assert np.abs(found - expected).mean() < (7 if suffix in ('.jpg', '.webp') else 1e-4)
