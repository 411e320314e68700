"""What the experts bring: each way of choosing them is measured as by hand."""

import re
from pathlib import Path

import numpy as np

from lorair_arch import Restorer
from lorair_arch.weights.pretrained import load_networks
from tests.zoo import psnr


def cells(line):
    return [cell.strip() for cell in line.strip('| \n').split('|')]


def test_every_way_is_what_it_says(zoo, load):
    code, table, errors = zoo('--weights', 'weights', script='experts')
    assert code == 0, errors
    rows = {row[0]: row[1:] for row in map(cells, table.splitlines()) if row[0].startswith('val_') or row[0] == 'mean'}
    assert rows.keys() == {'val_noise', 'val_rain', 'val_haze', 'mean'}  # what the tiny weights know
    restorer = Restorer.from_pretrained('weights', 'cpu')
    plain = Restorer(*load_networks(['weights/router.pth', 'weights/base.pth']), device='cpu')
    sets = load('zoo_sets')
    images = sets.OpenSet(sets.all_sets()['val_rain'], Path('data'))
    expected = []
    for number, wrong in enumerate(('noise', 'haze', 'noise')):
        lq, gt = images[number].lq, images[number].gt
        ways = lq, plain(lq), restorer(lq), restorer(lq, 'rain'), restorer(lq, wrong)
        expected.append([psnr(way, gt) for way in ways])
    assert rows['val_rain'] == ['3', *(f'{value:.2f}' for value in np.mean(expected, 0))]
    assert len(re.findall(r'^.*: [+-][\d.]+ dB to no experts \([+-][\d.]+ to [+-][\d.]+\)$', table, re.MULTILINE)) == 3


def test_weights_without_experts_are_named(zoo):
    code, _, errors = zoo('--weights', 'weights/router.pth', 'weights/base.pth', script='experts')
    assert code == 2
    assert 'weights/base.pth has no experts: there is nothing to compare' in errors
