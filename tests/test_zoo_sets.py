"""The sets that the zoo is measured on, how they are degraded, and the classical methods against that."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from lorair_arch.options.yaml_file import read_yaml
from tests.photos import photo, write
from tests.zoo import BENCHMARK, psnr


def test_every_draw_depends_on_the_set_and_the_image_alone(zoo, load):
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


def test_real_kernels_blur(zoo, load):
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
def test_classical_methods_help(zoo, load, trouble):
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


def test_tunes_on_other_photographs(zoo):
    shutil.rmtree('data/clean/val')
    code, table, errors = zoo('--only', 'median', '--images', '2', script='tune_classical')
    assert (code, errors) == (0, '')
    assert table.startswith("median: {'size': ")
    code, _, errors = zoo('--only', 'mediam', script='tune_classical')
    assert (code, errors) == (2, "error: --only: there is no method 'mediam'; did you mean 'median'?\n")
