"""With `val.save_img` every restored image is saved: folders, sources and data sets apart."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.models.lorair_model import RestorationModel
from lorair_arch.models.validation import name_of, place_of
from lorair_arch.training import test as testing
from lorair_arch.training import train as training
from tests.miniature import as_test, stage, write_options
from tests.photos import photo, write

NOISES = [{'dataroot_gt': 'set', 'degrade': {'type': 'noise', 'sigma': sigma}} for sigma in (15, 25, 50)]


@pytest.fixture(autouse=True)
def unrestored(monkeypatch):
    """Saves the degraded images themselves, so that each is known again."""
    monkeypatch.setattr(RestorationModel, 'test', lambda self: setattr(self, 'output', self.lq))


def scenes(*names):
    for i, name in enumerate(names):
        write(Path('set', f'{name}.png'), photo(i, 24, 28))


def degraded(sources):
    """Gives the degraded images of a data set, 8 bits."""
    dataset = AllInOneDataset({'name': 'x', 'phase': 'val', 'seed': 3, 'sources': sources})
    return [np.rint(sample['lq'].numpy() * 255).astype(np.uint8).transpose(1, 2, 0) for sample in dataset]


def check(folder, expected):
    """Compares all images in a folder, in the order of `expected`, with pixels."""
    found = {str(path.relative_to(folder)) for path in Path(folder).rglob('*.*')}
    assert found == set(expected)
    for name, image in expected.items():
        np.testing.assert_array_equal(cv2.imread(str(Path(folder, name)))[..., ::-1], image)


def run_test(sources, suffix=None):
    opt = as_test(stage('pretrain'))
    opt['datasets']['test']['sources'] = sources
    opt['val']['suffix'] = suffix
    testing.run(write_options(Path(), opt))


def test_folders_and_noise_levels_are_kept_apart_in_tests(here):
    scenes('GOPR1/000001', 'GOPR2/000001', '000001')
    run_test(NOISES, 'x')
    names = [f'noise/{i}/{name}_x.png' for i in (1, 2, 3) for name in ('000001', 'GOPR1/000001', 'GOPR2/000001')]
    check('results/pretrain/visualization/tiny_val', dict(zip(names, degraded(NOISES), strict=True)))
    records = json.loads(Path('results/pretrain/metrics_tiny_val.json').read_text())['images']
    assert [f'{record["name"]}_x.png' for record in records] == names


def test_one_source_of_a_degradation_has_no_number(here):
    scenes('a', 'sub/a')
    rain = {'dataroot_gt': 'set', 'degrade': {'type': 'rain'}}
    run_test([NOISES[0], rain])
    names = [f'{kind}/{name}_pretrain.png' for kind in ('noise', 'rain') for name in ('a', 'sub/a')]
    check('results/pretrain/visualization/tiny_val', dict(zip(names, degraded([NOISES[0], rain]))))


@pytest.mark.parametrize('several', [False, True])
def test_folders_noise_levels_and_sets_are_kept_apart_in_training(here, several):
    scenes('GOPR1/1', 'GOPR2/1')
    opt = stage('pretrain')
    opt['val'] |= {'val_freq': 1, 'save_img': True}
    opt['datasets']['val']['sources'] = NOISES
    sets = ['']
    if several:
        opt['datasets']['val_2'] = {**opt['datasets']['val'], 'name': 'again', 'sources': NOISES[:1]}
        sets = ['tiny_val/', 'again/']
    training.run(write_options(here, opt), force_yml=['train:total_iter=1'])
    names = [f'{sets[0]}noise/{i}/GOPR{j}/1/1_1.png' for i in (1, 2, 3) for j in (1, 2)]
    expected = dict(zip(names, degraded(NOISES), strict=True))
    if several:
        expected |= dict(zip([f'again/noise/GOPR{j}/1/1_1.png' for j in (1, 2)], degraded(NOISES[:1])))
    check('experiments/pretrain/visualization', expected)


def test_data_sets_of_basicsr_keep_their_folders(here):
    """Of the same name in two folders, by a list of files."""
    scenes('GOPR1/1', 'GOPR2/1')
    Path('list.txt').write_text('GOPR1/1.png (24,28,3)\nGOPR2/1.png (24,28,3)\n')
    opt = as_test(stage('pretrain'))
    opt['datasets']['test'] = {
        'name': 'single', 'type': 'SingleImageDataset', 'dataroot_lq': 'set', 'meta_info_file': 'list.txt',
        'io_backend': {'type': 'disk'},
    }  # fmt: skip
    testing.run(write_options(here, opt))
    folder = 'results/pretrain/visualization/single'
    check(folder, {f'GOPR{i}/1_pretrain.png': photo(i - 1, 24, 28) for i in (1, 2)})


@pytest.mark.parametrize(
    ('path', 'root', 'name'),
    [
        ('data/lq/a.png', 'data/lq', 'a'),
        ('data/lq/sub/a.b.JPG', './data/lq/', 'sub/a.b'),
        ('sub/a.1', 'data/lq.lmdb', 'sub/a.1'),  # the key of an LMDB
        ('/elsewhere/a.png', 'data/lq', 'a'),
        ('a.png', None, 'a'),
    ],
)
def test_names_of_other_data_sets(path, root, name):
    assert name_of({'lq_path': [path]}, {'dataroot_lq': root}) == name


@pytest.mark.parametrize('is_train', [True, False])
def test_names_too_long_for_the_suffix_are_cut_and_still_differ(is_train):
    opt = {'name': 'n', 'is_train': is_train, 'path': {'visualization': 'v'}, 'val': {}, 'datasets': {}}
    names = ['ü' * 125 + letter for letter in 'ab']
    places = [place_of(opt, 'set', name, 200_000) for name in names]
    assert len(set(places)) == 2
    assert all(len(place.name.encode()) <= 255 for place in places)
