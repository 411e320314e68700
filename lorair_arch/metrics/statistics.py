"""How sure a mean over a test set is, and the difference of two methods on the same images.

A test set is a sample: other images would give another mean. The interval says how much other, by drawing test sets of
the same size from the images at hand (percentile bootstrap, Efron and Tibshirani, 1993). Images are of very unequal
difficulty, the same for both methods: only the differences of pairs tell which of two is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
LABEL = f'{100 * LEVEL:g} % interval'  # in tables
_DRAWS = 10_000
_AT_ONCE = 10**7  # numbers in memory


def interval(*samples: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """Gives the interval that holds 95 % of the means of resampled test sets.

    Args:
        samples: A value for each image of a test set, finite. Of several, such as one for each degradation, it is the
            interval of the mean of their means; each is resampled by itself.
        seed: Of the draws: the same values give the same interval.

    Returns:
        Its ends, or None where a sample has fewer than two values.
    """
    if min(map(len, samples), default=0) < 2:
        return None
    rng = np.random.default_rng(seed)
    means = sum(_resampled(np.asarray(sample, np.float64), rng) for sample in samples) / len(samples)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _resampled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gives the means of test sets that are drawn from the values."""
    step = max(1, _AT_ONCE // len(values))
    sizes = [min(step, _DRAWS - start) for start in range(0, _DRAWS, step)]
    return np.concatenate([values[rng.integers(0, len(values), (size, len(values)))].mean(1) for size in sizes])


def shown(ends: tuple[float, float] | None, sign: str = '') -> str:
    """Gives an interval as tables show it; `sign` is '+' for differences."""
    return f'{ends[0]:{sign}.4f} to {ends[1]:{sign}.4f}' if ends else '-'


def differences(ours: Sequence[dict], others: Sequence[dict], metric: str) -> list[float]:
    """Gives ours minus the others' for every image that both have a value of.

    Args:
        ours, others: Records of the same images in the same order, see `measuring.measure`.
        metric: The name of a value in them.
    """
    pairs = zip(ours, others, strict=True)
    return [one[metric] - other[metric] for one, other in pairs if metric in one and metric in other]
