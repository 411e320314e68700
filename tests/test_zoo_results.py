"""The results of the zoo: every number is what it says, classical methods are measured once, mistakes are named."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from lorair_arch import Restorer
from lorair_arch.options.yaml_file import read_yaml
from tests.photos import photo, write, write_pairs
from tests.tiny import save_weights

BENCHMARK = Path(__file__).parents[1] / 'scripts' / 'benchmark'


@pytest.fixture
def load(monkeypatch):
    """Imports a file of scripts/benchmark by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARK))
    return importlib.import_module


@pytest.fixture
def run(load, tmp_path, monkeypatch, capsys):
    """Data and weights in a folder to work in, and the command; gives its exit code, table and messages."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / 'data/derain/Rain100L')
    for i in range(3):
        write(tmp_path / f'data/clean/val/gt/{i}.png', photo(10 + i))
        write(tmp_path / f'data/clean/train/gt/{i}.png', photo(20 + i))
        write(tmp_path / f'data/unpaired/daclip_real_mix/lq/{i}.png', photo(30 + i))
    cv2.imwrite(str(write(tmp_path / 'data/jpeg/classic5/gt/a.png', photo())), photo()[..., 0])
    save_weights(tmp_path / 'weights')

    def main(*args: str, data: str = 'data', script: str = 'zoo_results'):
        monkeypatch.setattr('sys.argv', [script, '--data', data, *args])
        code = load(script).main()
        return code, *capsys.readouterr()

    return main


def ours(*args: str) -> tuple[str, ...]:
    return '--weights', 'weights', '--json', 'results.json', *args


def results() -> dict:
    return json.loads(Path('results.json').read_text())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """The SSIM of Wang et al.: a Gaussian window, no padding."""
    settings = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False, 'data_range': 255}
    axis = {'channel_axis': 2} if a.ndim == 3 else {}
    return structural_similarity(a, b, full=True, **settings, **axis)[1][5:-5, 5:-5].mean()


def agree(scores: dict, image: np.ndarray, gt: np.ndarray) -> None:
    assert scores['psnr'] == pytest.approx(psnr(image, gt))
    assert scores['ssim'] == pytest.approx(ssim(image, gt), abs=1e-6)


def test_pairs_are_measured_as_by_hand(run):
    code, table, errors = run(*ours('--only', 'rain100l', '--no-peers'))
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


def test_grey_images_are_compressed_and_measured_in_grey(run):
    assert run(*ours('--only', 'classic5_20', '--no-peers'))[0] == 0
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


def test_every_draw_depends_on_the_set_and_the_image_alone(run, load):
    sets, zoo_sets = load('zoo_sets').all_sets(), load('zoo_sets')

    def draws(name, limit=None):
        images = zoo_sets.OpenSet(sets[name], Path('data'), limit)
        return {sample.name: sample.lq for sample in images}

    noisy = draws('val_noise')
    assert list(noisy) == ['0', '1', '2']
    for name, lq in draws('val_noise', limit=2).items():
        np.testing.assert_array_equal(lq, noisy[name])
    errors = [noisy[str(i)].astype(float) - photo(10 + i) for i in range(3)]
    assert np.std(errors[0]) == pytest.approx(25, rel=0.2)  # less, where it is clipped
    assert abs(np.corrcoef(errors[0].ravel(), errors[1].ravel())[0, 1]) < 0.1
    other = draws('val_blur+noise')['0'].astype(float) - photo(10)
    assert abs(np.corrcoef(errors[0].ravel(), other.ravel())[0, 1]) < 0.1


def test_validation_photographs_are_degraded_as_in_the_recipe(load):
    (recipe,) = (BENCHMARK.parents[1] / 'options/zoo').glob('*_pretrain.yml')
    datasets, sets = read_yaml(recipe)['datasets'], load('zoo_sets').all_sets()
    for source in datasets['val']['sources']:
        image_set = sets[f'val_{source["degradation"]}']
        assert (image_set.troubles, image_set.degrade) == ((source['degradation'],), source['degrade'])
    trained = [source['degrade'] for source in datasets['train']['sources']]
    pairs = [image_set for image_set in sets.values() if len(image_set.troubles) == 2 and image_set.degrade]
    assert len(pairs) == 4
    for image_set in pairs:
        assert list(image_set.degrade) in trained
        assert image_set.troubles == tuple(step['type'] for step in image_set.degrade)


def test_clean_images_are_identical_and_still_averaged(run):
    code, table, _ = run(*ours('--only', 'val_clean', '--no-peers'))
    assert code == 0
    assert '| val_clean | 3 | identical / 1.000 | - | ' in table
    assert results()['sets']['val_clean']['input'] == {'psnr': None, 'ssim': pytest.approx(1)}


def test_pairs_of_troubles_count_either_as_right(run):
    assert run(*ours('--only', 'val_haze+rain'))[0] == 0
    result = results()['sets']['val_haze+rain']
    for image in result['images']:
        best = max(image['probabilities'], key=image['probabilities'].get)
        assert image['recognised'] == (best in ('haze', 'rain'))
        assert 'forced' not in image
        assert list(image['peers']) == ['guided + dark channel']


def test_classical_methods_are_measured_once(run, load, monkeypatch):
    classical = load('classical')
    assert run('--json', 'results.json', '--only', 'rain100l', '--no-ours')[0] == 0
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
    code, table, _ = run(*ours('--only', 'rain100l', '--limit', '2'))
    after = results()['sets']['rain100l']
    assert (code, calls) == (0, [])
    assert [image['name'] for image in after['images']] == ['img1', 'img2']
    assert [image['peers'] for image in after['images']] == [image['peers'] for image in before['images'][:2]]
    assert 'ours' in after
    mean = np.mean([image['peers']['median']['psnr'] for image in before['images'][:2]])
    assert f'median {mean:.2f} / ' in table

    write(Path('data/derain/Rain100L/lq/img2.png'), photo(7))
    run('--json', 'results.json', '--only', 'rain100l', '--no-ours')
    assert len(calls) == 1
    np.testing.assert_array_equal(calls[0], photo(7))


def test_an_interrupted_run_goes_on_where_it_was(run, load, monkeypatch):
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
        run('--json', 'results.json', '--only', 'rain100l', '--no-ours')
    assert results()['sets'] == {}
    assert run('--json', 'results.json', '--only', 'rain100l', '--no-ours')[0] == 0
    assert len(measured) == 2 + 2  # the second image again, and the third
    assert len(results()['sets']['rain100l']['images']) == 3


def test_sets_that_are_not_measured_anew_stay(run):
    assert run(*ours('--only', 'rain100l', '--no-peers'))[0] == 0
    before = results()
    assert run(*ours('--only', 'val_haze', '--no-peers'))[0] == 0
    assert list(results()['sets']) == ['rain100l', 'val_haze']
    assert results()['sets']['rain100l'] == before['sets']['rain100l']


def test_missing_sets_are_skipped_and_said(run):
    shutil.rmtree('data/clean')
    code, table, errors = run('--weights', 'weights', '--no-peers')
    assert code == 0
    assert [line.split('|')[1].strip() for line in table.splitlines()[4:]] == [
        'rain100l',
        'classic5_10',
        'classic5_20',
        'classic5_40',
    ]
    assert "skipped val_rain: folder 'data/clean/val/gt' does not exist" in errors
    assert len(errors.splitlines()) == 28 - 4
    code, _, errors = run('--weights', 'weights', '--no-peers', data='weights')
    assert code == 2
    assert errors.endswith(
        "error: --data: none of the sets is in 'weights'; scripts/benchmark/zoo_sets.py says what it must hold\n"
    )


def test_sheets_show_the_best_and_the_worst(run, load, monkeypatch):
    monkeypatch.setattr(load('zoo_sheets'), '_CELL', 40)  # the width of the photographs: they are not resampled
    code, _, errors = run(*ours('--only', 'rain100l', 'real_mix', '--sheets', 'sheets'))
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
def test_mistakes_are_named(run, args, message):
    Path('other.json').write_text('[1, 2]')
    args = [*(['--weights', 'weights'] if '--weights' not in args else []), *args]
    if '--no-ours' not in args and '--no-peers' not in args:
        args.append('--no-peers')
    code, table, errors = run(*args)
    assert (code, table) == (2, '')
    assert errors.startswith(f'error: {message}')
    assert len(errors.splitlines()) == 1
    assert Path('other.json').read_text() == '[1, 2]'


def test_says_which_package_is_missing(run, load, monkeypatch):
    monkeypatch.setattr(load('classical').importlib.util, 'find_spec', lambda name: None)
    code, table, errors = run('--weights', 'weights')
    assert (code, table) == (2, '')
    assert errors == (
        "error: BM3D needs the package bm3d: install it with pip install -e '.[benchmark]' -c constraints.txt, or "
        'leave the classical methods out with --no-peers\n'
    )


def test_real_kernels_blur(run, load):
    h5py = pytest.importorskip('h5py', reason='an extra of the benchmark')
    kernel = np.zeros((5, 3))
    kernel[0, 0] = kernel[4, 2] = 2  # the sum is made 1
    Path('data/deblur/kernels').mkdir(parents=True)
    with h5py.File('data/deblur/kernels/Levin09.mat', 'w') as file:
        file['one'] = kernel.T  # as MATLAB writes it
        file.create_dataset('kernels', data=np.array([[file['one'].ref]], h5py.ref_dtype))
    write(Path('data/denoise/CBSD68/gt/a.png'), photo())
    zoo_sets = load('zoo_sets')
    zoo_sets._kernels.cache_clear()
    sample = zoo_sets.OpenSet(zoo_sets.all_sets()['cbsd68_shaken'], Path('data'))[0]
    expected = (photo()[:-4, :-2].astype(float) + photo()[4:, 2:]) / 2
    assert np.abs(sample.lq[2:-2, 1:-1] - expected).max() <= 0.51


@pytest.mark.parametrize('trouble', ['noise', 'rain', 'haze', 'blur', 'lowlight', 'jpeg'])
def test_classical_methods_help(run, load, trouble):
    skimage = pytest.importorskip('skimage')
    coffee = cv2.imread(str(Path(skimage.__file__).parent / 'data' / 'coffee.png'))[100:220, 200:340]
    cv2.imwrite('data/clean/val/gt/0.png', coffee)
    image_set = load('zoo_sets').all_sets()[f'val_{trouble}']
    if trouble == 'blur':  # against long paths nothing helps that does not know them
        image_set = dataclasses.replace(image_set, degrade={'type': 'blur', 'sigma': 2})
    sample = load('zoo_sets').OpenSet(image_set, Path('data'), 1)[0]
    before = psnr(sample.lq, sample.gt)
    for peer in load('classical').peers_of(image_set.troubles, image_set.sigma):
        for package in peer.needs:
            pytest.importorskip(package, reason='an extra of the benchmark')
        given = sample.lq.copy()
        restored = peer(given)
        np.testing.assert_array_equal(given, sample.lq)
        assert restored.dtype == np.uint8
        assert restored.shape == sample.gt.shape
        assert psnr(restored, sample.gt) > before, peer.name


def test_tunes_on_other_photographs(run):
    shutil.rmtree('data/clean/val')
    code, table, errors = run('--only', 'median', '--images', '2', script='tune_classical')
    assert (code, errors) == (0, '')
    assert table.startswith("median: {'size': ")
    code, _, errors = run('--only', 'mediam', script='tune_classical')
    assert (code, errors) == (2, "error: --only: there is no method 'mediam'; did you mean 'median'?\n")
