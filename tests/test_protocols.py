"""The arithmetic of the published numbers: to the last digit that of those who published them."""

from __future__ import annotations

import json
import sys
import warnings

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lorair_arch.evaluating.report import evaluate
from lorair_arch.metrics import lpips_metric, skimage_metric
from lorair_arch.metrics.protocols import PROTOCOLS
from tests import miniature
from tests.golden import FOLDER, random
from tests.photos import photo, write
from tests.scoring import means, noisy, run

GOLDEN = json.loads((FOLDER / 'metrics.json').read_text())


def printed(folder, protocol):
    """Gives PSNR and SSIM of ours/ as the table of an evaluation has them."""
    return evaluate(f'{folder}/ours', f'{folder}/gt', protocol).text.splitlines()[1].split()[-2:]


@pytest.mark.parametrize('case', GOLDEN, ids=[case['image'] for case in GOLDEN])
def test_golden_allweather_numbers(tmp_path, case):
    clean = cv2.imread(str(FOLDER / case['image']))
    noise = random(None, case['noise']).standard_normal(clean.shape)
    restored = np.clip(np.round(clean + case['sigma'] * noise), 0, 255).astype(np.uint8)
    write(tmp_path / 'gt/0.png', clean[..., ::-1])
    write(tmp_path / 'ours/0.png', restored[..., ::-1])
    assert printed(tmp_path, 'allweather') == [f'{case["psnr"]:.4f}', f'{case["ssim"]:.4f}']


def cut(image):
    """`crop_img` of AirNet and PromptIR, with its base of 16."""
    height, width = image.shape[:2]
    rows, columns = height % 16, width % 16
    return image[rows // 2 : height - rows + rows // 2, columns // 2 : width - columns + columns // 2]


GAUSSIAN = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}


@pytest.mark.parametrize(
    ('protocol', 'prepare', 'options'),
    [
        ('airnet', lambda image: cut(image).astype(np.float32) / 255, {}),
        (
            'onerestore',
            lambda image: image / 255.0,
            {},
        ),  # in double precision, as cal_psnr_ssim.py of OneRestore has it
        ('gaussian', lambda image: image.astype(np.float32) / 255, GAUSSIAN),
    ],
)
@pytest.mark.parametrize('size', [(48, 64), (51, 77), (40, 39)])
def test_numbers_of_scikit_image(tmp_path, protocol, prepare, options, size):
    clean = photo(1, *size)
    restored = noisy(clean, 12)
    write(tmp_path / 'gt/0.png', clean)
    write(tmp_path / 'ours/0.png', restored)
    pair = prepare(clean), prepare(restored)
    psnr = peak_signal_noise_ratio(*pair, data_range=1)
    ssim = structural_similarity(*pair, data_range=1, channel_axis=2, **options)
    assert printed(tmp_path, protocol) == [f'{psnr:.4f}', f'{ssim:.4f}']


@pytest.mark.parametrize('protocol', ['rgb', 'y'])
def test_numbers_of_basicsr(folders, protocol):
    metrics = pytest.importorskip('basicsr.metrics')
    expected = []
    for function in (metrics.calculate_psnr, metrics.calculate_ssim):
        pairs = [[cv2.imread(f'{folder}/{i}.png') for folder in ('ours', 'gt')] for i in range(4)]
        values = [function(*pair, crop_border=0, test_y_channel=protocol == 'y') for pair in pairs]
        expected.append(f'{sum(values) / 4:.4f}')
    assert printed('.', protocol) == expected


def test_gaussian_is_rgb_but_for_rounding(folders):
    pytest.importorskip('basicsr')
    one, two = (means(evaluate('ours', 'gt', name, style='json')) for name in ('rgb', 'gaussian'))
    assert one == pytest.approx(two, abs=1e-5)


