"""Metrics that some images have no value for: said, left out of the means, never best, and JSON stays valid."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from lorair_arch.metrics.measuring import mean, measure, needs_truth, what_is_left_out
from lorair_arch.metrics.statistics import interval
from lorair_arch.models.validation import Validated, table
from lorair_arch.training import test as testing
from lorair_arch.training import train as training
from tests.miniature import as_test, stage, write_options
from tests.photos import photo, write

ALL = ('psnr', 'ssim', 'niqe', 'psnr_allweather', 'ssim_allweather')
METRICS = {name: {'type': f'calculate_{name}', 'crop_border': 0} for name in ALL}


def pair(height, width, *channels):
    rng = np.random.default_rng(0)
    return tuple(rng.integers(0, 256, (height, width, *channels), np.uint8) for _ in range(2))


@pytest.mark.parametrize(
    ('size', 'left_out'),
    [
        ((1, 1, 3), {'ssim', 'niqe', 'ssim_allweather'}),
        ((1, 500, 3), {'ssim', 'niqe', 'ssim_allweather'}),
        ((6, 9, 3), {'ssim', 'niqe', 'ssim_allweather'}),
        ((24, 28, 3), {'niqe'}),
        ((96, 96, 3), {'niqe'}),  # it needs two blocks
        ((96, 192, 3), set()),
        ((96, 192), {'psnr_allweather', 'ssim_allweather'}),  # grey
    ],
)
def test_what_does_not_suit_a_metric_is_left_out_with_the_reason(size, left_out):
    values, reasons = measure(METRICS, *pair(*size))
    assert reasons.keys() == left_out
    assert values.keys() == METRICS.keys() - left_out
    assert all(math.isfinite(value) for value in values.values())
    assert all(reason.startswith(f'{size[1]} x {size[0]} pixels: ') for reason in reasons.values())


def test_equal_images_do_not_make_a_mean_infinite():
    image, _ = pair(96, 192, 3)
    values, reasons = measure(METRICS, image, image)
    assert values['ssim'] == values['ssim_allweather'] == 1
    assert reasons == dict.fromkeys(('psnr', 'psnr_allweather'), '192 x 96 pixels: infinite')


def test_images_of_another_size_than_the_ground_truth():
    values, reasons = measure(METRICS, pair(96, 192, 3)[0], pair(96, 191, 3)[0])
    assert values.keys() == {'niqe'}
    assert 'Image shapes are different' in reasons['psnr']


def test_a_border_that_leaves_nothing():
    _, reasons = measure({'psnr': METRICS['psnr'] | {'crop_border': 12}}, *pair(24, 28, 3))
    assert reasons == {'psnr': '28 x 24 pixels: not a number'}


def test_without_ground_truth_what_needs_none_is_measured():
    image, truth = pair(96, 192, 3)
    values, reasons = measure(METRICS, image, None)
    assert values == {'niqe': measure(METRICS, image, truth)[0]['niqe']}
    assert reasons == dict.fromkeys(METRICS.keys() - {'niqe'}, 'no ground truth')
    assert [needs_truth(f'calculate_{name}') for name in ALL] == [True, True, False, True, True]


def test_a_mistake_in_a_metric_is_not_hidden():
    with pytest.raises(TypeError):
        measure({'psnr': METRICS['psnr'] | {'crop_border': '4'}}, *pair(24, 28, 3))


def test_metrics_of_others_are_found_whatever_their_names(monkeypatch):
    from basicsr.utils.registry import METRIC_REGISTRY

    for name in ('calculate_mine_skimage', 'calculate_lpips_allweather'):
        monkeypatch.setitem(METRIC_REGISTRY._obj_map, name, lambda img, img2: 7.0)
        assert measure({'mine': {'type': name}}, *pair(24, 28, 3)) == ({'mine': 7.0}, {})


def test_means_and_tables_of_what_is_there():
    assert mean([1.0, None, 2.0]) == 1.5
    assert mean([None]) is None
    assert table(['', 'psnr'], [['noise', None]]).splitlines()[1].split() == ['noise', '-']


def test_images_are_named_and_counted():
    records = [{'image': f'{i}.png', 'left_out': {'ssim': 'why'}} for i in range(4)] + [{'image': '4.png', 'ssim': 1.0}]
    assert what_is_left_out(records) == [
        "ssim leaves out 4 of 5 images: '0.png' (why), '1.png' (why), '2.png' (why) and 1 more"
    ]
    assert what_is_left_out(records[4:]) == []


@pytest.mark.parametrize('before', [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_best(before):
    class Model(Validated):
        opt = {'val': {'metrics': {'niqe': {'better': 'lower'}}}}
        best = {'set': {'psnr': (before, 1), 'niqe': (before, 1)}}  # as an old training state has it

    model = Model()
    assert model._keep_best('set', {'psnr': None, 'niqe': 5.0}, 2) == {'psnr': (before, 1), 'niqe': (5.0, 2)}
    assert model._keep_best('set', {'psnr': 9.0, 'niqe': None}, 3) == {'psnr': (9.0, 3), 'niqe': (5.0, 2)}


def strictly(path):
    def refuse(constant):
        raise AssertionError(f'{constant} is not JSON')

    return json.loads(path.read_text(encoding='utf-8'), parse_constant=refuse)


def warnings(capfd):
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith('warning: ')]


def restore_options(metrics, *sizes):
    """Options of a test of the restorer on pairs of these sizes, and of those in the data of the miniature."""
    opt = as_test(stage('pretrain'))
    for i, size in enumerate(sizes):
        write(Path(f'data/odd_gt/{i}.png'), photo(i, *size))
        write(Path(f'data/odd_lq/{i}.png'), photo(i, *size) // 2)
    opt['datasets']['test']['sources'] = [
        {'degradation': 'noise', 'dataroot_lq': 'data/odd_lq', 'dataroot_gt': 'data/odd_gt'},
        {'degradation': 'rain', 'dataroot_lq': 'data/val_lq', 'dataroot_gt': 'data/val_gt'},
    ]
    opt['val'] = {'metrics': {name: METRICS[name] for name in metrics}, 'save_img': False}
    return opt


def test_a_test_goes_on_and_names_the_images(here, capfd):
    testing.run(write_options(here, restore_options(ALL, (6, 9), (96, 192)), 'odd'))
    content = strictly(here / 'results/pretrain/metrics_tiny_val.json')
    small, large, *others = content['images']
    assert small.keys() == {'image', 'name', 'degradation', 'router_accuracy', 'psnr', 'psnr_allweather', 'left_out'}
    assert small['left_out'].keys() == {'ssim', 'niqe', 'ssim_allweather'}
    assert 'left_out' not in large
    noise, rain = content['degradations']['noise'], content['degradations']['rain']
    assert noise['ssim'] == large['ssim']
    assert noise['psnr'] == pytest.approx((small['psnr'] + large['psnr']) / 2)
    assert rain['niqe'] is None
    assert rain['ssim'] == pytest.approx(sum(other['ssim'] for other in others) / 3)
    assert content['mean']['niqe'] == large['niqe']
    said = warnings(capfd)
    assert said[0] == (
        "warning: Validation tiny_val: ssim leaves out 1 of 5 images: 'data/odd_lq/0.png' (9 x 6 pixels: not a number)"
    )
    assert [line.partition(' leaves out')[0].split()[-1] for line in said] == ['ssim', 'niqe', 'ssim_allweather']


def test_a_test_says_how_sure_its_means_are(here, capfd):
    testing.run(write_options(here, restore_options(('psnr', 'niqe'), (50, 60), (96, 192)), 'sure'))
    content = strictly(here / 'results/pretrain/metrics_tiny_val.json')
    values = {name: [r['psnr'] for r in content['images'] if r['degradation'] == name] for name in ('noise', 'rain')}
    found = content['intervals']
    for name, psnrs in values.items():
        assert found['degradations'][name]['psnr'] == list(interval(psnrs))
    assert found['mean']['psnr'] == list(interval(*values.values()))
    assert found['mean']['niqe'] is found['degradations']['noise']['niqe'] is None  # of a single image
    out = capfd.readouterr()
    lines = [re.split('  +', line.strip()) for line in (out.out + out.err).splitlines()]
    mean = next(i for i, line in enumerate(lines) if line[0] == 'mean')
    shown = [f'{low:.4f} to {high:.4f}' for low, high in (found['mean'][m] for m in ('router_accuracy', 'psnr'))]
    assert lines[mean + 1] == ['95 % interval', *shown, '-']


def test_a_test_of_the_router_says_how_sure_its_accuracy_is(here, capfd):
    testing.run(write_options(here, as_test(stage('router')), 'router_test'))
    content = strictly(here / 'results/router/metrics_tiny_val.json')
    right = [image['predicted'] == image['degradation'] for image in content['images']]
    low, high = interval(right)
    assert content['intervals']['mean']['accuracy'] == [low, high]
    out = capfd.readouterr()
    assert f'(95 % interval {low:.4f} to {high:.4f}) of {len(right)} images' in out.out + out.err


def test_a_test_without_ground_truth(here, capfd):
    opt = restore_options(('psnr', 'niqe', 'ssim'), (96, 192), (100, 200))
    folder = {'dataroot_lq': 'data/odd_lq', 'io_backend': {'type': 'disk'}}
    opt['datasets']['test'] = {'name': 'blind', 'type': 'SingleImageDataset', **folder}
    testing.run(write_options(here, opt, 'blind'))
    content = strictly(here / 'results/pretrain/metrics_blind.json')
    assert content['mean'] == {
        'psnr': None,
        'niqe': pytest.approx(sum(image['niqe'] for image in content['images']) / 2),
        'ssim': None,
    }
    assert warnings(capfd) == ['warning: Validation blind: no ground truth for 2 of 2 images: left out psnr, ssim']


def test_a_training_says_it_once_and_keeps_no_nan(here, capfd):
    opt = stage('pretrain')
    opt['datasets']['val']['sources'] = restore_options((), (6, 9))['datasets']['test']['sources'][:1]
    opt['val'] |= {'metrics': {name: METRICS[name] for name in ('psnr', 'ssim')}, 'val_freq': 2}
    opt['train']['total_iter'] = 4
    training.run(write_options(here, opt, 'small'))
    err = capfd.readouterr().err
    assert err.count('warning: ') == err.count('ssim leaves out 1 of 1 images') == 1
    assert err.count('best psnr') == 2
    assert 'best ssim' not in err
    assert 'nan' not in err
