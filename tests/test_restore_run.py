"""A run of `lorair restore`: what its inputs lead to, its flags, shards, log, and what interrupts it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lorair_arch import cli
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import read_photo
from lorair_arch.data.images.writing import WRITABLE, encode_photo
from lorair_arch.errors import DataError, OptionsError, OutputError
from lorair_arch.restoring import run
from lorair_arch.restoring.folders import restore_paths
from lorair_arch.restoring.marks import is_comparison, is_marked, mark
from lorair_arch.restoring.records import Records
from tests import odd_images, tiny
from tests.miniature import REPO
from tests.photos import photo

KILLS = int(os.environ.get('LORAIR_KILLS', '3'))  # more of them take some seconds each


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names):
    """Writes images that all differ."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(len(name) + sum(name.encode()), 8, 8)).save(name)


def files(root):
    return sorted(str(path.relative_to(root)) for path in Path(root).rglob('*') if not path.is_dir())


def contents(root):
    return {path: path.read_bytes() for path in Path(root).rglob('*') if path.is_file()}


def lorair(*more, output='out'):
    return cli.lorair(['restore', *more, '-o', output, '--weights', 'w'])


def lines(path='log.jsonl'):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


# inputs


@pytest.mark.parametrize(
    ('inputs', 'results'),
    [
        (['photos/a.png', 'more/c.png'], ['a.png', 'c.png']),
        (['photos', 'more'], ['a.png', 'c.png', 'sub/b.png', 'x/d.png']),
        (['photos', 'more/c.png'], ['a.png', 'c.png', 'sub/b.png']),
        (['photos/*.png'], ['a.png']),
        (['photos/*'], ['a.png', 'sub/b.png']),
        (['photos/**/*.png'], ['a.png', 'sub/b.png']),
        (['photos/**'], ['a.png', 'sub/b.png']),
        (['*/*/*.png'], ['more/x/d.png', 'photos/sub/b.png']),
        (['photos/s?b/*', './more'], ['b.png', 'c.png', 'sub/b.png', 'x/d.png'][1:]),
        (['[p]hotos/a.png'], ['photos/a.png']),
        (['odd[1].png', 'photos/a.png'], ['a.png', 'odd[1].png']),
        (['photos/*/../a.png'], ['a.png']),
    ],
)
def test_inputs_of_every_kind(here, inverting, inputs, results):
    make('photos/a.png', 'photos/sub/b.png', 'more/c.png', 'more/x/d.png', 'odd[1].png')
    Path('photos/notes.txt').write_text('x')
    for _ in range(2):
        restore_paths(inputs, 'out', 'w')
        assert files('out') == results
        assert len(inverting) == len(results)


def test_names_of_several_folders_differ_and_are_found_again(here, inverting):
    make('one/a.png', 'one/b.png', 'two/a.png', 'two/c.png')
    restore_paths(['one', 'two'], 'out', 'w')
    names = files('out')
    assert len(names) == 4 and names[2:] == ['b.png', 'c.png'] and names[0].startswith('a.png-')
    before = contents('out')
    restore_paths([here / 'two', './one/', 'one/*'], 'out', 'w')  # whatever the order and the spelling
    assert contents('out') == before and len(inverting) == 4


@pytest.mark.parametrize('inputs', [['photos', 'photos/sub'], ['photos/sub', 'photos'], ['photos/sub/b.png', 'photos']])
def test_an_image_of_several_inputs_is_restored_once(here, inverting, inputs, capsys):
    make('photos/a.png', 'photos/sub/b.png')
    assert lorair(*inputs) == 0
    assert files('out') == ['a.png', 'sub/b.png']
    message = "1 image restored once, though several inputs lead there: 'photos/sub/b.png'"
    assert message in capsys.readouterr().err


def test_an_output_that_the_shell_names_as_an_input(here, inverting):
    make('photos/a.png', 'photos/b.png')
    for _ in range(2):
        restore_paths(sorted(Path('photos').iterdir()), 'photos/restored', 'w')
    assert files('photos/restored') == ['a.png', 'b.png'] and len(inverting) == 2
    make('photos/restored/mine.png')
    with pytest.raises(OutputError, match='is the input folder'):
        restore_paths(sorted(Path('photos').iterdir()), 'photos/restored', 'w')


