"""Degradations and their options."""

import inspect
import pickle

import numpy as np
import pytest

from lorair_arch.data.degradations import DEGRADATIONS, LIMITS, build_degradation
from lorair_arch.data.degradations.blur import line_kernel
from lorair_arch.data.images.reading import to_float
from lorair_arch.errors import OptionsError
from tests.photos import photo

# What each does to the test photograph with the usual ranges, in dB.
PSNR = {
    'clean': (119, 121),
    'noise': (13, 26),
    'sensor_noise': (15, 50),
    'camera_noise': (15, 50),
    'blur': (18, 50),
    'defocus': (12, 60),
    'motion_blur': (15, 50),
    'lowlight': (5, 18),
    'jpeg': (22, 45),
    'rain': (12, 32),
    'haze': (6, 28),
    'snow': (12, 36),
    'raindrop': (10, 45),
}
names = pytest.mark.parametrize('name', DEGRADATIONS)


def degraded(name, image, seed=0, **parameters):
    return build_degradation({'type': name, **parameters})(image, np.random.default_rng(seed))


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2) + 1e-12)


@names
@pytest.mark.parametrize('size', [(1, 1), (2, 9), (33, 47), (128, 96)])
def test_keeps_shape_and_range(name, size):
    image = to_float(photo(1, *size))
    before = image.copy()
    out = degraded(name, image)
    assert out.shape == image.shape and out.dtype == np.float32
    assert out.min() >= 0 and out.max() <= 1
    assert np.array_equal(image, before), 'the input was changed'


@pytest.mark.parametrize('name', sorted(set(DEGRADATIONS) - {'clean'}))
def test_depends_on_the_generator_alone(name):
    image = to_float(photo(2, 64, 64))
    np.random.seed(1)
    first = degraded(name, image, seed=3)
    np.random.seed(2)
    assert np.array_equal(first, degraded(name, image, seed=3))
    assert not np.array_equal(first, degraded(name, image, seed=4))


@names
def test_strength(name):
    image = to_float(photo(3, 128, 128))
    found = [psnr(degraded(name, image, seed), image) for seed in range(5)]
    low, high = PSNR[name]
    assert all(low < value < high for value in found), found


@names
def test_every_parameter_has_limits_and_its_default_is_within_them(name):
    parameters = dict(list(inspect.signature(DEGRADATIONS[name]).parameters.items())[2:])
    assert parameters.keys() == LIMITS[name].keys()
    for key, parameter in parameters.items():
        build_degradation({'type': name, key: list(parameter.default)})


@names
def test_workers_can_be_sent_it(name):
    image = to_float(photo(4))
    copy = pickle.loads(pickle.dumps(build_degradation({'type': name})))
    assert np.array_equal(copy(image, np.random.default_rng(0)), degraded(name, image))


def test_noise_has_the_given_level():
    grey = np.full((256, 256, 3), 0.5, np.float32)
    assert np.std(degraded('noise', grey, sigma=25) - grey) == pytest.approx(25 / 255, rel=0.01)


@pytest.mark.parametrize('name', ['blur', 'motion_blur'])
def test_blur_keeps_flat_areas(name):
    grey = np.full((40, 40, 3), 0.3, np.float32)
    assert degraded(name, grey) == pytest.approx(grey, abs=1e-5)


def test_lowlight_follows_the_formula():
    image = to_float(photo(5))
    out = degraded('lowlight', image, gamma=2, alpha=0.9, beta=0.5, cast=0, shot=0, sigma=0)
    assert out == pytest.approx(0.5 * (0.9 * image) ** 2, abs=1e-6)


def test_haze_moves_every_pixel_towards_the_airlight():
    image = to_float(photo(6))
    out = degraded('haze', image, airlight=0.8, tint=0)
    assert np.all(np.abs(out - 0.8) <= np.abs(image - 0.8) + 1e-6)


def test_haze_is_even_where_nothing_is_near():
    image = to_float(photo(6))
    out = degraded('haze', image, beta=1.5, airlight=0.8, tint=0, near=1)
    assert np.std(0.8 - out) < np.std(0.8 - degraded('haze', image, beta=1.5, airlight=0.8, tint=0, near=0))


@pytest.mark.parametrize('name', ['rain', 'snow'])
def test_rain_and_snow_only_brighten(name):
    image = to_float(photo(7, 96, 96))
    assert np.all(degraded(name, image) >= image - 1e-6)
    assert degraded(name, image, intensity=0) == pytest.approx(image, abs=1e-6)


def test_jpeg_is_worse_at_lower_quality():
    image = to_float(photo(8, 96, 96))
    assert psnr(degraded('jpeg', image, quality=5), image) < psnr(degraded('jpeg', image, quality=95), image) - 3


def test_line_kernel_has_direction_and_length():
    horizontal, vertical = line_kernel(9, 0), line_kernel(9, 90)
    assert horizontal == pytest.approx(vertical.T, abs=1e-4)
    assert np.count_nonzero(horizontal.max(1) > 0.1) == 1
    assert np.count_nonzero(horizontal.max(0) > 0.5) == 9
    assert line_kernel(1, 30).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'type': 'nois'}, "degrade.type: unknown degradation 'nois'; did you mean 'noise'?"),
        ({'type': 'noise', 'sigam': 3}, "degrade.sigam: unknown key; did you mean 'sigma'?"),
        (
            {'type': 'noise', 'sigma': [50, 15]},
            r'found \[50, 15\], expected a number or \[low, high\] from 0 to 255',
        ),
        ({'type': 'noise', 'sigma': '50'}, "degrade.sigma: found '50', expected a number"),
        ({'type': 'noise', 'sigma': [1, 2, 3]}, r'degrade.sigma: found \[1, 2, 3\], expected'),
        ({'type': 'noise', 'sigma': float('nan')}, 'degrade.sigma: found nan, expected'),
        ({'type': 'jpeg', 'quality': 0}, 'degrade.quality: .* from 1 to 100'),
        ({'type': 'haze', 'airlight': True}, 'degrade.airlight: found true, expected'),
        ({'sigma': 5}, 'degrade: found a mapping with the keys sigma, expected a mapping such as {type: noise'),
        ({'type': ['noise']}, r"degrade.type: unknown degradation \['noise'\]"),
        ('noise', "degrade: found 'noise', expected a mapping such as {type: noise"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(OptionsError, match=message):
        build_degradation(options)