def test_protocols_differ_enough_to_be_named(folders):
    values = {name: means(evaluate('ours', 'gt', name, style='json'))['psnr'] for name in ('airnet', 'allweather')}
    assert values['allweather'] - values['airnet'] > 2


@pytest.mark.parametrize('name', PROTOCOLS)
def test_every_protocol_is_registered(name):
    registry = pytest.importorskip('basicsr.utils.registry')
    assert all(options['type'] in registry.METRIC_REGISTRY for options in PROTOCOLS[name].metrics.values())


def test_without_basicsr_only_its_own_metrics_are_missing(folders):
    code = """if True:
        import sys
        sys.modules['basicsr'] = None
        from lorair_arch.cli import lorair
        for name in ('airnet', 'allweather', 'rgb'):
            code = lorair(['evaluate', 'ours', 'gt', '--protocol', name])
            sys.stderr.write(f'{code}, torch: {"torch" in sys.modules}\\n')
    """
    result = miniature.run(folders, python=('-c', code))
    assert result.stderr.splitlines() == [
        '0, torch: False',
        '0, torch: False',
        "error: calculate_psnr is BasicSR's, which is not installed: pip install basicsr (Python 3.10 to 3.12)",
        '2, torch: False',
    ]


def test_lpips_without_its_library_or_weights(folders, monkeypatch, capfd):
    lpips_metric._network.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'torchmetrics.image.lpip', None)
        code, _, err = run(capfd, 'ours', 'gt', '--protocol', 'perceptual')
    assert code == 2
    assert err == ["error: LPIPS needs torchmetrics, which is not installed: pip install 'lorair[lpips]'"]
    pytest.importorskip('torchmetrics')

    def refuse(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr('torchvision.models.alexnet', refuse)
    code, _, err = run(capfd, 'ours', 'gt', '--protocol', 'perceptual')
    assert code == 2
    assert err[0].startswith(
        "error: LPIPS needs AlexNet's weights, which cannot be downloaded (no network): get https://"
    )
    assert err[0].endswith('/checkpoints')


def test_lpips_of_random_weights(monkeypatch):
    pytest.importorskip('torchmetrics')
    from torchvision.models import alexnet

    # AlexNet's weights are not in any package: random ones stand in
    monkeypatch.setattr('torchvision.models.alexnet', lambda weights=None: alexnet())
    lpips_metric._network.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        clean = photo(0, 64, 64)
        values = [lpips_metric.calculate_lpips(noisy(clean, sigma), clean) for sigma in (0, 5, 40)]
    lpips_metric._network.cache_clear()
    assert values[0] == 0 < values[1] < values[2]
    with pytest.raises(ValueError, match='same shape'):
        lpips_metric.calculate_lpips(clean, clean[1:])


@pytest.mark.parametrize('name', ['psnr', 'ssim'])
def test_metrics_of_scikit_image_refuse_what_does_not_suit(name):
    metric = getattr(skimage_metric, f'calculate_{name}_skimage')
    with pytest.raises(ValueError, match='same shape'):
        metric(np.zeros((16, 16, 3)), np.zeros((16, 15, 3)))
    with pytest.raises(ValueError, match='nothing is left'):
        metric(np.zeros((15, 40, 3)), np.zeros((15, 40, 3)), multiple_of=16)
    image = np.random.default_rng(0).uniform(0, 255, (40, 50, 3))
    assert metric(image, image + 1, crop_border=4, multiple_of=16) == metric(image[4:36, 9:41], image[4:36, 9:41] + 1)


def test_ssim_of_scikit_image_names_its_window():
    image = np.zeros((10, 6, 3))
    with pytest.raises(ValueError, match='7 x 7 pixels, 6 x 10 are left'):
        skimage_metric.calculate_ssim_skimage(image, image)
    with pytest.raises(ValueError, match='11 x 11 pixels'):
        skimage_metric.calculate_ssim_skimage(np.zeros((10, 20, 3)), np.zeros((10, 20, 3)), gaussian=True)