@pytest.mark.parametrize(
    ('inputs', 'output', 'message'),
    [
        (['photos/*.tif'], 'out', r"input 'photos/\*.tif' holds no images: check the paths"),
        (['empty', 'empty2'], 'out', "inputs 'empty', 'empty2' hold no images"),
        (['photos', 'gone'], 'out', "input 'gone' does not exist: check the path"),
        (
            ['photos', 'photos/a.png'],
            'out.png',
            "output 'out.png' is the name of an image, but input 'photos' and 1 more",
        ),
        (['photos/*'], 'out.png', r"input 'photos/\*' is a pattern: name a folder"),
    ],
)
def test_wrong_inputs(here, inverting, inputs, output, message):
    make('photos/a.png', 'photos/b.png')
    Path('empty').mkdir()
    Path('empty2').mkdir()
    with pytest.raises(DataError, match=message):
        restore_paths(inputs, output, 'w')
    assert not inverting


def test_results_beside_their_images_replace_none(here, inverting):
    make('photos/a.jpg', 'photos/b.png')
    before = contents('photos')
    for more in ({}, {'overwrite': True}):
        restore_paths(sorted(Path('photos').iterdir()), 'photos', 'w', **more)
        assert files('photos') == ['a.jpg', 'a.png', 'b.png', 'b.png.png']
        assert contents('photos').items() >= before.items()


# formats and names


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


WRONG = {
    '--strength=1.5': '--strength: found 1.5, expected 0 to 1',
    '--strength=nan': '--strength: found nan, expected 0 to 1',
    '--quality=0': '--quality: found 0, expected 1 to 100',
    '--suffix=a/b': "--suffix: found 'a/b', expected a part of a file name",
    '--suffix=' + 'x' * 101: '--suffix: found 101 letters, expected a few',
    '--tile=0': "--tile: found '0', expected 'auto' or a number of pixels, such as 512",
    '--tile=big': "--tile: found 'big', expected 'auto' or a number of pixels, such as 512",
    '--shard=0/3': '--shard: found 0/3, expected 1/n to n/n',
    '--shard=4/3': '--shard: found 4/3, expected 1/n to n/n',
    '--shard=2': "--shard: found '2', expected i/n, such as 1/4",
    '--degradation=rain=x': "--degradation: found 'rain=x', expected NAME=WEIGHT, as in rain=0.7,noise=0.3",
    '--degradation=rain=-1': "--degradation: found 'rain=-1', expected NAME=WEIGHT, as in rain=0.7,noise=0.3",
    '--degradation=rain=1,rain=2': "--degradation: found 'rain' twice",
    '--degradation=rain=0': "--degradation: found 'rain=0', expected a weight above 0",
    '--log=photos/a.png': "--log: 'photos/a.png' is the name of an image: choose another",
    '--log=notes.txt': "--log: 'notes.txt' exists and is no log of lorair restore: choose another name",
    '--report=out/a.png': "--report: 'out/a.png' is the name of an image: choose another",
    '--report=notes.txt': "output 'notes.txt' exists already: choose another name, or --overwrite to replace it",
}


@pytest.mark.parametrize('flag', WRONG)
def test_wrong_values(here, monkeypatch, capsys, flag):
    monkeypatch.setattr('lorair_arch.restoring.folders.Restorer', None)  # no weights are loaded
    make('photos/a.png')
    Path('notes.txt').write_text('dear')
    assert lorair('photos', flag) == 2
    assert capsys.readouterr().err == f'error: {WRONG[flag]}\n'
    assert Path('notes.txt').read_text() == 'dear' and not Path('out').exists()


def test_what_does_not_fit_the_name_of_one_result(here, inverting):
    make('a.png')
    with pytest.raises(OptionsError, match="--format: found 'jpg', but output 'b.png' ends in .png: leave one of them"):
        restore_paths('a.png', 'b.png', 'w', format='jpg')
    with pytest.raises(OptionsError, match="--suffix: output 'b.png' is already the name of the result"):
        restore_paths('a.png', 'b.png', 'w', suffix='_x')
    for output, kind in (('b.png', 'same'), ('b.tiff', 'tif'), ('b.JPEG', 'jpg')):
        restore_paths('a.png', output, 'w', format=kind)
        assert Path(output).exists()


# shards


