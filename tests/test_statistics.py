"""Intervals of means: those of the textbook, repeatable, and of pairs where there are pairs."""

from __future__ import annotations

import numpy as np
import pytest

from lorair_arch.metrics import statistics


def test_a_difference_of_pairs_is_surer_than_two_means():
    difficulty = np.random.default_rng(0).normal(30, 4, 100)
    gain = np.random.default_rng(1).normal(0.2, 0.3, 100)
    ours = [{'psnr': value} for value in difficulty + gain]
    theirs = [{'psnr': value} for value in difficulty]
    assert statistics.interval([r['psnr'] for r in ours])[0] < 30
    low, high = statistics.interval(statistics.differences(ours, theirs, 'psnr'))
    assert 0 < low < high < 0.35
    assert statistics.differences([{}, {'psnr': 2}], [{'psnr': 1}, {'psnr': 1}], 'psnr') == [1]


def test_intervals_are_scipys_and_repeatable():
    scipy_stats = pytest.importorskip('scipy.stats')
    values = list(np.random.default_rng(0).normal(30, 2, 60))
    found = statistics.interval(values)
    theirs = scipy_stats.bootstrap((values,), np.mean, method='percentile').confidence_interval
    assert found == pytest.approx(tuple(theirs), abs=0.05)
    assert statistics.interval(values) == found != statistics.interval(values, seed=1)
    assert statistics.interval([1.0]) is None
    assert statistics.interval([2.0, 2.0]) == (2, 2)


def test_intervals_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        low, high = statistics.interval(rng.normal(30, 2, 40), seed=seed)
        held += low <= 30 <= high
    assert 88 <= held <= 99


def test_a_mean_of_means_has_an_interval_of_its_own():
    rng = np.random.default_rng(0)
    few, many = rng.normal(20, 1, 10), rng.normal(40, 1, 1000)
    low, high = statistics.interval(few, many)
    assert low < (few.mean() + many.mean()) / 2 < high
    # each is resampled by itself: that they differ makes nothing uncertain, and the few count as much as the many
    assert high - low == pytest.approx(2 * 1.96 * few.std() / np.sqrt(10) / 2, rel=0.1)
    assert statistics.interval(few, [1.0]) is None
    assert statistics.interval() is None


def test_large_sets_are_drawn_in_parts(monkeypatch):
    values = np.random.default_rng(0).normal(30, 2, 50)
    whole = statistics.interval(values)
    monkeypatch.setattr(statistics, '_AT_ONCE', 50 * 7)
    assert statistics.interval(values) == pytest.approx(whole, abs=0.02)
