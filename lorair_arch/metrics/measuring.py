"""Measures an image by the metrics of the options; says of each that could not be measured why.

The rule of validations, tests and reports: a metric without a finite value for an image is left out for that image,
which is named with the reason, and its mean is that of the other images. So is the infinite PSNR of an image that
equals its ground truth: one such image would hide all others.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import cv2
import numpy as np

from lorair_arch.errors import LoRAIRError, Mistake
from lorair_arch.metrics import OWN

_NO_TRUTH = 'no ground truth'
# What metrics raise on images that do not suit them, such as too small ones. Anything else is a mistake in the metric.
_UNSUITABLE = (ValueError, ArithmeticError, IndexError, AssertionError, RuntimeError, cv2.error)


def measure(
    metrics: dict[str, dict[str, Any]] | None, image: np.ndarray, truth: np.ndarray | None
) -> tuple[dict[str, float], dict[str, str]]:
    """Measures an image.

    Args:
        metrics: Options of each metric by its name, as in `val.metrics`.
        image: [H, W, 3], BGR, or [H, W], range [0, 255].
        truth: The ground truth, or None; metrics that need none are measured all the same.

    Returns:
        The finite values, and why the other metrics have none, both by the names of the metrics.
    """
    values: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name, options in (metrics or {}).items():
        function = _function(options['type'])
        if truth is None and needs_truth(options['type']):
            left_out[name] = _NO_TRUTH
            continue
        data = {'img': image} if truth is None else {'img': image, 'img2': truth}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', RuntimeWarning)  # of NumPy; the reason is given below
                # As a number of Python: JSON and training states take no other.
                values[name] = float(function(**data, **{key: options[key] for key in options if key != 'type'}))
            reason = unfit(values[name])
        except LoRAIRError:  # of no single image
            raise
        except _UNSUITABLE as error:
            reason = f'{type(error).__name__}: {error}'.partition('\n')[0][:200]
        if reason:
            values.pop(name, None)
            left_out[name] = f'{image.shape[1]} x {image.shape[0]} pixels: {reason}'
    return values, left_out


def needs_truth(metric: str) -> bool:
    """Tells whether a registered metric compares an image with its ground truth, by BasicSR's name for that."""
    return 'img2' in inspect.signature(_function(metric)).parameters


def _function(metric: str) -> Callable[..., float]:
    """Gives a registered metric; only those that are not this package's import BasicSR."""
    if metric in OWN:
        return getattr(import_module(f'lorair_arch.metrics.{OWN[metric]}'), metric)
    try:
        import basicsr  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != 'basicsr':  # BasicSR is there, and lacks something itself
            raise
        raise LoRAIRError(
            f"{metric} is BasicSR's, which is not installed: pip install basicsr (Python 3.10 to 3.12)"
        ) from error
    from basicsr.utils.registry import METRIC_REGISTRY

    return METRIC_REGISTRY.get(metric)


def unfit(value: float) -> str | None:
    """Says why a number can stand neither in a mean nor in JSON; None: it can."""
    if math.isfinite(value):
        return None
    return 'not a number' if math.isnan(value) else 'infinite'


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the numbers that are there, in the order given; None: there are none."""
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else None


def what_is_left_out(records: list[dict]) -> list[str]:
    """Says in sentences which metrics have no value for which images.

    Args:
        records: One for each image: `image`, its path, and `left_out`, see `measure`, if there is any.
    """
    reasons = [(name, r['image'], reason) for r in records for name, reason in r.get('left_out', {}).items()]
    blind = dict.fromkeys(name for name, _, reason in reasons if reason == _NO_TRUTH)
    count = sum(_NO_TRUTH in r.get('left_out', {}).values() for r in records)
    sentences = [f'no ground truth for {count} of {len(records)} images: left out {", ".join(blind)}'] if blind else []
    for name in dict.fromkeys(name for name, _, _ in reasons):
        images = [f"'{image}' ({reason})" for other, image, reason in reasons if other == name and reason != _NO_TRUTH]
        if images:
            before = f'{name} leaves out {len(images)} of {len(records)} images: '
            sentences.append(Mistake(before, images, '').sentence())
    return sentences
