"""How sure a mean over a test set is, and the difference of two methods on the same images.

A test set is a sample: other images would give another mean. The interval says how much other, by drawing test sets of
the same size from the images at hand (percentile bootstrap, Efron and Tibshirani, 1993). Images are of very unequal
difficulty, the same for both methods: only the differences of pairs tell which of two is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
_DRAWS = 10_000
_AT_ONCE = 10**7  # numbers in memory


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """Gives the interval that holds 95 % of the means of resampled test sets.

    Args:
        values: One for each image, finite.
        seed: Of the draws: the same values give the same interval.

    Returns:
        Its ends, or None for fewer than two values.
    """
    if len(values) < 2:
        return None
    values, rng = np.asarray(values, np.float64), np.random.default_rng(seed)
    means: list[np.ndarray] = []
    step = max(1, _AT_ONCE // len(values))
    for start in range(0, _DRAWS, step):
        draws = rng.integers(0, len(values), (min(step, _DRAWS - start), len(values)))
        means.append(values[draws].mean(1))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def differences(ours: Sequence[dict], others: Sequence[dict], metric: str) -> list[float]:
    """Gives ours minus the others' for every image that both have a value of.

    Args:
        ours, others: Records of the same images in the same order, see `measuring.measure`.
        metric: The name of a value in them.
    """
    pairs = zip(ours, others, strict=True)
    return [one[metric] - other[metric] for one, other in pairs if metric in one and metric in other]
