"""Measures a folder of results, image by image, in as many threads as there are cores."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from lorair_arch.data.images.writing import in_8_bits
from lorair_arch.data.parallel import parallel
from lorair_arch.data.sources import Match, match_keys
from lorair_arch.data.stores import Store
from lorair_arch.errors import DataError, Mistake, OptionsError, different_sizes
from lorair_arch.metrics.measuring import measure
from lorair_arch.schema import checked


def pattern_of(match: str | None, suffixes: Sequence[str]) -> re.Pattern[str] | None:
    """Gives what the names of a result and of its ground truth have in common, as `data.sources` wants it.

    Args:
        match: A regular expression with one group, as in the sources of a data set.
        suffixes: What follows the names of images in those of their results, such as '_lorair'.

    Raises:
        OptionsError: Both are given, or `match` is not that.
    """
    if match is None:
        return re.compile(f'^(.*?)(?:{"|".join(map(re.escape, suffixes))})?$') if suffixes else None
    if suffixes:
        raise OptionsError('--suffix: found beside --match, expected one of them')
    return re.compile(checked(Match(), match, '--match'))


def score(
    results: Store, gt: Store, metrics: dict[str, dict[str, Any]], pattern: re.Pattern[str] | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measures every result against its ground truth, at 8 bits, as published numbers are.

    Args:
        results, gt: Folders or LMDBs.
        metrics: As in `val.metrics`.
        pattern: See `pattern_of`; without one the names agree but for the extension.

    Returns:
        A record for each pair, in the natural order of the results: `image`, its path, the finite values by the names
        of the metrics, and `left_out`, why others are missing. And a sentence for each image that cannot be read, whose
        record is empty but for `image`.

    Raises:
        DataError: Images without a partner; or pairs of different sizes, each named: then other folders are meant.
        LoRAIRError: A metric needs what is not installed.
    """
    suffix = _common_suffix(results.keys, gt.keys) if pattern is None else None
    if suffix:
        said = f"every result in '{results.root}' ends in '{suffix}', no ground truth does"
        raise DataError(f'{said}: give --suffix={suffix}')
    pairs = _paired(results, gt, pattern)
    look = partial(_record, results, gt, metrics)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # here too: `measure` in one thread must not undo another's
        found = [look(pairs[0])]  # alone: what a metric loads is loaded once, and what it lacks is said once
        with closing(parallel(look, pairs[1:], lambda _: 0)) as rest:
            bar = tqdm(rest, 'Measuring', len(pairs), initial=1, leave=False, unit='image', disable=None)
            found += [record for _, record in bar]
    sizes = [record.pop('sizes') for record in found if 'sizes' in record]
    if sizes:
        raise DataError('\n'.join(sizes))
    return found, [record.pop('unreadable') for record in found if 'unreadable' in record]


def names_of(one: Store, two: Store, pattern: re.Pattern[str] | None) -> list[tuple[int, int]]:
    """Pairs the images of two folders of results; gives their places in the records of each.

    Raises:
        DataError: An image is in one of them alone.
    """
    # Several results may share a ground truth, and what they have in common with it: then their own names must agree.
    shared = pattern is not None and len({pattern.search(key)[1] for key in one.keys}) < len(one.keys)
    places = {key: i for i, key in enumerate(one.keys)}, {key: i for i, key in enumerate(two.keys)}
    return [(places[0][a], places[1][b]) for a, b in _paired(one, two, None if shared else pattern)]


def _paired(one: Store, two: Store, pattern: re.Pattern[str] | None) -> list[tuple[str, str]]:
    """Pairs keys as `data.sources.pair_keys` does, with flags in the sentences where it names keys of options."""
    pairs, mistakes = match_keys(one, two, pattern)
    for before, items, after in mistakes:
        before, after = before.replace('match: ', '--match: '), after.replace('set match', 'give --suffix or --match')
        raise DataError(Mistake(before, items, after).sentence())
    return pairs


def _common_suffix(results: Sequence[str], truths: Sequence[str]) -> str | None:
    """Gives what follows the name of a ground truth in every result, such as '_lorair'."""
    first = max((name for name in truths if results[0].startswith(name)), key=len, default=results[0])
    suffix = results[0].removeprefix(first)
    known = set(truths)
    return suffix if suffix and all(r.endswith(suffix) and r.removesuffix(suffix) in known for r in results) else None


def _record(ours: Store, truths: Store, metrics: dict[str, dict[str, Any]], pair: tuple[str, str]) -> dict[str, Any]:
    key, gt_key = pair
    record: dict[str, Any] = {'image': ours.path(key)}
    try:
        images = ours.load(key), truths.load(gt_key)
    except DataError as error:
        return record | {'unreadable': str(error)}
    sizes = [(image.shape[1], image.shape[0]) for image in images]
    if sizes[0] != sizes[1]:
        return record | {'sizes': different_sizes(ours.path(key), sizes[0], truths.path(gt_key), sizes[1])}
    values, left_out = measure(metrics, *map(_bgr, images))
    return record | values | ({'left_out': left_out} if left_out else {})


def _bgr(image: np.ndarray) -> np.ndarray:
    """Gives what metrics want of an RGB image: BGR, 8 bits, rounded as `basicsr test` does before it measures."""
    return np.ascontiguousarray((in_8_bits(image) if image.dtype == np.uint16 else image)[..., ::-1])
