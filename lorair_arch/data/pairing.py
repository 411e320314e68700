"""Pairing of degraded and clean images by their names."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np

from lorair_arch.data.stores import Store, listing
from lorair_arch.errors import DataError, OptionsError


def compile_match(text: str | None, where: str) -> re.Pattern[str] | None:
    """Compiles the `match` of a source; None stays None.

    Raises:
        OptionsError: if it is not a regular expression with one group.
    """
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except (re.error, TypeError) as error:
        raise OptionsError(f'{where}: {text!r} is not a regular expression: {error}') from error
    if pattern.groups != 1:
        raise OptionsError(f"{where}: expected a regular expression with one group, such as '^(\\d+)', found {text!r}")
    return pattern


def pair_keys(
    lq: Store, gt: Store, pattern: re.Pattern[str] | None = None, chosen: Collection[str] | None = None
) -> list[tuple[str, str]]:
    """Pairs the keys of two stores.

    Args:
        lq, gt: the degraded and the clean images.
        pattern: its group, searched for in each key, is what the keys of a pair have in common, so that several
            inputs may share a ground truth; without a pattern the keys of a pair are equal.
        chosen: keys of `gt` to keep to; the inputs of others are left out.

    Returns:
        (lq key, gt key) in the order of `lq.keys`.

    Raises:
        DataError: for images without a partner, or several ground truths for one input.
    """
    partners: dict[str, str] = {}
    for key in gt.keys if chosen is None else chosen:
        name = _name(key, pattern, gt.root)
        if name in partners:
            raise DataError(f"'{partners[name]}' and '{key}' in '{gt.root}' would both be the ground truth of '{name}'")
        partners[name] = key
    names = {key: _name(key, pattern, lq.root) for key in lq.keys}
    pairs = [(key, partners[name]) for key, name in names.items() if name in partners]
    alone = [key for key, name in names.items() if name not in partners] if chosen is None else []
    _raise_for(alone, lq, gt)
    _raise_for([key for name, key in partners.items() if name not in set(names.values())], gt, lq)
    return pairs


def load_pair(lq: Store, lq_key: str, gt: Store, gt_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Decodes the two images of a pair.

    Returns:
        lq and gt: RGB, uint8 or uint16 [H, W, 3].

    Raises:
        DataError: if one of them cannot be read, or if their sizes differ.
    """
    images = lq.load(lq_key), gt.load(gt_key)
    sizes = [f'{image.shape[1]} x {image.shape[0]}' for image in images]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"'{lq.path(lq_key)}' is {sizes[0]} pixels but its ground truth '{gt.path(gt_key)}' is {sizes[1]}; "
            'the images of a pair must have the same size'
        )
    return images


def _name(key: str, pattern: re.Pattern[str] | None, root: str) -> str:
    found = pattern.search(key) if pattern else [None, key]
    if not found or found[1] is None:
        raise DataError(f"match: {pattern.pattern!r} finds nothing in the name '{key}' of '{root}'")
    return found[1]


def _raise_for(alone: list[str], here: Store, there: Store) -> None:
    if alone:
        raise DataError(
            f"no partner in '{there.root}' for {listing(alone)} of '{here.root}'; the names of a pair must agree "
            'except for the extension, or set match'
        )
