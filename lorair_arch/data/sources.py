"""One entry of a data set's `sources`: pairs, or clean images to degrade on the fly, of one degradation."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lorair_arch.data import degradations
from lorair_arch.data.degradations import build_degradation, is_of_scenes
from lorair_arch.data.stores import Look, Store, normal, open_store, read_meta_info
from lorair_arch.errors import DataError, Mistake, different_sizes, quoted
from lorair_arch.schema import Items, Report, Section, Spec, checked, folder_name, number, show, text


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
    # With a list of ground truths the inputs of all others have no partner, and are not meant.
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
    # macOS writes accents as characters of their own: a pair may come from two systems.
    found = pattern.search(normal(key)) if pattern else [None, normal(key)]
    return found[1] if found else None


def _report_alone(here: Store, there: Store, alone: list[str], mistakes: list[Mistake]) -> None:
    if alone:
        after = f" of '{here.root}'; the names of a pair must agree except for the extension, or set match"
        mistakes.append(Mistake(f"no partner in '{there.root}' for ", quoted(alone), after))


class Match(Spec):
    """What the names of a pair have in common."""

    expected = "a regular expression with one group, such as '^(\\d+)'"

    def check(self, value: Any, where: str, report: Report) -> Any:
        try:
            groups, reason = re.compile(value).groups, ''
        except (re.error, TypeError) as error:
            groups, reason = None, f': {error}'
        if groups != 1:
            report(where, f'found {show(value)}, expected {self.expected}{reason}')
        return value


def _check_source(source: dict[str, Any], report: Report) -> None:
    for key in [key for key, value in source.items() if value is None]:
        del source[key]
    if ('dataroot_lq' in source) == ('degrade' in source):
        found = 'both' if 'degrade' in source else 'neither'
        report('', f'found {found}, expected either dataroot_lq (pairs) or degrade (clean images to degrade)')
    if 'match' in source and 'degrade' in source:
        report('match', 'found beside degrade, expected beside dataroot_lq: it pairs images of two folders')
    # By whatever way it is named: pairs of an image with itself teach nothing, and look perfect.
    lq, gt = (os.path.realpath(os.path.expanduser(source.get(key, ''))) for key in ('dataroot_lq', 'dataroot_gt'))
    if lq == gt and 'dataroot_lq' in source:
        found = f'found {show(source["dataroot_lq"])}, the folder of dataroot_gt, expected that of the degraded images'
        report('dataroot_lq', found)
    if 'degradation' not in source:
        if isinstance(source.get('degrade'), dict):
            source['degradation'] = source['degrade']['type']
        else:
            report('degradation', 'missing, expected the name of a degradation')


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
        of_scenes: whether `degrade` is to see whole photographs, see `degradations.OF_SCENES`.

    Raises:
        OptionsError: if the options are wrong or contradict each other.
        DataError: if files are missing, or have no partner.
    """

    OPTIONS = Section(
        keys={
            'degradation': folder_name(null=True),
            'dataroot_lq': text(null=True),
            'dataroot_gt': text(required=True),
            'meta_info_file': text(null=True),
            'match': Match(null=True),
            'degrade': replace(degradations.OPTIONS, null=True),
            'weight': number(above=0, high=10**8, null=True),
        },
        also=_check_source,
    )

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        options = checked(self.OPTIONS, options, where)
        self.degrade = build_degradation(options['degrade']) if 'degrade' in options else None
        self.of_scenes = 'degrade' in options and is_of_scenes(options['degrade'])
        self.degradation, self.weight = options['degradation'], options.get('weight')
        self._gt = open_store(options['dataroot_gt'])
        chosen, mistakes = choose(options.get('meta_info_file'), self._gt)
        for mistake in mistakes:
            raise DataError(mistake.sentence())
        if self.degrade:
            self._lq = self._gt
            self._pairs = [(key, key) for key in chosen or self._gt.keys]
        else:
            self._lq = open_store(options['dataroot_lq'])
            pattern = re.compile(options['match']) if 'match' in options else None
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
            clean = self._gt.load(gt, look)  # read once: degradations return new images, see `degradations`
            return clean, clean
        return load_pair(self._lq, lq, self._gt, gt, look)

    def load_lq(self, index: int, look: Look) -> np.ndarray:
        """Decodes the degraded image alone, as `load` does."""
        return self._lq.load(self._pairs[index][0], look)


class Sources(Items):
    """A list of sources, none of them twice, all of them with a weight or none."""

    def check(self, value: Any, where: str, report: Report) -> Any:
        value = super().check(value, where, report)
        if not isinstance(value, list):
            return value
        for i, source in enumerate(value):
            if source in value[:i]:
                report(f'{where}[{i}]', f'found the same as in {where}[{value.index(source)}], expected it once')
        weighted = [isinstance(source, dict) and source.get('weight') is not None for source in value]
        if any(weighted) and not all(weighted):
            report(f'{where}[{weighted.index(False)}].weight', 'missing, expected one for every source, or for none')
        return value


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
