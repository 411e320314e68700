"""One entry of a data set's `sources`: pairs, or clean images to degrade on the fly, of one degradation."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np

from lorair_arch.data.checks import check_keys
from lorair_arch.data.degradations import build_degradation
from lorair_arch.data.mistakes import Mistake, quoted
from lorair_arch.data.pairing import compile_match, load_pair, pair_keys
from lorair_arch.data.stores import Look, Store, normal, open_store, read_meta_info
from lorair_arch.errors import DataError, OptionsError

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
