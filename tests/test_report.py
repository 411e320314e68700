"""The report's numbers are those of `basicsr test`, and what it gathers restores images."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from lorair_arch import Restorer
from lorair_arch.training import test as testing
from tests.tiny import LORA, NAMES, ROUTER, save_weights

SCRIPT = Path(__file__).parents[1] / 'scripts' / 'report.py'


@pytest.fixture
def main(monkeypatch):
    spec = importlib.util.spec_from_file_location('report', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*args):
        monkeypatch.setattr('sys.argv', ['report.py', *args])
        return module.main()

    return run


@pytest.fixture
def options(tmp_path, monkeypatch):
    """An options file of a test, three images for each degradation, in an empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    weights = save_weights(tmp_path / 'trained')
    rng = np.random.default_rng(0)
    for name in NAMES:
        for side in ('lq', 'gt'):
            Path('data', name, side).mkdir(parents=True)
        for i in range(3):
            gt = cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), (40 + i, 36), interpolation=cv2.INTER_CUBIC)
            lq = np.clip(gt + rng.normal(0, 20, gt.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(f'data/{name}/gt/{i}.png', gt)
            cv2.imwrite(f'data/{name}/lq/{i}.png', lq)
    sources = [{'degradation': n, 'dataroot_lq': f'data/{n}/lq', 'dataroot_gt': f'data/{n}/gt'} for n in NAMES]
    opt = {
        'name': 'tiny',
        'model_type': 'LoRAIRFinetuneModel',
        'degradations': NAMES,
        'num_gpu': 0,
        'manual_seed': 0,
        'datasets': {'test': {'name': 'photos', 'type': 'AllInOneDataset', 'sources': sources}},
        'network_router': {'type': 'DegradationRouter', **ROUTER},
        'network_g': {'type': 'LoRAIR', **LORA},
        'path': {
            'pretrain_network_router': str(weights / 'router.pth'),
            'pretrain_network_g': str(weights / 'base.pth'),
            'pretrain_network_experts': str(weights / 'experts.pth'),
        },
        'val': {'metrics': {m: {'type': f'calculate_{m}', 'crop_border': 0} for m in ('psnr', 'ssim')}},
    }
    Path('test.yml').write_text(yaml.safe_dump(opt))
    return opt


def test_agrees_with_basicsr_test(main, options, capsys):
    testing.run('test.yml')
    assert main('test.yml', '--started', '0') == 0
    folder = Path('results', 'tiny')
    results = json.loads((folder / 'results.json').read_text())
    tested = json.loads((folder / 'metrics_photos.json').read_text())
    assert list(results) == ['degradations', 'router_accuracy', 'seconds']
    assert results['router_accuracy'] == tested['mean']['router_accuracy']
    assert results['seconds'] > 1e9
    assert list(results['degradations']) == NAMES
    for name, values in results['degradations'].items():
        stages = ('input', 'pretrain', 'finetune')
        assert list(values) == [f'{metric}_{stage}' for metric in ('psnr', 'ssim') for stage in stages]
        for metric in ('psnr', 'ssim'):
            assert values[f'{metric}_finetune'] == tested['degradations'][name][metric]
            assert len({values[f'{metric}_{stage}'] for stage in stages}) == 3
    assert (folder / 'comparison.png').stat().st_size > 1000
    printed = capsys.readouterr().out
    assert all(f'{values["psnr_finetune"]:.2f}' in printed for values in results['degradations'].values())

    assert main('test.yml') == 2
    assert capsys.readouterr().err.startswith("error: output '")
    assert json.loads((folder / 'results.json').read_text()) == results

    trained, gathered = (Restorer.from_pretrained(path, 'cpu') for path in ('trained', folder / 'weights'))
    image = cv2.imread('data/rain/lq/0.png')
    np.testing.assert_array_equal(gathered(image), trained(image))


def test_says_what_is_missing(main, options, capsys):
    del options['val']['metrics']['ssim']
    Path('test.yml').write_text(yaml.safe_dump(options))
    assert main('test.yml') == 2
    assert capsys.readouterr().err == 'error: test.yml: val.metrics has no ssim: the report is made of psnr and ssim\n'
