"""`lorair data show`, and degradations one after the other."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorair_arch import cli
from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.data.degradations import build_degradation
from lorair_arch.data.images.reading import to_float
from lorair_arch.data.sheets import show_data
from lorair_arch.errors import OptionsError
from tests.miniature import stage, write_options
from tests.photos import photo, write

HAZY_RAIN = [{'type': 'haze', 'beta': 1}, {'type': 'rain', 'density': 0.01}]


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part, seeds in (('train', range(4)), ('val', range(7, 10))):
        for seed in seeds:
            write(Path(f'data/{part}_gt/{seed}.png'), photo(seed, 40, 44))
            write(Path(f'data/{part}_lq/{seed}.png'), photo(seed, 40, 44) // 2)
    return write_options(tmp_path, stage('router'))


def test_the_command_draws_a_row_for_each_degradation(options, capsys):
    assert cli.lorair(['data', 'show', '-opt', options, '-o', 'sheet.png', '--samples', '2']) == 0
    with Image.open('sheet.png') as sheet:
        two = sheet.size
    assert capsys.readouterr().err == f'sheet.png: {two[0]} x {two[1]} pixels\n'  # and nothing of BasicSR's
    assert show_data(options, samples=3).width == two[0] + 2 * (224 + 224 // 20)  # two more images and their gaps


def test_another_seed_shows_other_training_samples_but_the_same_validation(options):
    train, val = ([np.asarray(show_data(options, phase, 1, seed)) for seed in (0, 0, 1)] for phase in ('train', 'val'))
    assert np.array_equal(train[0], train[1]) and np.array_equal(val[0], val[2])
    assert not np.array_equal(train[0], train[2])


def test_mistakes(options):
    with pytest.raises(OptionsError, match='found no datasets.test, expected one of train, val'):
        show_data(options, 'test')
    with pytest.raises(OptionsError, match='samples is 0, expected 1 or more'):
        show_data(options, samples=0)


def test_steps_are_applied_in_order():
    image = to_float(photo(1, 32, 32))
    rng = np.random.default_rng(0)
    expected = build_degradation(HAZY_RAIN[1])(build_degradation(HAZY_RAIN[0])(image, rng), rng)
    assert np.array_equal(build_degradation(HAZY_RAIN)(image, np.random.default_rng(0)), expected)


def test_a_pair_needs_a_name_and_names_its_wrong_step(tmp_path):
    write(tmp_path / 'a.png', photo(1))
    source = {'dataroot_gt': str(tmp_path), 'degrade': HAZY_RAIN}
    named = AllInOneDataset({'phase': 'val', 'sources': [{**source, 'degradation': 'rain'}]})
    assert named[0]['degradation'] == 'rain'
    with pytest.raises(OptionsError, match=r'sources\[0\].degradation: missing, expected the name'):
        AllInOneDataset({'phase': 'val', 'sources': [source]})
    with pytest.raises(OptionsError, match=r'degrade\[1\].densty: unknown key'):
        build_degradation([HAZY_RAIN[0], {'type': 'rain', 'densty': 1}])