def test_shards_are_disjoint_and_complete_whatever_is_done(here, inverting):
    names = [f'photos/{i}.{kind}' for i in range(15) for kind in ('jpg', 'png')] + ['photos/x/0.jpg', 'more/3.jpg']
    make(*names)
    restore_paths(['photos', 'more'], 'whole', 'w')
    make('photos/unread.png')
    Path('photos/unread.png').write_bytes(b'x')
    inverting.clear()
    shares, failed = [], 0
    for i in (3, 1, 4, 2):
        before = set(files('out'))
        failed += lorair('photos', 'more', f'--shard={i}/4', '--log=log.jsonl')
        shares.append(set(files('out')) - before)
    assert sorted(set().union(*shares)) == files('whole') == files('out')
    assert sum(map(len, shares)) == len(names) == len(inverting)
    assert all(shares) and failed == 1
    assert len({line['input'] for line in lines()}) == len(lines()) == len(names) + 1
    assert lorair('photos/0.jpg', '--shard=1/2') + lorair('photos/0.jpg', '--shard=2/2') == 0  # one has nothing to do


# pictures of before and after


def test_comparisons_stand_beside_results_and_are_no_input(here, inverting, capsys):
    make('photos/a.jpg', 'photos/sub/b.png')
    assert lorair('photos', '--compare') == 0
    expected = ['a.compare.png', 'a.png', 'sub/b.compare.png', 'sub/b.png']
    assert files('out') == expected
    sheet = np.asarray(Image.open('out/a.compare.png'))
    assert sheet.shape == (24, 20, 3)
    original = np.asarray(Image.open('photos/a.jpg')).astype(int)
    assert np.abs(sheet[-8:, :8] - original).max() <= 1 and np.abs(255 - sheet[-8:, -8:] - original).max() <= 1
    assert lorair('photos', '--compare') == 0
    assert files('out') == expected and len(inverting) == 2
    assert lorair('out', output='again') == 0  # results are images like others, these are not
    assert files('again') == ['a.png', 'sub/b.png']
    assert lorair('photos', '--compare', output='photos/out') == lorair('photos', output='photos/out') == 0
    assert files('photos/out') == expected and len(inverting) == 6


def test_comparisons_collide_with_nothing(here, inverting):
    make('photos/a.jpg', 'photos/a.compare.jpg', 'photos/b.png', 'photos/b.compare.png')
    for more in ((), ('--compare',)):  # the names of results are the same in both runs
        assert lorair('photos', *more) == 0
        results = [name for name in files('out') if not is_comparison(f'out/{name}')]
        assert results == ['a.compare.jpg.png', 'a.jpg.png', 'b.compare.png.png', 'b.png.png']
    assert len(files('out')) == 8 and len(inverting) == 4
    make('out/c.compare.png', 'photos/c.png')
    before = Path('out/c.compare.png').read_bytes()
    assert lorair('photos', '--compare') == 0
    assert Path('out/c.compare.png').read_bytes() == before  # something else of the user's


def test_comparisons_are_made_up_for_and_renewed(here, inverting):
    make('photos/a.jpg')
    assert lorair('photos') == 0
    assert lorair('photos', '--compare') == 0
    first = Path('out/a.compare.png').read_bytes()
    make('photos/bb.jpg')
    os.replace('photos/bb.jpg', 'photos/a.jpg')
    assert lorair('photos', '--compare', '--overwrite') == 0
    assert Path('out/a.compare.png').read_bytes() != first
    assert len(inverting) == 2


# the log


def test_the_log_has_a_line_for_each_image(here, inverting):
    make('photos/a.png', 'photos/c.png')
    Path('photos/b.png').write_bytes(b'x')
    Path('photos/d.svg').write_text('<svg></svg>')
    assert lorair('photos', '--log', 'logs/log.jsonl') == 1
    found = lines('logs/log.jsonl')
    assert [line['input'] for line in found] == ['photos/d.svg', 'photos/a.png', 'photos/b.png', 'photos/c.png']
    assert found[0]['output'] is None and found[0]['error'].endswith('is an SVG file; save it as PNG')
    assert found[1].pop('seconds') >= 0
    assert found[1] == {
        'input': 'photos/a.png',
        'output': 'out/a.png',
        'status': 'restored',
        'error': None,
        'width': 8,
        'height': 8,
        'tile': None,
        'degradations': {'noise': 0.25, 'rain': 0.75},
    }
    assert found[2]['status'] == 'failed' and found[2]['error'].startswith("cannot decode image 'photos/b.png'")
    Path('photos/b.png').unlink()
    Path('photos/d.svg').unlink()
    with open('logs/log.jsonl', 'a') as file:  # a power cut
        file.write('{"input": "photos/a')
    assert lorair('photos', '--log', 'logs/log.jsonl') == 0
    assert [line['status'] for line in lines('logs/log.jsonl')[4:]] == ['skipped', 'skipped']


