"""One file for all that restores: saved, loaded by this package and by spandrel, converted, and damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file as save_safetensors

import lorair_arch
from lorair_arch import Restorer, cli
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.errors import CheckpointError, LoRAIRError, OutputError
from lorair_arch.weights.convert import convert
from tests.tiny import LORA, NAMES, PLAIN, ROUTER, perturbed, photo, save_weights

spandrel = pytest.importorskip('spandrel')

RESNET = {'image_size': 32, 'layers': [1, 1, 1, 1], 'width': 8}
ROUTERS = {
    'transformer': ROUTER,
    'ResNet, other grid': {
        'clip_model': {'embed_dim': 16, 'vision_cfg': RESNET},
        'num_degradations': 3,
        'clip_grid': 3,
    },
}
NETS = {'plain': PLAIN, 'experts': LORA, 'local means': LORA | {'local_pool_size': (16, 16)}}


@pytest.fixture(params=ROUTERS)
def router(request):
    return perturbed(DegradationRouter(**ROUTERS[request.param]))


@pytest.fixture(params=NETS)
def net(request):
    return perturbed(LoRAIR(**NETS[request.param]))


@pytest.fixture
def saved(tmp_path):
    """A folder of weights, and the restorer that was saved there."""
    restorer = Restorer.from_pretrained(save_weights(tmp_path / 'parts'), 'cpu')
    restorer.save_pretrained(tmp_path / 'saved')
    return tmp_path / 'saved', restorer


def test_a_saved_restorer_is_the_same(router, net, tmp_path):
    restorer = Restorer(router, net, NAMES, 'cpu')
    restorer.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ['README.md', 'config.json', 'model.safetensors']
    for path in (tmp_path, tmp_path / 'model.safetensors'):
        loaded = Restorer.from_pretrained(path, 'cpu')
        assert loaded.names == NAMES
        np.testing.assert_array_equal(loaded(photo()), restorer(photo()))
    config = json.loads((tmp_path / 'config.json').read_text())
    assert config['degradations'] == NAMES
    assert (config['router']['type'], config['restorer']['type']) == ('DegradationRouter', 'LoRAIR')


def test_the_model_card_says_what_it_is(saved):
    card = (saved[0] / 'README.md').read_text()
    assert card.startswith('---\nlibrary_name: lorair\npipeline_tag: image-to-image\n')
    assert 'noise, rain, haze' in card and '3 low-rank experts' in card and 'lorair restore' in card


def test_files_that_exist_are_kept(saved):
    folder, restorer = saved
    (folder / 'model.safetensors').unlink()
    before = (folder / 'README.md').read_bytes()
    with pytest.raises(OutputError, match="config.json' exists already"):
        restorer.save_pretrained(folder)
    assert not (folder / 'model.safetensors').exists()  # nothing was written before all was known
    restorer.save_pretrained(folder, overwrite=True)
    assert (folder / 'README.md').read_bytes() == before


def test_an_old_file_after_a_round_trip(tmp_path):
    """Weights in parts become one file, which becomes parts again."""
    parts = save_weights(tmp_path / 'parts')
    expected = Restorer.from_pretrained(parts, 'cpu')
    report = convert([parts], tmp_path / 'whole.safetensors')
    assert 'a degradation router for 3 degradations' in report and 'noise, rain, haze' in report
    convert([parts], tmp_path / 'whole.pth', half=True, degradations=['a', 'b', 'c'])
    whole = Restorer.from_pretrained(tmp_path / 'whole.safetensors', 'cpu')
    np.testing.assert_array_equal(whole(photo()), expected(photo()))
    halved = Restorer.from_pretrained(tmp_path / 'whole.pth', 'cpu')
    assert halved.names == ['a', 'b', 'c']
    np.testing.assert_allclose(halved(photo()).astype(int), expected(photo()), atol=2)
    whole.save_pretrained(tmp_path / 'again')
    np.testing.assert_array_equal(Restorer.from_pretrained(tmp_path / 'again', 'cpu')(photo()), expected(photo()))


def test_the_experts_of_one_file_can_be_merged(saved, tmp_path, capsys):
    folder, restorer = saved
    command = ['export', str(folder), str(tmp_path / 'rain.safetensors'), '--degradation', 'rain']
    assert cli.lorair(command) == 0, capsys.readouterr().err
    plain = Restorer.from_pretrained([tmp_path / 'rain.safetensors', tmp_path / 'parts/router.pth'], 'cpu')
    np.testing.assert_array_equal(plain(photo()), restorer(photo(), 'rain'))


def test_a_file_whose_options_were_lost_still_loads(saved, tmp_path):
    """As another program may have saved it; a vision transformer and the restorer are told by their shapes."""
    folder, restorer = saved
    weights = load_file(folder / 'model.safetensors')
    del weights['config_json']
    save_safetensors(weights, tmp_path / 'bare.safetensors')
    bare = Restorer.from_pretrained(tmp_path / 'bare.safetensors', 'cpu')
    assert bare.names == ['0', '1', '2']
    assert bare(photo()).shape == photo().shape


def without(key):
    return lambda weights: weights.pop(key)


def put(key, value):
    return lambda weights: weights.update({key: value})


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (put('config_json', torch.tensor([123], dtype=torch.uint8)), 'is damaged: its config_json is no JSON'),
        (put('config_json', torch.tensor(list(b'[]'), dtype=torch.uint8)), 'its config_json is no mapping'),
        (put('more.weight', torch.ones(1)), "holds a router, a restorer and 'more.weight', which is of neither"),
        (without('router.clip.proj'), 'missing are 1 of the network'),
        (without('restorer.ending.weight'), 'missing are 1 of the network'),
        (put('restorer.more', torch.ones(1)), r'unknown to the network: 1 \(more\)'),
        (put('restorer.ending.bias', torch.full((3,), torch.nan)), 'undefined numbers in ending.bias'),
    ],
)
def test_a_damaged_file_is_named(saved, tmp_path, spoil, message):
    weights = load_file(saved[0] / 'model.safetensors')
    spoil(weights)
    save_safetensors(weights, tmp_path / 'damaged.safetensors')
    with pytest.raises(CheckpointError, match=f'damaged.safetensors .*{message}'):
        Restorer.from_pretrained(tmp_path / 'damaged.safetensors', 'cpu')
    lorair_arch.register_spandrel()
    with pytest.raises(spandrel.UnsupportedModelError, match=f'LoRA-IR: the file .*{message}'):
        spandrel.ModelLoader('cpu').load_from_file(tmp_path / 'damaged.safetensors')


def test_two_wholes_are_too_many(saved, tmp_path):
    with pytest.raises(CheckpointError, match='there are two routers, .*router.pth and .*model.safetensors'):
        Restorer.from_pretrained([tmp_path / 'parts/router.pth', saved[0]], 'cpu')


# ---- spandrel


def loaded_by_spandrel(path):
    lorair_arch.register_spandrel()
    lorair_arch.register_spandrel()  # once more does no harm
    return spandrel.ModelLoader('cpu').load_from_file(path)


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_spandrel_gives_the_pixels_of_the_restorer(router, net, tmp_path, suffix):
    restorer = Restorer(router, net, NAMES, 'cpu')
    restorer.save_pretrained(tmp_path)
    file = tmp_path / f'model{suffix}'
    if suffix == '.pth':
        convert([tmp_path], file)
    model = loaded_by_spandrel(file)
    assert isinstance(model, spandrel.ImageModelDescriptor)
    assert (model.architecture.id, model.purpose, model.scale) == ('LoRA-IR', 'Restoration', 1)
    assert (model.input_channels, model.output_channels) == (3, 3)
    for size in ((37, 50), (64, 64), (1, 3)):
        image = photo(*size, np.float32)
        with torch.inference_mode():
            restored = model(torch.from_numpy(image).permute(2, 0, 1)[None])
        np.testing.assert_allclose(restored[0].permute(1, 2, 0), restorer(image), atol=1e-5)


@pytest.mark.parametrize('part', ['router', 'base', 'experts'])
def test_spandrel_says_what_a_part_lacks(tmp_path, part):
    parts = save_weights(tmp_path)
    what = {'router': 'a degradation router', 'base': 'a LoRA-IR restorer', 'experts': '3 low-rank experts'}[part]
    convert([parts / f'{part}.pth'], tmp_path / 'part.safetensors')
    with pytest.raises(spandrel.UnsupportedModelError, match=f'This is {what}.*, a part of LoRA-IR: make one file'):
        loaded_by_spandrel(tmp_path / 'part.safetensors')


def test_spandrel_does_not_take_other_files_for_ours(tmp_path):
    lorair_arch.register_spandrel()
    save_safetensors({'x.weight': torch.ones(3)}, tmp_path / 'x.safetensors')
    with pytest.raises(spandrel.UnsupportedModelError) as error:
        loaded_by_spandrel(tmp_path / 'x.safetensors')
    assert 'LoRA-IR' not in str(error.value)


def test_without_spandrel(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'spandrel', None)
    with pytest.raises(LoRAIRError, match='spandrel is not installed: pip install spandrel'):
        lorair_arch.register_spandrel()
