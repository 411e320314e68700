"""The results of the zoo: every number is what it says, classical methods are measured once, mistakes are named."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from lorair_arch import Restorer
from tests.photos import photo, write
from tests.zoo import agree, ours, results


def test_pairs_are_measured_as_by_hand(zoo):
    code, table, errors = zoo(*ours('--only', 'rain100l', '--no-peers'))
    assert (code, errors) == (0, '')
    result, restorer = results()['sets']['rain100l'], Restorer.from_pretrained('weights', 'cpu')
    assert [image['name'] for image in result['images']] == ['img1', 'img2', 'img10']
    for seed, image in enumerate(result['images']):
        gt = photo(seed)
        lq = gt[::-1]
        agree(image['input'], lq, gt)
        agree(image['ours'], restorer(lq), gt)
        agree(image['forced'], restorer(lq, 'rain'), gt)
        seen = restorer.degradations(lq)
        assert image['probabilities'] == pytest.approx(seen)
        assert image['recognised'] == (max(seen, key=seen.get) == 'rain')
        assert image['megapixels'] == 48 * 40 / 1e6
        assert image['peers'] == {}
        assert image['ours']['seconds'] > 0
    for part in ('input', 'ours', 'forced'):
        for metric in ('psnr', 'ssim'):
            values = [image[part][metric] for image in result['images']]
            assert result[part][metric] == pytest.approx(np.mean(values))
    seconds = sum(image['ours']['seconds'] for image in result['images'])
    assert result['ours']['seconds_per_megapixel'] == pytest.approx(seconds / (3 * 48 * 40 / 1e6))
    assert result['router_accuracy'] == np.mean([image['recognised'] for image in result['images']])
    assert result['peak_bytes'] > 48 * 40 * 16 * 4  # one map of features of the tiny network
    assert result['weights'] == 'weights'
    assert result['machine']['device'] == 'cpu'
    row = table.splitlines()[-1]
    cells = [f'{result[part]["psnr"]:.2f} / {result[part]["ssim"]:.3f}' for part in ('input', 'ours', 'forced')]
    assert row.startswith(f'| rain100l | 3 | {cells[0]} | - | {cells[1]} (')
    assert f') | {cells[2]} | {result["router_accuracy"]:.0%} | ' in row


def test_grey_images_are_compressed_and_measured_in_grey(zoo):
    assert zoo(*ours('--only', 'classic5_20', '--no-peers'))[0] == 0
    result = results()['sets']['classic5_20']
    gt = photo()[..., 0]
    _, content = cv2.imencode('.jpg', gt, [cv2.IMWRITE_JPEG_QUALITY, 20])
    lq = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    agree(result['images'][0]['input'], lq, gt)
    restored = Restorer.from_pretrained('weights', 'cpu')(lq)
    agree(result['images'][0]['ours'], restored, gt)
    # the tiny weights know no JPEG: there is nothing to recognise, and no right expert
    assert not {'recognised', 'forced'} & set(result['images'][0])
    assert 'router_accuracy' not in result


def test_clean_images_are_identical_and_still_averaged(zoo):
    code, table, _ = zoo(*ours('--only', 'val_clean', '--no-peers'))
    assert code == 0
    assert '| val_clean | 3 | identical / 1.000 | - | ' in table
    assert results()['sets']['val_clean']['input'] == {'psnr': None, 'ssim': pytest.approx(1)}


def test_pairs_of_troubles_count_either_as_right(zoo):
    assert zoo(*ours('--only', 'val_haze+rain'))[0] == 0
    result = results()['sets']['val_haze+rain']
    for image in result['images']:
        best = max(image['probabilities'], key=image['probabilities'].get)
        assert image['recognised'] == (best in ('haze', 'rain'))
        assert 'forced' not in image
        assert list(image['peers']) == ['guided + dark channel']


def test_classical_methods_are_measured_once(zoo, load, monkeypatch):
    classical = load('classical')
    assert zoo('--json', 'results.json', '--only', 'rain100l', '--no-ours')[0] == 0
    before = results()['sets']['rain100l']
    assert 'ours' not in before
    for seed, image in enumerate(before['images']):
        gt = photo(seed)
        agree(image['peers']['median'], cv2.medianBlur(np.ascontiguousarray(gt[::-1]), 3), gt)
    calls = []

    @functools.wraps(classical.median)
    def median(image):
        calls.append(image)
        return image

    monkeypatch.setattr(classical, 'median', median)
    code, table, _ = zoo(*ours('--only', 'rain100l', '--limit', '2'))
    after = results()['sets']['rain100l']
    assert (code, calls) == (0, [])
    assert [image['name'] for image in after['images']] == ['img1', 'img2']
    assert [image['peers'] for image in after['images']] == [image['peers'] for image in before['images'][:2]]
    assert 'ours' in after
    mean = np.mean([image['peers']['median']['psnr'] for image in before['images'][:2]])
    assert f'median {mean:.2f} / ' in table

    write(Path('data/derain/Rain100L/lq/img2.png'), photo(7))
    zoo('--json', 'results.json', '--only', 'rain100l', '--no-ours')
    assert len(calls) == 1
    np.testing.assert_array_equal(calls[0], photo(7))


def test_an_interrupted_run_goes_on_where_it_was(zoo, load, monkeypatch):
    monkeypatch.setattr(load('zoo_file'), '_WRITE_EVERY', 0)
    classical, measured = load('classical'), []

    @functools.wraps(classical.median)
    def median(image):
        measured.append(image)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return image

    monkeypatch.setattr(classical, 'median', median)
    with pytest.raises(KeyboardInterrupt):
        zoo('--json', 'results.json', '--only', 'rain100l', '--no-ours')
    assert results()['sets'] == {}
    assert zoo('--json', 'results.json', '--only', 'rain100l', '--no-ours')[0] == 0
    assert len(measured) == 2 + 2  # the second image again, and the third
    assert len(results()['sets']['rain100l']['images']) == 3


def test_sets_that_are_not_measured_anew_stay(zoo):
    assert zoo(*ours('--only', 'rain100l', '--no-peers'))[0] == 0
    before = results()
    assert zoo(*ours('--only', 'val_haze', '--no-peers'))[0] == 0
    assert list(results()['sets']) == ['rain100l', 'val_haze']
    assert results()['sets']['rain100l'] == before['sets']['rain100l']


def test_missing_sets_are_skipped_and_said(zoo, load):
    shutil.rmtree('data/clean')
    code, table, errors = zoo('--weights', 'weights', '--no-peers')
    assert code == 0
    assert [line.split('|')[1].strip() for line in table.splitlines()[4:]] == [
        'rain100l',
        'classic5_10',
        'classic5_20',
        'classic5_40',
    ]
    assert "skipped val_rain: folder 'data/clean/val/gt' does not exist" in errors
    assert len(errors.splitlines()) == sum(s.paired for s in load('zoo_sets').all_sets().values()) - 4
    code, _, errors = zoo('--weights', 'weights', '--no-peers', data='weights')
    assert code == 2
    assert errors.endswith(
        "error: --data: none of the sets is in 'weights'; scripts/benchmark/zoo_sets.py says what it must hold\n"
    )


def test_sheets_show_the_best_and_the_worst(zoo, load, monkeypatch):
    monkeypatch.setattr(load('zoo_sheets'), '_CELL', 40)  # the width of the photographs: they are not resampled
    code, _, errors = zoo(*ours('--only', 'rain100l', 'real_mix', '--sheets', 'sheets'))
    assert (code, errors) == (0, '')

    def rows_of(sheet, image):
        height, width = image.shape[:2]
        corners = np.argwhere((sheet == image[0, 0]).all(-1))
        return [y for y, x in corners.tolist() if np.array_equal(sheet[y : y + height, x : x + width], image)]

    images = results()['sets']['rain100l']['images']
    gains = [image['ours']['psnr'] - image['input']['psnr'] for image in images]
    sheet = cv2.imread('sheets/rain100l.png')[..., ::-1]
    restorer = Restorer.from_pretrained('weights', 'cpu')
    tops = []
    for seed in np.argsort(gains)[::-1]:
        rows = [rows_of(sheet, image) for image in (photo(seed)[::-1], restorer(photo(seed)[::-1]), photo(seed))]
        assert len(rows[0]) == 1
        assert rows == [rows[0]] * 3
        tops += rows[0]
    assert tops == sorted(tops)
    mix = cv2.imread('sheets/real_mix.png')[..., ::-1]
    for seed in (30, 31, 32):
        assert rows_of(mix, photo(seed)) == rows_of(mix, restorer(photo(seed))) != []
    assert 'real_mix' not in results()['sets']


@pytest.mark.parametrize(
    'args, message',
    [
        (['--only', 'rain100'], "--only: there is no set 'rain100'; did you mean 'rain100l'?"),
        (['--weights', 'lorair-huge'], "'lorair-huge' is neither a file nor a folder, nor the name of weights"),
        (['--limit', '0'], '--limit is 0, but at least one image must be measured'),
        (['--no-ours', '--no-peers'], '--no-ours goes not with --no-peers, and nothing is left to measure'),
        (['--no-ours', '--sheets', 's'], '--no-ours goes not with --sheets, which shows ours'),
        (['--json', 'other.json'], "--json: 'other.json' holds something else than results: name another file"),
        (['--json', 'other.json/results.json'], "output folder 'other.json' cannot be made: 'other.json' is no folder"),
        (
            ['--data', 'nowhere'],
            "--data: 'nowhere' is no folder; scripts/benchmark/zoo_sets.py says what it must hold",
        ),
        (['--only', 'lol_low'], '--only: lol_low has no ground truth to measure by; add --sheets FOLDER to look at it'),
    ],
)
def test_mistakes_are_named(zoo, args, message):
    Path('other.json').write_text('[1, 2]')
    args = [*(['--weights', 'weights'] if '--weights' not in args else []), *args]
    if '--no-ours' not in args and '--no-peers' not in args:
        args.append('--no-peers')
    code, table, errors = zoo(*args)
    assert (code, table) == (2, '')
    assert errors.startswith(f'error: {message}')
    assert len(errors.splitlines()) == 1
    assert Path('other.json').read_text() == '[1, 2]'


def test_says_which_package_is_missing(zoo, load, monkeypatch):
    monkeypatch.setattr(load('classical').importlib.util, 'find_spec', lambda name: None)
    code, table, errors = zoo('--weights', 'weights')
    assert (code, table) == (2, '')
    assert errors == (
        "error: BM3D needs the package bm3d: install it with pip install -e '.[benchmark]' -c constraints.txt, or "
        'leave the classical methods out with --no-peers\n'
    )