def test_half_a_line_of_another_run_is_left_to_it(here, inverting):
    make('photos/a.png')
    assert lorair('photos', '--log=log.jsonl') == 0
    other = Records(Path('log.jsonl'))
    with open('log.jsonl', 'ab') as file:
        file.write(b'{"input": ')
    Records(Path('log.jsonl')).close()
    with open('log.jsonl', 'ab') as file:
        file.write(b'"b"}\n')
    other.close()
    Records(Path('log.jsonl')).close()
    assert [line['input'] for line in lines()] == ['photos/a.png', 'b']


def test_names_of_any_bytes_are_logged(here, inverting):
    name = os.fsdecode(b'photos/caf\xe9.png')
    make('photos/x.png')
    os.rename('photos/x.png', name)
    assert lorair('photos', '--log=log.jsonl', '--report=page.html') == 0
    assert lines()[0]['input'] == name


def test_exit_codes(here, inverting, capsys):
    make('photos/a.png')
    assert lorair('photos') == 0
    assert lorair('gone') == 2
    Path('photos/b.png').write_bytes(b'x')
    assert lorair('photos') == 1
    assert lorair('photos/b.png') == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: cannot decode image 'photos/b.png': it is dam")


# reading, restoring and writing


def test_steps_overlap_in_bounded_memory(here, inverting, monkeypatch):
    make(*(f'photos/{i}.png' for i in range(6)))
    lock, counts, most, seen = threading.Lock(), [0, 0], [0, 0], threading.Event()

    def counted(function, place, step):
        def call(*args):
            with lock:
                counts[place] += step
                most[place] = max(most[place], counts[place])
                if counts[0] > 1:
                    seen.set()
            return function(*args)

        return call

    # Read and not yet written: one ahead, one being restored, one being written.
    monkeypatch.setattr(run, 'read_photo', counted(run.read_photo, 0, 1))
    monkeypatch.setattr(run, 'write_file', counted(run.write_file, 0, -1))
    monkeypatch.setattr(
        run.Steps, 'restore', lambda self, work, do=run.Steps.restore: (seen.wait(5), do(self, work))[1]
    )
    restore_paths('photos', 'out', 'w')
    assert 2 <= most[0] <= 3 and seen.is_set()
    assert len(files('out')) == 6


def test_abandoned_files_are_removed_and_no_others(here, inverting):
    make('photos/a.png', 'out/x.png')
    hours = time.time() - 7200
    for name in ('.12-0a1b2c3d.tmp', '.mine.tmp', '.12-0a1b2c3d.tmp2', '.13-0a1b2c3d.tmp'):
        Path('out', name).write_bytes(b'x')
        if name[:3] != '.13':
            os.utime(Path('out', name), (hours, hours))
    assert lorair('photos') == 0
    assert files('out') == ['.12-0a1b2c3d.tmp2', '.13-0a1b2c3d.tmp', '.mine.tmp', 'a.png', 'x.png']


# real networks, real processes


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


@pytest.mark.parametrize('kind', ['png', 'tif'])
def test_round_trips_of_every_kind_of_image(here, identity, kind):
    for name, content in _kinds().items():
        Path('photos').mkdir(exist_ok=True)
        Path('photos', name).write_bytes(content)
    restore_paths('photos', 'out', identity, device='cpu', format=kind, suffix='-x', log='log.jsonl')
    assert len(lines()) == len(_kinds())
    for line in lines():
        before, after = read_photo(line['input']), read_photo(line['output'])
        assert before.pixels.dtype == after.pixels.dtype
        np.testing.assert_array_equal(after.pixels, before.pixels, line['input'])
        np.testing.assert_array_equal(after.alpha, before.alpha)
        assert (after.icc or None, after.exif) == (before.icc or None, before.exif)


