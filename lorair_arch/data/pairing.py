"""Pairing of degraded and clean images by their names."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np

from lorair_arch.data.mistakes import Mistake, different_sizes, quoted
from lorair_arch.data.stores import Look, Store, normal
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
    """Pairs the keys of two stores as `match_keys` does.

    Returns:
        (lq key, gt key) in the order of `lq.keys`.

    Raises:
        DataError: for images without a partner, or several ground truths for one input.
    """
    pairs, mistakes = match_keys(lq, gt, pattern, chosen)
    for mistake in mistakes:
        raise DataError(mistake.sentence())
    return pairs


def match_keys(
    lq: Store, gt: Store, pattern: re.Pattern[str] | None = None, chosen: Collection[str] | None = None
) -> tuple[list[tuple[str, str]], list[Mistake]]:
    """Finds the pairs of two stores, and what cannot be paired.

    Args:
        lq, gt: the degraded and the clean images.
        pattern: its group, searched for in each key, is what the keys of a pair have in common, so that several
            inputs may share a ground truth; without a pattern the keys of a pair are equal. An accented letter may be
            written as one character or as two.
        chosen: keys of `gt` to keep to; the inputs of others are left out.
    """
    names, mistakes = {}, []
    for store, keys in ((gt, gt.keys if chosen is None else chosen), (lq, lq.keys)):
        names[store] = {key: _name(key, pattern) for key in keys}
        nameless = quoted([key for key, name in names[store].items() if name is None])
        if nameless:
            before = f'match: {pattern.pattern!r} finds nothing in '
            mistakes.append(Mistake(before, nameless, f" of '{store.root}'"))
    partners: dict[str | None, str] = {}
    for key, name in names[gt].items():
        if partners.setdefault(name, key) != key and name is not None:
            after = f" in '{gt.root}' would both be the ground truth of '{name}'"
            mistakes.append(Mistake('', [f"'{partners[name]}' and '{key}'"], after))
    partners.pop(None, None)
    pairs = [(key, partners[name]) for key, name in names[lq].items() if name in partners]
    if chosen is None:
        alone = [key for key, name in names[lq].items() if name is not None and name not in partners]
        _report_alone(lq, gt, alone, mistakes)
    paired = {gt_key for _, gt_key in pairs}
    _report_alone(gt, lq, [key for key in partners.values() if key not in paired], mistakes)
    return pairs, mistakes


def load_pair(
    lq: Store, lq_key: str, gt: Store, gt_key: str, look: Look | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes the two images of a pair; shows `look` the degraded one as it is stored.

    Returns:
        lq and gt: RGB, uint8 or uint16 [H, W, 3].

    Raises:
        DataError: if one of them cannot be read, or if their sizes differ.
    """
    images = lq.load(lq_key, look), gt.load(gt_key)
    sizes = [(image.shape[1], image.shape[0]) for image in images]
    if sizes[0] != sizes[1]:
        raise DataError(different_sizes(lq.path(lq_key), sizes[0], gt.path(gt_key), sizes[1]))
    return images


def _name(key: str, pattern: re.Pattern[str] | None) -> str | None:
    """Gives what a key has in common with its partner's; None: it has no such part."""
    found = pattern.search(normal(key)) if pattern else [None, normal(key)]
    return found[1] if found else None


def _report_alone(here: Store, there: Store, alone: list[str], mistakes: list[Mistake]) -> None:
    if alone:
        after = f" of '{here.root}'; the names of a pair must agree except for the extension, or set match"
        mistakes.append(Mistake(f"no partner in '{there.root}' for ", quoted(alone), after))
