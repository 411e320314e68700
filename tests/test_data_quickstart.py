"""The quickstart's data."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from lorair_arch.data.images.reading import to_float
from lorair_arch.data.stores import open_store
from lorair_arch.errors import DataError, OptionsError

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / 'scripts' / 'data_preparation' / 'quickstart_data.py'))
NAMES = {'noise', 'rain', 'haze', 'lowlight'}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'quickstart'
    assert SCRIPT['make_quickstart_data'](out, 96)
    return out


def stores(data, split, name):
    return [open_store(str(data / split / f'{name}_{side}.lmdb')) for side in ('lq', 'gt')]


def test_photographs_are_in_one_set_alone():
    photos = [name for names in SCRIPT['PHOTOS'].values() for name in names]
    assert len(photos) == len(set(photos)) == 9
    assert SCRIPT['PHOTOS']['test'] == ['astronaut.png', 'chelsea.png']


@pytest.mark.parametrize(('split', 'count'), [('train', 24), ('val', 2), ('test', 6)])
def test_pairs(data, split, count):
    for name in NAMES:
        lq, gt = stores(data, split, name)
        assert lq.keys == gt.keys and len(gt.keys) == count
        for key in gt.keys:
            degraded, clean = to_float(lq.load(key)), to_float(gt.load(key))
            assert degraded.shape == clean.shape and max(clean.shape) <= 96
            psnr = -10 * np.log10(np.mean((degraded - clean) ** 2))
            assert 4 < psnr < 30, (name, key, psnr)


def test_a_second_run_does_nothing_and_an_incomplete_set_is_made_again(data):
    make, broken = SCRIPT['make_quickstart_data'], data / 'test' / 'rain_lq.lmdb'
    before = (broken / 'data.mdb').stat().st_mtime_ns
    assert not make(data, 96)
    assert (broken / 'data.mdb').stat().st_mtime_ns == before
    broken.rename(data / 'elsewhere')
    assert make(data, 96)
    again, first = (SCRIPT['read_bytes'](folder / 'data.mdb') for folder in (broken, data / 'elsewhere'))
    assert again == first, 'the same images every time'


def test_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(OptionsError, match='^--size: expected at least 32 pixels, found 8$'):
        SCRIPT['make_quickstart_data'](tmp_path, 8)
    with pytest.raises(DataError, match=r"gone\.png' does not exist: scikit-image .* does not ship it"):
        SCRIPT['read_photo']('gone.png')
