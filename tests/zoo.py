"""Small data and weights for the scripts that measure the zoo, and how their scores are made by hand."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from tests.photos import photo, write, write_pairs
from tests.tiny import save_weights

BENCHMARK = Path(__file__).parents[1] / 'scripts' / 'benchmark'


@pytest.fixture
def load(monkeypatch):
    """Imports a file of scripts/benchmark by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARK))
    return importlib.import_module


@pytest.fixture
def zoo(load, tmp_path, monkeypatch, capsys):
    """Data and weights in a folder to work in, and the command; gives its exit code, table and messages."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / 'data/derain/Rain100L')
    for i in range(3):
        write(tmp_path / f'data/clean/val/gt/{i}.png', photo(10 + i))
        write(tmp_path / f'data/clean/train/gt/{i}.png', photo(20 + i))
        write(tmp_path / f'data/unpaired/daclip_real_mix/lq/{i}.png', photo(30 + i))
    cv2.imwrite(str(write(tmp_path / 'data/jpeg/classic5/gt/a.png', photo())), photo()[..., 0])
    save_weights(tmp_path / 'weights')

    def main(*args: str, data: str = 'data', script: str = 'zoo_results'):
        monkeypatch.setattr('sys.argv', [script, '--data', data, *args])
        code = load(script).main()
        return code, *capsys.readouterr()

    return main


def write_zoo_data(load, monkeypatch) -> None:
    """Writes datasets/zoo, of two photographs to train on and two others."""
    for i in range(2):
        write(Path(f'photos/{i}.png'), photo(40 + i, 64, 64))
        write(Path(f'others/{i}.png'), photo(50 + i, 64, 64))
    Path('datasets/zoo').mkdir(parents=True)
    monkeypatch.syspath_prepend(str(BENCHMARK.parent / 'data_preparation'))
    load('zoo_data').make_zoo_data('photos', 'others', Path('datasets/zoo'))


def ours(*args: str) -> tuple[str, ...]:
    return '--weights', 'weights', '--json', 'results.json', *args


def results() -> dict:
    return json.loads(Path('results.json').read_text())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """The SSIM of Wang et al.: a Gaussian window, no padding."""
    settings = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False, 'data_range': 255}
    axis = {'channel_axis': 2} if a.ndim == 3 else {}
    return structural_similarity(a, b, full=True, **settings, **axis)[1][5:-5, 5:-5].mean()


def agree(scores: dict, image: np.ndarray, gt: np.ndarray) -> None:
    assert scores['psnr'] == pytest.approx(psnr(image, gt))
    assert scores['ssim'] == pytest.approx(ssim(image, gt), abs=1e-6)