_DRIVER = """
import sys, zlib
from lorair_arch import cli
from lorair_arch.restoring.restorer import Restorer
def restore(self, image, *args, do=Restorer.restore):
    with open('calls', 'a') as file:
        file.write(f'{zlib.crc32(image.tobytes())}\\n')
    return do(self, image, *args)
Restorer.restore = restore
sys.exit(cli.lorair(sys.argv[1:]))
"""


def start(folder, *more):
    """Starts `lorair restore photos -o out`; each image that is restored is noted in `calls`."""
    command = [sys.executable, '-c', _DRIVER, 'restore', 'photos', '--weights', 'weights', '--device', 'cpu', *more]
    env = os.environ | {'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)


def finished(process):
    with process:
        err = process.communicate(timeout=120)[1]
    assert process.returncode == 0, err
    return err


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """A folder with photographs and weights, and what becomes of them."""
    folder = tmp_path_factory.mktemp('undisturbed')
    tiny.save_weights(folder / 'weights')
    for i in range(30):
        (folder / 'photos' / str(i % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(i, 150, 200)).save(folder / f'photos/{i % 3}/{i}.png')
    restore_paths(folder / 'photos', folder / 'out', folder / 'weights', device='cpu')
    return folder, {name: (folder / 'out' / name).read_bytes() for name in files(folder / 'out')}


@pytest.fixture
def photographs(undisturbed, here):
    """Those, to be restored here; gives what is expected."""
    folder, expected = undisturbed
    for name in ('photos', 'weights'):
        shutil.copytree(folder / name, here / name)
    return expected


def results(root='out'):
    return {name: Path(root, name).read_bytes() for name in files(root) if not name.endswith('.tmp')}


def wait_for(count, process):
    """Waits until so many images are being, or have been, restored."""
    deadline = time.time() + 60
    while len(calls()) < count and process.poll() is None and time.time() < deadline:
        time.sleep(0.001)


def calls():
    return Path('calls').read_text().split() if Path('calls').exists() else []


def test_killed_and_continued(photographs, here):
    rng = random.Random(int(os.environ.get('LORAIR_SEED', '0')))
    seen, restored, again = {}, set(), 0
    for number in range(KILLS + 1):
        before = calls()
        process = start(here, '-o', 'out', '--log', 'log.jsonl')
        if number == KILLS:
            finished(process)
        else:
            # Either while it starts, or at a random moment after a random number of images.
            wanted = rng.randint(0, max(1, 30 // KILLS))
            wait_for(len(before) + wanted, process)
            time.sleep(rng.uniform(0, 0.1 if wanted else 3))
            process.kill()
            process.communicate()
        now = calls()[len(before) :]
        twice = restored.intersection(now)
        assert len(twice) <= 2 and len(set(now)) == len(now)  # the one being restored and the one being written
        again += len(twice)
        restored.update(now)
        assert results().items() <= photographs.items()
        for name in results():
            status = Path('out', name).stat()
            assert seen.setdefault(name, (status.st_ino, status.st_mtime_ns)) == (status.st_ino, status.st_mtime_ns)
    assert results() == photographs
    done = [line['output'] for line in lines() if line['status'] == 'restored']
    assert len(done) == len(set(done))
    assert len(calls()) == 30 + again
    sys.stderr.write(f'{KILLS} kills: {again} images were being restored or written, and restored again\n')


def test_two_processes_lose_nothing(photographs, here):
    for process in [start(here, '-o', 'out', '--log', 'log.jsonl') for _ in range(2)]:
        finished(process)
    assert results() == photographs
    found = lines()
    assert len(found) == 60 and all(line['status'] in ('restored', 'skipped') for line in found)
    assert len({line['output'] for line in found if line['status'] == 'restored'}) == 30


def test_stopped_and_continued(photographs, here):
    process = start(here, '-o', 'out', '--report', 'page.html')
    wait_for(3, process)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130, err
    done = len(results())
    message = f'interrupted: {done} of 30 images are restored, the same command goes on from there'
    assert err.splitlines()[-1] == message
    assert len(files('out')) == done < 30
    assert results().items() <= photographs.items()
    assert Path('page.html').read_text().count('<article>') == done
    restore_paths('photos', 'out', 'weights', device='cpu', report='page.html')
    assert results() == photographs
    assert Path('page.html').read_text().count('<article>') == 30
