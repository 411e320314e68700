"""`Restorer`: sizes, types, experts by name, weights in any form, and mistakes that are told in one sentence."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from lorair_arch import Restorer
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.data.images.reading import to_float
from lorair_arch.errors import CheckpointError, DataError, OptionsError
from lorair_arch.weights.convert import convert, export
from lorair_arch.weights.files import save_file
from tests.tiny import LORA, NAMES, PLAIN, ROUTER, photo, save, save_weights


@pytest.fixture
def weights(tmp_path):
    return save_weights(tmp_path / 'weights')


@pytest.fixture
def restorer(weights):
    return Restorer.from_pretrained(weights, 'cpu')


@pytest.mark.parametrize('size', [(1, 1), (7, 64), (37, 50)])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_keeps_size_and_type(restorer, size, dtype):
    restored = restorer(photo(*size, dtype))
    assert restored.shape == (*size, 3)
    assert restored.dtype == dtype
    if np.issubdtype(dtype, np.floating):
        assert 0 <= restored.min() <= restored.max() <= 1


def test_equals_the_networks(restorer):
    image = photo(dtype=np.float32)
    lq = torch.from_numpy(image.transpose(2, 0, 1))[None]
    with torch.inference_mode():
        logits, prior = restorer.router(lq)
        expected = restorer.net(lq, prior, logits).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(restorer(image), expected)
    probabilities = restorer.degradations(image)
    assert list(probabilities) == NAMES
    np.testing.assert_allclose(list(probabilities.values()), logits.softmax(1)[0].numpy(), rtol=1e-6)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_grey_stays_grey(restorer, dtype):
    grey = photo(channels=1, dtype=dtype)
    values = grey if dtype == np.float32 else to_float(grey)
    lq = torch.from_numpy(values.transpose(2, 0, 1)).expand(1, 3, -1, -1)
    with torch.inference_mode():
        logits, prior = restorer.router(lq)
        coloured = restorer.net(lq, prior, logits).clamp(0, 1)[0]
    assert coloured.std(0).max() > 0.001  # the network itself gives a tint
    expected = (coloured[0] + (coloured - coloured[:1]).mean(0)).numpy()
    np.testing.assert_allclose(expected, coloured.mean(0), atol=1e-6)
    if dtype != np.float32:
        expected = (expected * np.iinfo(dtype).max).round().astype(dtype)
    restored = restorer(grey)
    assert restored.dtype == dtype
    np.testing.assert_array_equal(restored, expected[..., None])
    np.testing.assert_array_equal(restorer(grey[..., 0]), expected)
    np.testing.assert_array_equal(restorer(np.repeat(grey, 3, axis=2)), np.repeat(restored, 3, axis=2))


def test_named_degradation_uses_its_expert_alone(restorer):
    image = photo(dtype=np.float32)
    results = [restorer(image, degradation=name) for name in NAMES]
    assert all(np.abs(a - b).max() > 1e-4 for i, a in enumerate(results) for b in results[:i])
    for name, result in zip(NAMES, results):
        only = Restorer(restorer.router, LoRAIR(**{**LORA, 'lora': {**LORA['lora'], 'top_k': 1}}), NAMES, 'cpu')
        only.net.load_state_dict(restorer.net.state_dict())
        np.testing.assert_allclose(only(image, degradation=name), result, atol=1e-5)


def test_averaged_weights_are_preferred(weights):
    other = {key: value + 0.01 for key, value in torch.load(weights / 'base.pth')['params'].items()}
    image = photo()
    before = Restorer.from_pretrained(weights, 'cpu')
    save(weights / 'base.pth', 'restorer', PLAIN, other)
    expected = Restorer.from_pretrained(weights, 'cpu')(image)
    params = before.net.state_dict()
    params = {key: params[key] for key in other}
    save(weights / 'base.pth', 'restorer', PLAIN, params, params_ema=other)
    assert (before(image) != expected).any()
    np.testing.assert_array_equal(Restorer.from_pretrained(weights, 'cpu')(image), expected)


def test_weights_in_any_form(weights, restorer, tmp_path):
    image = photo()
    expected = restorer(image)
    files = [weights / 'experts.pth', str(weights / 'router.pth'), weights / 'base.pth']
    np.testing.assert_array_equal(Restorer.from_pretrained(files, 'cpu')(image), expected)
    whole = tmp_path / 'whole.safetensors'  # a restorer that has its experts, as `trainable: all` saves it
    save(whole, 'restorer', LORA, restorer.net.state_dict())
    np.testing.assert_array_equal(Restorer.from_pretrained([whole, files[1]], 'cpu')(image), expected)


def test_bare_files_are_recognised_by_their_content(weights):
    image = photo()
    for name in ('router', 'base', 'experts'):
        path = weights / f'{name}.pth'
        save_file(torch.load(path)['params'], path)
    restorer = Restorer.from_pretrained(weights, 'cpu')
    assert restorer.names == ['0', '1', '2']
    assert restorer(image, degradation='1').shape == image.shape


def test_without_experts(weights):
    restorer = Restorer.from_pretrained([weights / 'router.pth', weights / 'base.pth'], 'cpu')
    assert restorer(photo()).shape == (37, 50, 3)
    with pytest.raises(OptionsError, match="degradation is 'rain', but these weights have no experts"):
        restorer(photo(), degradation='rain')


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (photo(channels=5), r'image has shape \[37, 50, 5\], expected \[H, W, C\] or \[H, W\] with 3 channels'),
        (photo()[:0], r'image has shape \[0, 50, 3\]'),
        (photo().astype(int), 'image has int64 pixels, expected uint8'),
        (photo().astype(np.float32), r'image has float32 values from 0.0 to 25\d.0, expected \[0, 1\]'),
        (np.full((4, 4, 3), np.nan), 'image has float64 values from nan to nan'),
    ],
)
def test_refuses_other_images(restorer, image, message):
    with pytest.raises(DataError, match=message):
        restorer(image)


@pytest.mark.parametrize(
    'mode', ['1', 'L', 'P', 'PA', 'LA', 'La', 'RGB', 'RGBA', 'RGBa', 'RGBX', 'CMYK', 'YCbCr', 'HSV', 'LAB', 'F']
)
def test_images_of_pillow_in_any_mode(restorer, mode):
    image = Image.fromarray(cv2.resize(photo(5, 6), (50, 37)))
    if mode == 'LAB':
        srgb, lab = ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB')
        image = ImageCms.profileToProfile(image, srgb, lab, outputMode='LAB')
        expected = np.asarray(ImageCms.profileToProfile(image, lab, srgb, outputMode='RGB'))
    elif mode == 'F':
        image = Image.fromarray(np.asarray(image.convert('L'), np.float32) / 255)
        expected = np.asarray(image)
    else:
        alpha = Image.fromarray(photo(channels=1)[..., 0])
        between = {'La': 'LA', 'RGBa': 'RGBA', 'PA': 'RGBA'}.get(mode, mode)
        image = image.convert(between)
        if 'A' in between:
            image.putalpha(alpha)
        image = image.quantize(8).convert('PA') if mode == 'PA' else image.convert(mode)
        plain = {'1': 'L', 'L': 'L', 'LA': 'LA', 'La': 'LA', 'PA': 'RGBA', 'RGBA': 'RGBA', 'RGBa': 'RGBA'}
        expected = np.asarray(image.convert(plain.get(mode, 'RGB')))
    assert image.mode == mode
    restored = restorer(image)
    assert isinstance(restored, Image.Image)
    restored = np.asarray(restored)
    assert restored.shape == expected.shape and restored.dtype == expected.dtype
    if mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa'):
        np.testing.assert_array_equal(restored[..., -1], expected[..., -1])
        restored, expected = restored[..., :-1], expected[..., :-1]
    np.testing.assert_array_equal(restored, restorer(np.ascontiguousarray(expected)))
    assert list(restorer.degradations(image)) == NAMES


@pytest.mark.parametrize('mode', ['I;16', 'I;16B', 'I'])
def test_deep_grey_images_of_pillow(restorer, mode):
    grey = photo(dtype=np.uint16, channels=1)[..., 0]
    kinds = {'I;16': '<u2', 'I;16B': '>u2', 'I': 'i4'}
    image = Image.frombytes(mode, (50, 37), grey.astype(kinds[mode]).tobytes())
    restored = restorer(image)
    assert restored.mode == 'I;16'
    np.testing.assert_array_equal(np.asarray(restored), restorer(grey))
    with pytest.raises(DataError, match="image 'of Pillow' has int32 pixels; convert it to 8 or 16 bits"):
        restorer(Image.fromarray(np.full((4, 4), 70000, np.int32)))


def test_transparent_colours_of_palettes_of_pillow(restorer):
    image = Image.fromarray(photo()).quantize(16)
    image.info['transparency'] = 3
    expected = np.asarray(image.convert('RGBA'))
    restored = np.asarray(restorer(image))
    np.testing.assert_array_equal(restored[..., 3], expected[..., 3])
    np.testing.assert_array_equal(restored[..., :3], restorer(expected[..., :3]))


def test_refuses_wrong_options(restorer):
    with pytest.raises(OptionsError, match="degradation is 'rains'; did you mean 'rain'?"):
        restorer(photo(), degradation='rains')
    with pytest.raises(OptionsError, match='tile is 8 pixels, but must be at least 32'):
        restorer(photo(), tile=8)
    with pytest.raises(OptionsError, match="device 'gpu' cannot be used"):
        Restorer(restorer.router, restorer.net, NAMES, 'gpu')


def remove(name):
    return lambda folder: (folder / f'{name}.pth').unlink()


def copy(name):
    return lambda folder: (folder / f'{name}_2.pth').write_bytes((folder / f'{name}.pth').read_bytes())


def change(name, **network):
    def edit(folder):
        content = torch.load(folder / f'{name}.pth')
        content['lorair']['network'].update(network)
        save_file(content, folder / f'{name}.pth')

    return edit


def edit(name, change):
    """Changes the weights in a file; `bare`: without what it says of itself, too."""

    def spoil(folder, bare=False):
        content = torch.load(folder / f'{name}.pth')
        change(content['params'])
        save_file(content['params'] if bare else content, folder / f'{name}.pth')

    return spoil


BLAME = {
    'more in the base': ('base', lambda net: net.update(more=torch.ones(1)), 'unknown to the network: 1 (more)'),
    'less in the base': ('base', lambda net: net.pop('ending.weight'), 'missing are 1 of the network'),
    'shape in the base': (
        'base',
        lambda net: net.update({'ending.bias': torch.ones(4)}),
        'of another shape: 1 (ending.bias is [4] in the file and [3] in the network',
    ),
    'NaN in the base': ('base', lambda net: net['ending.bias'].fill_(float('nan')), 'undefined numbers in ending.bias'),
    'more in the experts': (
        'experts',
        lambda net: net.update({'x.lora_A': torch.ones(3, 2, 1)}),
        'unknown to the netw',
    ),
    'less in the experts': ('experts', lambda net: net.pop('ending.lora_B'), "missing are 1 of the network's"),
    'NaN in the experts': ('experts', lambda net: net['ending.lora_B'].fill_(float('inf')), 'numbers in ending.lora_B'),
    'more in the router': ('router', lambda net: net.update(more=torch.ones(1)), 'unknown to the network: 1 (more)'),
}


@pytest.mark.parametrize('what', BLAME)
def test_the_file_that_is_wrong_is_the_one_that_is_named(weights, tmp_path, what):
    """By all that read them: restoring, exporting and converting."""
    name, change, reason = BLAME[what]
    edit(name, change)(weights)
    reads = {
        'restore': lambda: Restorer.from_pretrained(weights, 'cpu'),
        'export': lambda: export([weights / 'base.pth', weights / 'experts.pth'], tmp_path / 'out.pth', 'rain'),
        'convert': lambda: convert([weights / 'base.pth', weights / 'experts.pth'], tmp_path / 'out.pth'),
    }
    for read in [reads['restore']] if name == 'router' else reads.values():
        with pytest.raises(CheckpointError) as error:
            read()
        assert str(error.value).startswith(f'{weights / name}.pth ')
        assert reason in str(error.value)


def rename_degradations(folder):
    content = torch.load(folder / 'experts.pth')
    content['lorair']['degradations'] = ['rain', 'noise', 'haze']
    save_file(content, folder / 'experts.pth')


def wider_router(folder):
    network = {**ROUTER, 'num_degradations': 5}
    save(folder / 'router.pth', 'router', network, DegradationRouter(**network).state_dict(), None)


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (remove('router'), 'there is no router among the weights'),
        (remove('base'), 'the restorer that the experts were trained on is not among the weights'),
        (copy('router'), 'there are two routers, .*router.pth and .*router_2.pth: name the files'),
        (copy('base'), 'there are two restorers, .*base.pth and .*base_2.pth'),
        (copy('experts'), 'there are two sets of experts'),
        (rename_degradations, 'router.pth tells noise, rain, haze apart, but .*experts.pth was trained for rain,'),
        (wider_router, r'router.pth \(prior of 8, 5 degradations\) does not fit .*\(prior of 8, 3 experts\)'),
        (change('experts', type='Unheard'), 'experts.pth describes a network unknown here .*Unheard'),
        (change('router', num_degradation=3), 'router.pth describes a network unknown here .*num_degradation'),
        (
            change('experts', width=17),
            'experts.pth describes a network that cannot be built: width: found 17, expected',
        ),
        (lambda folder: save_file({'conv_first.weight': torch.ones(1)}, folder / 'x.pth'), 'x.pth seems to hold a su'),
    ],
)
def test_refuses_wrong_weights(weights, spoil, message):
    spoil(weights)
    with pytest.raises(CheckpointError, match=message):
        Restorer.from_pretrained(weights, 'cpu')


def test_refuses_missing_weights(tmp_path):
    with pytest.raises(CheckpointError, match='nowhere does not exist'):
        Restorer.from_pretrained(tmp_path / 'nowhere')
    with pytest.raises(CheckpointError, match=r'holds no weights \(.pth'):
        Restorer.from_pretrained(tmp_path)
