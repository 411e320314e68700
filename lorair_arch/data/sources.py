"""One entry of a data set's `sources`: pairs, or clean images to degrade on the fly, of one degradation."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from lorair_arch.data.degradations import build_degradation
from lorair_arch.data.stores import Look, Store, normal, open_store, read_meta_info
from lorair_arch.errors import DataError, Mistake, OptionsError, check_keys, different_sizes, quoted


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


SOURCE_KEYS = ('degradation', 'dataroot_lq', 'dataroot_gt', 'meta_info_file', 'match', 'degrade', 'weight')


class Source:
    """Images of one degradation, in the natural order of their names.

    Args:
        options: `dataroot_gt` and either `dataroot_lq` (a folder or an LMDB each) or `degrade` (see
            `degradations.build_degradation`). `degradation` names the class; by default it is the type of `degrade`,
            if that is a single one. `meta_info_file` restricts the source to the ground truths it lists. `match` is a
            regular expression whose group is what the names of a pair have in common; several inputs may share one
            ground truth.
        where: the key that holds the options, for messages.

    Attributes:
        degradation: name of the class.
        weight: relative probability of being drawn in training, or None.
        degrade: function `(image, rng) -> image`, or None for pairs.

    Raises:
        OptionsError: if the options are wrong or contradict each other.
        DataError: if files are missing, or have no partner.
    """

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        options = checked(options, where)
        self.degrade = build_degradation(options['degrade'], f'{where}.degrade') if 'degrade' in options else None
        self.degradation = class_of(options)
        if not isinstance(self.degradation, str):
            raise OptionsError(f'{where}: degradation (the name of the class) is missing')
        self.weight = options.get('weight')
        self._gt = open_store(options['dataroot_gt'])
        chosen, mistakes = choose(options.get('meta_info_file'), self._gt)
        for mistake in mistakes:
            raise DataError(mistake.sentence())
        if self.degrade:
            self._lq = self._gt
            self._pairs = [(key, key) for key in chosen or self._gt.keys]
        else:
            self._lq = open_store(options['dataroot_lq'])
            pattern = compile_match(options.get('match'), f'{where}.match')
            self._pairs = pair_keys(self._lq, self._gt, pattern, chosen)

    def __len__(self) -> int:
        return len(self._pairs)

    def paths(self, index: int) -> tuple[str, str]:
        """Gives the paths of the degraded and of the clean image; the same path twice if `degrade` is set."""
        lq, gt = self._pairs[index]
        return self._lq.path(lq), self._gt.path(gt)

    def key(self, index: int) -> str:
        """Gives the name of the degraded image within its store: folders and stem."""
        return self._pairs[index][0]

    def load(self, index: int, look: Look | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Decodes a pair; if `degrade` is set, both are the clean image.

        Args:
            index: of the pair.
            look: is shown the degraded image as it is stored, or the clean one if `degrade` is set.

        Returns:
            lq and gt: RGB, uint8 or uint16 [H, W, 3].

        Raises:
            DataError: if one of them cannot be read, or if their sizes differ.
        """
        lq, gt = self._pairs[index]
        if self.degrade:
            clean = self._gt.load(gt, look)
            return clean, clean
        return load_pair(self._lq, lq, self._gt, gt, look)

    def load_lq(self, index: int, look: Look) -> np.ndarray:
        """Decodes the degraded image alone, as `load` does."""
        return self._lq.load(self._pairs[index][0], look)


def class_of(options: Mapping[str, Any]) -> Any:
    """Gives the name of a source's class: as it says or, where one degradation is made on the fly, the type of that."""
    degrade = options.get('degrade')
    return options.get('degradation') or (degrade.get('type') if isinstance(degrade, Mapping) else None)


def choose(meta_info_file: str | None, gt: Store) -> tuple[list[str] | None, list[Mistake]]:
    """Gives the keys of `gt` that a meta_info file lists (None: no file, all of them), and what it lists in vain."""
    if meta_info_file is None:
        return None, []
    there = {normal(key): key for key in gt.keys}
    names = map(normal, read_meta_info(meta_info_file))
    # as Windows and `find .` write them; a name that is there as it is written may hold a backslash
    listed = dict.fromkeys(name if name in there else posixpath.normpath(name.replace('\\', '/')) for name in names)
    missing = quoted(sorted(set(listed) - set(there)))
    after = f", which '{meta_info_file}' lists"
    mistakes = [Mistake(f"'{gt.root}' lacks ", missing, after)] if missing else []
    return [there[key] for key in listed if key in there], mistakes


def checked(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Gives the options of a source that are not null, or raises an OptionsError."""
    if not isinstance(options, Mapping):
        raise OptionsError(f'{where}: expected a mapping with degradation and dataroot_gt, found {options!r}')
    check_keys(options, SOURCE_KEYS, where)
    options = {key: value for key, value in options.items() if value is not None}
    if 'dataroot_gt' not in options:
        raise OptionsError(f'{where}: dataroot_gt (the folder or LMDB of the ground truths) is missing')
    for key in ('dataroot_gt', 'dataroot_lq', 'meta_info_file'):
        if not isinstance(options.get(key, ''), str):
            raise OptionsError(f'{where}.{key}: expected a path, found {options[key]!r}')
    if ('dataroot_lq' in options) == ('degrade' in options):
        raise OptionsError(f'{where}: give either dataroot_lq (pairs) or degrade (clean images, degraded on the fly)')
    if 'match' in options and 'degrade' in options:
        raise OptionsError(f'{where}: match pairs the images of two folders; remove it or degrade')
    lq, gt = options.get('dataroot_lq'), options['dataroot_gt']
    if lq == gt or (lq and os.path.realpath(lq) == os.path.realpath(gt)):
        other = '' if lq == gt else f" (as '{lq}')"
        raise OptionsError(f"{where}: dataroot_lq and dataroot_gt are both '{gt}'{other}")
    weight = options.get('weight', 1)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < 1e9:
        raise OptionsError(f'{where}.weight: expected a number above 0, found {weight!r}')
    return options
