"""Folders of results to score, and what scoring them gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lorair_arch import cli
from lorair_arch.evaluating.report import Report
from tests.photos import photo, write


def noisy(image: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    """Adds Gaussian noise to an image of 8 bits."""
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Four photographs in gt/, noisy in ours/, noisier in theirs/ with '_net' behind their names."""
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        clean = photo(i, 40, 50)
        write(tmp_path / f'gt/{i}.png', clean)
        write(tmp_path / f'ours/{i}.png', noisy(clean, 8, i))
        write(tmp_path / f'theirs/{i}_net.png', noisy(clean, 9, 10 + i))
    return tmp_path


def means(report: Report) -> dict[str, float]:
    """Gives the mean of each metric that a report in JSON has."""
    return {name: values['mean'] for name, values in json.loads(report.text)['metrics'].items()}


def run(capfd, *args: object) -> tuple[int, str, list[str]]:
    """Runs the command; gives its exit code, what it prints and the lines of what it says."""
    code = cli.lorair(['evaluate', *map(str, args)])
    out, err = capfd.readouterr()
    return code, out, err.splitlines()
