"""What results of `lorair restore` are written as, and that no pixel changes where no network changes it."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import read_photo
from lorair_arch.data.images.writing import WRITABLE, encode_photo
from lorair_arch.restoring.folders import restore_paths
from lorair_arch.restoring.marks import is_comparison, is_marked, mark
from tests import odd_images, tiny
from tests.photos import photo
from tests.runs import files, lines, lorair, make


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('suffix', WRITABLE)
@pytest.mark.parametrize('grey', [False, True])
def test_results_are_known_and_decoders_see_no_difference(here, suffix, grey):
    pixels = photo(1, 33, 41)
    plain = encode_photo(Photo(pixels[..., 0] if grey else pixels, exif=_exif()), suffix)
    marked = mark(plain, suffix)
    for content, found in ((plain, False), (marked, True)):
        Path(f'x{suffix}').write_bytes(content)
        assert is_marked(f'x{suffix}') == found
        assert not is_comparison(f'x{suffix}')
    assert read_photo(f'x{suffix}').exif == read_photo_of(plain, suffix).exif
    for decode in (_pillow, _opencv, read_photo_pixels):
        np.testing.assert_array_equal(decode(marked, suffix), decode(plain, suffix))
    if suffix == '.webp':
        np.testing.assert_array_equal(imagecodecs.webp_decode(marked), imagecodecs.webp_decode(plain))
        assert int.from_bytes(marked[4:8], 'little') == len(marked) - 8
    if suffix in ('.tif', '.tiff'):
        np.testing.assert_array_equal(tifffile.imread(f'x{suffix}'), read_photo_pixels(plain, suffix))


def _exif():
    exif = Image.Exif()
    exif[0x010F] = 'Maker'
    exif[0x0131] = 'the software of a camera'
    return exif.tobytes()


def _pillow(content, suffix):
    Path('y').write_bytes(content)
    with Image.open('y') as image:
        return np.asarray(image)


def _opencv(content, suffix):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def read_photo_of(content, suffix):
    Path(f'y{suffix}').write_bytes(content)
    return read_photo(f'y{suffix}')


def read_photo_pixels(content, suffix):
    return read_photo_of(content, suffix).pixels


@pytest.mark.parametrize('kind', ['png', 'jpg', 'webp', 'tif', 'same'])
def test_formats_in_a_folder_within_the_input(here, inverting, kind):
    make('photos/a.jpg', 'photos/b.png', 'photos/c.bmp', 'photos/d.gif')
    for _ in range(2):
        assert lorair('photos', '--format', kind, output='photos/out') == 0
    names = ['a.jpg', 'b.png', 'c.bmp', 'd.png'] if kind == 'same' else [f'{letter}.{kind}' for letter in 'abcd']
    assert files('photos/out') == names
    assert len(inverting) == 4
    for name in names:
        with Image.open(Path('photos/out', name)) as image:
            assert image.format == {'jpg': 'JPEG', 'tif': 'TIFF'}.get(name[-3:], name.partition('.')[2].upper())


def test_same_keeps_the_spelling_and_tells_formats_apart(here, inverting):
    make('photos/a.JPG', 'photos/a.png')
    restore_paths('photos', 'out', 'w', format='same')
    assert files('out') == ['a.JPG', 'a.png']


def test_quality(here, inverting):
    Image.fromarray(photo(0, 200, 300)).save('a.png')
    for suffix in ('jpg', 'webp'):
        sizes = []
        for quality in (10, 95, 100):
            restore_paths('a.png', f'{quality}.{suffix}', 'w', quality=quality)
            sizes.append(os.path.getsize(f'{quality}.{suffix}'))
        assert sizes == sorted(sizes)
        restore_paths('a.png', f'default.{suffix}', 'w')
        assert Path(f'default.{suffix}').read_bytes() == Path(f'95.{suffix}').read_bytes()


def test_a_suffix_behind_the_stem(here, inverting):
    make('photos/a.jpg', 'photos/a.png', 'photos/b.jpg', 'photos/' + 'x' * 248 + '.png')
    restore_paths('photos', 'out', 'w', suffix='_new')
    restore_paths('photos/b.jpg', 'one/', 'w', suffix='_new', format='webp')
    assert files('out')[:3] == ['a.jpg_new.png', 'a.png_new.png', 'b_new.png']
    assert files('one') == ['b_new.webp']


@pytest.fixture(scope='module')
def identity(tmp_path_factory):
    """Weights of a network that changes nothing."""
    folder = tmp_path_factory.mktemp('identity')
    net = tiny.perturbed(LoRAIR(**tiny.PLAIN))
    torch.nn.init.zeros_(net.ending.weight)
    torch.nn.init.zeros_(net.ending.bias)
    tiny.save(folder / 'base.pth', 'restorer', tiny.PLAIN, net.state_dict())
    tiny.save(folder / 'router.pth', 'router', tiny.ROUTER, DegradationRouter(**tiny.ROUTER).state_dict())
    return folder


RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 2**16, (31, 45, 4)).astype(np.uint16)


def _kinds():
    """Every kind of image, by its name."""
    deep, eight = NOISE, (NOISE >> 8).astype(np.uint8)
    kinds = {'alpha.webp': odd_images.saved(eight, 'WEBP', lossless=True, exact=True)}
    for suffix in ('.png', '.tif'):
        for bits, channels in ((8, eight), (16, deep)):
            for grey in (False, True):
                for alpha in (None, channels[..., 3]):
                    name = f'{"grey" if grey else "rgb"}{bits}{"" if alpha is None else "a"}{suffix}'
                    pixels = channels[..., 0] if grey else channels[..., :3]
                    kinds[name] = encode_photo(Photo(pixels, alpha), suffix)
    rgb, grey = eight[..., :3], eight[..., 0]
    for name in ('jpg', 'bmp', 'ppm', 'tga', 'webp', 'avif', 'jp2', 'gif'):
        formats = {'jpg': 'JPEG', 'jp2': 'JPEG2000'}
        kinds[f'colour.{name}'] = odd_images.saved(rgb, formats.get(name, name.upper()))
    kinds['grey.jpg'] = odd_images.saved(grey, 'JPEG')
    kinds['bits.png'] = odd_images.saved(Image.fromarray(grey > 99), 'PNG')
    palette = Image.fromarray(rgb).quantize(16)
    kinds['palette.png'] = odd_images.saved(palette, 'PNG')
    kinds['clear.png'] = odd_images.saved(palette, 'PNG', transparency=3)
    kinds['inks.jpg'] = odd_images.saved(Image.fromarray(rgb).convert('CMYK'), 'JPEG')
    kinds['inks.tif'] = odd_images.saved(Image.fromarray(rgb).convert('CMYK'), 'TIFF')
    kinds['turned.jpg'] = odd_images.saved(rgb, 'JPEG', exif=_turned())
    kinds['deep.ppm'] = odd_images.ppm(65535)
    kinds['adam7.png'] = odd_images.interlaced_png()
    kinds['one.png'] = encode_photo(Photo(rgb[:1, :1]), '.png')
    kinds['line.png'] = encode_photo(Photo(rgb[:1]), '.png')
    return kinds


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = 'Maker'
    return exif.tobytes()


@pytest.mark.parametrize(('kind', 'ray'), [('png', None), ('tif', None), ('png', '')])
def test_round_trips_of_every_kind_of_image(here, identity, kind, ray):
    if ray is not None:
        pytest.importorskip('ray')
    for name, content in _kinds().items():
        Path('photos').mkdir(exist_ok=True)
        Path('photos', name).write_bytes(content)
    restore_paths('photos', 'out', identity, device='cpu', format=kind, suffix='-x', log='log.jsonl', ray=ray)
    assert len(lines()) == len(_kinds())
    for line in lines():
        before, after = read_photo(line['input']), read_photo(line['output'])
        assert before.pixels.dtype == after.pixels.dtype
        np.testing.assert_array_equal(after.pixels, before.pixels, line['input'])
        np.testing.assert_array_equal(after.alpha, before.alpha)
        assert (after.icc or None, after.exif) == (before.icc or None, before.exif)
