"""`restore_paths` and `lorair restore`: folders, formats, what files keep, and mistakes told in one sentence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from lorair_arch import Restorer, cli
from lorair_arch.data.images.kinds import RAW
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import read_photo
from lorair_arch.data.images.writing import write_photo
from lorair_arch.errors import DataError
from lorair_arch.restoring.folders import restore_paths
from tests.tiny import photo, save_weights


@pytest.fixture
def weights(tmp_path):
    return save_weights(tmp_path / 'weights')


@pytest.fixture
def restorer(weights):
    return Restorer.from_pretrained(weights, 'cpu')


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    (folder / 'holiday').mkdir(parents=True)
    Image.fromarray(photo()).save(folder / 'a.jpg')
    Image.fromarray(photo(20, 30)).save(folder / 'holiday' / 'Übersee 1.png')
    return folder


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_restores_a_folder(photos, weights, restorer, tmp_path):
    out = tmp_path / 'out'
    restore_paths(photos, out, weights, device='cpu')
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob('*.*')) == ['a.png', 'holiday/Übersee 1.png']
    expected = restorer(np.asarray(Image.open(photos / 'holiday' / 'Übersee 1.png')))
    np.testing.assert_array_equal(read(out / 'holiday' / 'Übersee 1.png')[..., ::-1], expected)


def test_results_within_the_input_are_not_restored_again(photos, weights):
    for _ in range(2):
        restore_paths(photos, photos / 'restored', weights, device='cpu')
    assert sorted(p.name for p in (photos / 'restored').iterdir()) == ['a.png', 'holiday']


@pytest.mark.parametrize('name', ['out.jpg', 'out.png', 'out.webp', 'new/out.tif', 'folder'])
def test_restores_one_image(photos, weights, tmp_path, name):
    restore_paths(photos / 'a.jpg', tmp_path / name, weights, device='cpu', tile=32, degradation='haze')
    assert read(tmp_path / name / 'a.png' if name == 'folder' else tmp_path / name).shape == (37, 50, 3)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_keeps_transparency_and_depth(weights, restorer, tmp_path, dtype):
    image = photo(dtype=dtype, channels=4)
    cv2.imwrite(str(tmp_path / 'in.png'), image)
    for suffix in ('png', 'tif', 'jpg'):
        restore_paths(tmp_path / 'in.png', tmp_path / f'out.{suffix}', weights, device='cpu')
    for suffix in ('png', 'tif'):
        restored = read_photo(tmp_path / f'out.{suffix}')
        assert restored.pixels.dtype == dtype
        np.testing.assert_array_equal(restored.alpha, image[..., 3])
        np.testing.assert_array_equal(restored.pixels, restorer(image[..., 2::-1]))
    assert read(tmp_path / 'out.jpg').shape == (37, 50, 3)


@pytest.mark.parametrize('orientation', range(10))
@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_exif_rotation_is_honoured(weights, restorer, tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = photo(8, 12)
    source = tmp_path / f'in.{suffix}'
    Image.fromarray(upright).save(source, exif=exif)
    restore_paths(source, tmp_path / 'out.png', weights, device='cpu')
    expected = np.asarray(ImageOps.exif_transpose(Image.open(source)))
    np.testing.assert_array_equal(read(tmp_path / 'out.png')[..., ::-1], restorer(expected))


def test_grey_files_stay_grey(weights, tmp_path):
    grey = photo(channels=1)[..., 0]
    deep = grey.astype(np.uint16) * 257
    images = {'8.png': Photo(grey), '16.png': Photo(deep), '8a.png': Photo(grey, grey), '16a.tif': Photo(deep, deep)}
    for name, image in images.items():
        write_photo(tmp_path / 'in' / name, image)
    restore_paths(tmp_path / 'in', tmp_path / 'out', weights, device='cpu')
    for suffix in ('.tif', '.jpg', '.webp'):
        restore_paths(tmp_path / 'in' / '16a.tif', tmp_path / f'out{suffix}', weights, device='cpu')
    for name, image in images.items():
        found = read_photo((tmp_path / 'out' / name).with_suffix('.png'))
        assert found.pixels.shape == grey.shape and found.pixels.dtype == image.pixels.dtype
        np.testing.assert_array_equal(found.alpha, image.alpha)
    np.testing.assert_array_equal(read_photo(tmp_path / 'out.tif').pixels, found.pixels)
    assert read_photo(tmp_path / 'out.jpg').pixels.shape == grey.shape
    assert np.ptp(read_photo(tmp_path / 'out.webp').rgb.astype(int), axis=2).max() <= 2  # it knows colours alone


def test_all_formats_in_a_folder_are_restored_or_listed(photos, weights, tmp_path):
    smooth = Image.fromarray(cv2.resize(photo(5, 6), (50, 37)))
    names = ['b.avif', 'c.gif', 'd.jp2', 'e.jfif', 'f.bmp', 'g.ppm', 'h.tga', 'i.webp', 'j.JPE']
    for name in names:
        smooth.save(photos / name)
    for name, content in (
        ('k.svg', b'<svg></svg>'),
        ('l.psd', b'8BPS' + bytes(30)),
        ('m.NEF', b'II*\0' + bytes(30)),
        ('n.exr', b'hello'),
        ('o.jpg', b'<html>no</html>'),
    ):
        (photos / name).write_bytes(content)
    smooth.save(photos / 'p.gif', save_all=True, append_images=[Image.fromarray(photo())])
    with pytest.raises(DataError) as caught:
        restore_paths(photos, tmp_path / 'out', weights, device='cpu')
    first, *lines = str(caught.value).splitlines()
    assert first == '6 of 17 images could not be restored:'
    expected = {
        'k.svg': 'is an SVG file; save it as PNG',
        'l.psd': 'is a Photoshop file; save it as TIFF or PNG',
        'm.NEF': f'is {RAW}',
        'n.exr': 'has the suffix of a format that is not read; save it as PNG or TIFF',
        'o.jpg': 'is a web page (a download gave a page instead of the file); download it again',
        'p.gif': 'is an animation of 2 frames, and a single image is needed; save each as a file of its own',
    }
    assert sorted(lines) == sorted(f"'{photos / name}' {what}" for name, what in expected.items())
    restored = {path.stem for path in (tmp_path / 'out').glob('*.png')}
    assert restored == {'a', *(Path(name).stem for name in names)}
    with Image.open(photos / 'd.jp2') as image:
        source = np.asarray(image)
    found = read(tmp_path / 'out' / 'd.png')[..., ::-1]
    np.testing.assert_array_equal(found, Restorer.from_pretrained(weights, 'cpu')(source))


def test_the_home_folder(photos, weights, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(photos)
    command = ['restore', '~/photos/a.jpg', '-o=~/out.png', '--weights', '~/weights', '--device', 'cpu']
    assert cli.lorair(command) == 0
    assert read(tmp_path / 'out.png').shape == (37, 50, 3)
    restore_paths('~/photos/a.jpg', '~/again.png', '~/weights', device='cpu')
    assert (tmp_path / 'again.png').read_bytes() == (tmp_path / 'out.png').read_bytes()
    assert not list(photos.glob('~*'))


def test_unreadable_images_are_named_and_the_others_restored(photos, weights, tmp_path):
    (photos / 'b.png').write_bytes(b'nonsense')
    (photos / 'empty.png').touch()
    with pytest.raises(DataError) as error:
        restore_paths(photos, tmp_path / 'out', weights, device='cpu')
    first, second, third = str(error.value).splitlines()
    assert first == '2 of 4 images could not be restored:'
    assert 'b.png' in second
    assert 'empty.png' in third
    assert (tmp_path / 'out' / 'holiday' / 'Übersee 1.png').exists()
    with pytest.raises(DataError, match=r'^cannot decode image .*b\.png'):
        restore_paths(photos / 'b.png', tmp_path / 'out', weights, device='cpu')


@pytest.mark.parametrize(
    ('source', 'output', 'message'),
    [
        ('photos/missing.png', 'out', "input '.*missing.png' does not exist"),
        ('photos/holiday', 'photos/holiday', "output '.*holiday' is the input folder, .* such as '.*holiday/restored'"),
        ('photos/a.jpg', 'photos/a.jpg', "output '.*a.jpg' would replace the input image '.*a.jpg'"),
        ('photos', 'out.png', "output '.*out.png' is the name of an image, but input '.*' is a folder"),
        ('photos', 'weights/base.pth', "output '.*base.pth' is no folder, but one is needed"),
        ('photos/a.jpg', 'file', "output '.*file' is no folder"),
        ('weights', 'out', 'holds no images'),
        (
            'photos/a.jpg',
            'out.gif',
            "output '.*out.gif' ends in .gif, but images are written as .png, .*end in /",
        ),
        ('photos/a.jpg', 'photos/holiday/Übersee 1.png/x', 'a.png cannot be written: Not a directory; move away'),
    ],
)
def test_refuses_wrong_paths(photos, weights, tmp_path, source, output, message):
    (tmp_path / 'file').touch()
    before = {path: path.read_bytes() for path in photos.rglob('*.*')}
    with pytest.raises(DataError, match=message):
        restore_paths(tmp_path / source, tmp_path / output, weights, device='cpu')
    assert before == {path: path.read_bytes() for path in photos.rglob('*.*')}
