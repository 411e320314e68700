"""All-weather metrics."""

import json

import cv2
import numpy as np
import pytest
from basicsr.metrics import calculate_metric

from lorair_arch.metrics.allweather_metric import calculate_psnr_allweather, calculate_ssim_allweather
from tests.golden import FOLDER, random

METRICS = {'psnr': calculate_psnr_allweather, 'ssim': calculate_ssim_allweather}
CASES = json.loads((FOLDER / 'metrics.json').read_text())


def pair(case):
    clean = cv2.imread(str(FOLDER / case['image']))
    noise = random(None, case['noise']).standard_normal(clean.shape)
    return np.clip(np.round(clean + case['sigma'] * noise), 0, 255), clean


@pytest.mark.parametrize('case', CASES, ids=[case['image'] for case in CASES])
@pytest.mark.parametrize('name', METRICS)
def test_agrees_with_the_official_script(case, name):
    restored, clean = pair(case)
    for dtype in (np.uint8, np.float32):
        assert METRICS[name](restored.astype(dtype), clean.astype(dtype)) == pytest.approx(case[name], abs=1e-9)


@pytest.mark.parametrize('name', METRICS)
def test_is_called_by_basicsr(name):
    restored, clean = pair(CASES[1])
    options = {'type': f'calculate_{name}_allweather', 'crop_border': 4, 'test_y_channel': False}
    value = calculate_metric({'img': restored, 'img2': clean}, options)
    assert value == METRICS[name](restored[4:-4, 4:-4], clean[4:-4, 4:-4])


def test_equal_images_are_perfect():
    image = np.random.default_rng(0).uniform(0, 255, (16, 20, 3))
    assert calculate_psnr_allweather(image, image) == float('inf')
    assert calculate_ssim_allweather(image, image) == pytest.approx(1)


@pytest.mark.parametrize('metric', METRICS.values())
@pytest.mark.parametrize(
    ('first', 'second', 'message'),
    [((16, 16, 3), (16, 15, 3), 'same shape'), ((16, 16), (16, 16), 'colour'), ((16, 16, 1), (16, 16, 1), 'colour')],
)
def test_unsuitable_images_are_refused(metric, first, second, message):
    with pytest.raises(ValueError, match=message):
        metric(np.zeros(first), np.zeros(second))


def test_images_smaller_than_the_window_are_refused():
    image = np.zeros((20, 10, 3))
    with pytest.raises(ValueError, match='11 x 11'):
        calculate_ssim_allweather(image, image)
    with pytest.raises(ValueError, match='border of 8'):
        calculate_psnr_allweather(image, image, crop_border=8)
