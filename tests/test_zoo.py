"""Weights by name, their half precision, and the recipe that makes them."""

import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from lorair_arch import Restorer, cli
from lorair_arch import weights as zoo
from lorair_arch.errors import CheckpointError
from lorair_arch.weights.convert import convert
from lorair_arch.weights.pretrained import read_weights
from tests.miniature import REPO
from tests.tiny import NAMES, save_weights


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A zoo with one animal, `lorair-tiny`; gives its folder."""
    folder = tmp_path / 'zoo/lorair-tiny'
    convert([save_weights(tmp_path / 'weights')], folder / 'model.safetensors', half=True)
    monkeypatch.setattr(zoo, '_ROOT', tmp_path / 'zoo')
    monkeypatch.chdir(tmp_path)
    return folder


def photo(size=(33, 47)):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_a_name_stands_for_its_folder(tiny):
    assert zoo.shipped() == ['lorair-tiny'] and zoo.names() == ['lorair-tiny', 'setting1']
    restorer = Restorer.from_pretrained('lorair-tiny', 'cpu')
    assert restorer.names == NAMES
    np.testing.assert_array_equal(restorer(photo()), Restorer.from_pretrained(tiny, 'cpu')(photo()))


def test_restore_needs_nothing_but_a_photograph(tiny, capsys):
    Image.fromarray(photo()).save('photo.png')
    assert cli.lorair(['restore', 'photo.png', '-o', 'out.png']) == 0, capsys.readouterr().err
    with Image.open('out.png') as restored:
        np.testing.assert_array_equal(restored, Restorer.from_pretrained('lorair-tiny')(photo()))


def test_a_path_goes_before_a_name(tiny, tmp_path):
    (tmp_path / 'lorair-tiny').mkdir()
    with pytest.raises(CheckpointError, match='folder lorair-tiny holds no weights'):
        Restorer.from_pretrained('lorair-tiny')


def test_an_unknown_name_lists_the_known_ones(tiny):
    with pytest.raises(CheckpointError) as error:
        Restorer.from_pretrained('lorair-huge')
    assert str(error.value) == (
        "'lorair-huge' is neither a file nor a folder, nor the name of weights; did you mean 'lorair-tiny'?"
    )
    with pytest.raises(CheckpointError, match='weights/x.pth does not exist: check the path'):
        Restorer.from_pretrained('weights/x.pth')


def test_half_precision_is_half_the_size_and_precise_to_three_digits(tiny, tmp_path):
    wide, half = (read_weights([path]) for path in (tmp_path / 'weights', tiny))
    wide['restorer'] = wide['restorer'].with_experts(wide.pop('experts'))
    for kind, before in wide.items():
        after = half[kind]
        assert after.options() == before.options() and after.degradations == before.degradations
        for key, value in before.state_dict.items():
            assert after.state_dict[key].dtype == (torch.float16 if value.is_floating_point() else value.dtype)
            torch.testing.assert_close(after.state_dict[key].to(value.dtype), value, rtol=1e-3, atol=1e-6)


def test_the_whole_recipe(tmp_path):
    script = ['bash', REPO / 'scripts/train_zoo.sh', '--smoke', '--out', tmp_path / 'made']
    run = subprocess.run(script, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert [file.name for file in (tmp_path / 'made').iterdir()] == ['model.safetensors']
    restorer = Restorer.from_pretrained(tmp_path / 'made', 'cpu')
    assert restorer.names == ['clean', 'noise', 'rain', 'haze', 'blur', 'lowlight', 'jpeg']
    assert restorer(photo()).shape == (33, 47, 3)


@pytest.mark.parametrize('args', [(), ('--train', 'photos'), ('--train', 'a', '--val', 'b', '--set', 'no_value')])
def test_the_recipe_says_what_it_needs(args):
    script = ['bash', REPO / 'scripts/train_zoo.sh', *args]
    run = subprocess.run(script, capture_output=True, text=True, timeout=100)
    assert run.returncode == 2
    assert 'bash scripts/train_zoo.sh --train PHOTOS --val OTHER_PHOTOS' in run.stderr


def test_the_recipe_changes_options():
    script = ['bash', REPO / 'scripts/train_zoo.sh', '--set', 'train:ema_deca=0.9', '--smoke']
    run = subprocess.run(script, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert run.returncode == 2
    assert "train:ema_deca=0.9: unknown key; did you mean 'ema_decay'?" in run.stderr
