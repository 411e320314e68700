"""Finding a benchmark's images among the names of a source, and pairing them by its own rule."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lorair_arch.data.prepare.benchmarks import Benchmark, Layout, Part
from lorair_arch.data.prepare.templates import Match, fold, match, words_of
from lorair_arch.data.stores import natural_sort
from lorair_arch.errors import DataError, Mistake, quoted
from lorair_arch.files import decode

Texts = Mapping[str, Callable[[], bytes]]


@dataclass(frozen=True)
class Pair:
    """A pair by the names of its images; without `lq` a clean image. `key` is its name in the LMDBs."""

    key: str
    gt: str
    lq: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.gt,) if self.lq is None else (self.lq, self.gt)


@dataclass(frozen=True)
class Found:
    """A part that is there: which layout it has, in which folder, and its pairs in natural order of their keys."""

    part: Part
    layout: Layout
    folder: str
    pairs: list[Pair]


@dataclass
class Finding:
    """What there is of a benchmark.

    Attributes:
        found: its parts that are there.
        absent: a sentence for each that is not, by its name.
        mistakes: images that cannot be used, and why, with the name of their part.
        notes: what is said without being wrong, with the name of the part or None.
    """

    found: list[Found] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    mistakes: list[tuple[str, Mistake]] = field(default_factory=list)
    notes: list[tuple[str | None, str]] = field(default_factory=list)


def find(benchmark: Benchmark, names: Iterable[str], texts: Texts) -> Finding:
    """Finds the parts of a benchmark.

    Args:
        benchmark: which.
        names: of all images of the source.
        texts: functions that read its text files, by their names.

    Raises:
        DataError: a part is there twice.
    """
    return _Finder(benchmark, natural_sort(names), texts).finding


class _Finder:
    def __init__(self, benchmark: Benchmark, names: list[str], texts: Texts) -> None:
        self.finding = Finding()
        self._name, self._names, self._texts = benchmark.name, names, texts
        self._matches: dict[str, list[Match]] = {}
        self._lists: dict[Layout, set[frozenset[tuple[str, str]]]] = {}
        self._owners: dict[str, str] = {}  # the template that has taken a name: the first that fits does
        self._shared = Counter(layout.gt for part in benchmark.parts for layout in part.layouts)
        for part in benchmark.parts:
            self._find(part)
        if self.finding.found:
            self._alone()
            self._unknown()

    def _find(self, part: Part) -> None:
        candidates = [Found(part, layout, *self._pairs(layout)) for layout in part.layouts]
        # Clean images alone are meant where there are no degraded ones, not where some have no partner.
        best = max(candidates, key=lambda found: (bool(found.pairs and found.layout.lq), len(found.pairs)))
        if not best.pairs:
            self._absent(part)
            return
        for template in best.layout.templates:
            for found in self._fitting(template):
                self._owners.setdefault(found.name, template)
        best = Found(part, best.layout, best.folder, self._distinct(part, best.pairs))
        self.finding.found.append(best)

    def _absent(self, part: Part) -> None:
        """Says that a part is not there, and which images of it are."""
        lacking = quoted([layout.listed for layout in part.layouts if layout.listed and not self._text(layout.listed)])
        wanted = ' or '.join(quoted([layout.templates[0] for layout in part.layouts[:2]]))
        more = f', needs {lacking[0]} beside it' if lacking else f', looked for {wanted}'
        self.finding.absent[part.name] = f"'{part.name}' is not there{more}"
        for layout in part.layouts:
            for template, other, what in (
                (layout.lq, layout.gt, 'ground truth'),
                (layout.gt, layout.lq, 'degraded image'),
            ):
                alone = [m.name for m in self._fitting(template)] if template and other and not layout.listed else []
                if alone and self._shared[template] <= 1:
                    self._mistake(part, f"no {what} '{other}' for ", alone)

    def _fitting(self, template: str) -> list[Match]:
        """Gives the names that fit a template, and no template of an earlier part."""
        if template not in self._matches:
            self._matches[template] = [found for name in self._names if (found := match(template, name))]
        return [m for m in self._matches[template] if self._owners.get(m.name, template) == template]

    def _pairs(self, layout: Layout) -> tuple[str, list[Pair]]:
        """Gives the folder that a layout lies in, '' for the source itself, and the pairs there."""
        gts = self._fitting(layout.gt)
        gts = [m for m in gts if layout.only is None or set(m.folded.values()) <= layout.only]
        pairs: dict[str, list[Pair]] = {}
        if layout.lq is None:
            for gt in gts:
                pairs.setdefault(gt.folder, []).append(Pair(gt.key, gt.name))
        else:
            chosen = self._chosen(layout)
            for lq, gt in _partners(layout, self._fitting(layout.lq), gts):
                if chosen is None or frozenset(lq.folded.items()) in chosen:
                    pairs.setdefault(lq.folder, []).append(Pair(lq.key, gt.name, lq.name))
        if len(pairs) > 1:
            places = ' and '.join(quoted(sorted(pairs, key=len)[:2]))
            what = f"'{layout.templates[0]}' of {self._name}"
            raise DataError(f'{what} is there more than once, in {places}: name one of these folders with --from')
        return next(iter(pairs.items()), ('', []))

    def _text(self, file: str) -> str | None:
        """Finds a text file, wherever it is."""
        return next((name for name in self._texts if os.path.basename(name).lower() == file.lower()), None)

    def _chosen(self, layout: Layout) -> set[frozenset[tuple[str, str]]] | None:
        """Gives which degraded images a layout's list names, by their words; None: it has none, all are meant."""
        if layout.listed is None:
            return None
        if layout not in self._lists:
            self._lists[layout] = self._listed(layout)
        return self._lists[layout]

    def _listed(self, layout: Layout) -> set[frozenset[tuple[str, str]]]:
        file = self._text(layout.listed)
        if file is None:
            return set()
        try:
            tokens = decode(self._texts[file](), 'replace').replace('\\', '/').split()
        except ValueError as error:
            raise DataError(f"'{file}' {error}; save it as UTF-8") from error
        # The list of another paper may have other folders: then the names alone count.
        templates = (layout.lq, layout.lq.rpartition('/')[2])
        found = (next((m for t in templates if (m := match(t, token))), None) for token in tokens)
        return {frozenset(m.folded.items()) for m in found if m}

    def _distinct(self, part: Part, pairs: list[Pair]) -> list[Pair]:
        """Gives pairs in order of their keys; BasicSR ends a key at the first dot, so that dots become underscores."""
        kept: dict[str, Pair] = {}
        for pair in pairs:
            key = pair.key.replace('.', '_')
            first = kept.setdefault(key, Pair(key, *pair.names[::-1]))
            if first.names != pair.names:
                before = f"'{first.names[0]}' has the key '{key}' already, so left out is "
                self._mistake(part, before, [pair.names[0]], '; remove one of them')
        return [kept[key] for key in natural_sort(kept)]

    def _alone(self) -> None:
        """Reports images of the parts that are there which have no partner."""
        used = {name for found in self.finding.found for pair in found.pairs for name in pair.names}
        told = {item[1:-1] for _, mistake in self.finding.mistakes for item in mistake.items}
        for found in self.finding.found:
            layout, rest = found.layout, []
            for template in layout.templates:
                fitting = [m for m in self._fitting(template) if m.folder == found.folder]
                rest.append([m for m in fitting if m.name not in used and m.name not in told])
            told |= {m.name for matches in rest for m in matches}
            part, gts = found.part, [m.name for m in rest[-1]]
            chosen = self._chosen(layout)
            lqs = [m.name for m in rest[0] if chosen is None or frozenset(m.folded.items()) in chosen]
            if layout.lq is None:  # others than `only`
                self._note(part, 'left alone are ', gts)
                continue
            self._mistake(part, f"no ground truth '{layout.gt}' for ", lqs)
            # Where parts share ground truths, or images of one do, some may belong to what has been left out.
            if chosen is None and (self._shared[layout.gt] > 1 or part.gts):
                self._note(part, 'no degraded image for the ground truths ', gts)
            elif chosen is None:
                self._mistake(part, f"no degraded image '{layout.lq}' for ", gts)

    def _mistake(self, part: Part, before: str, names: list[str], after: str = '') -> None:
        if names:
            self.finding.mistakes.append((part.name, Mistake(before, quoted(names), after)))

    def _note(self, part: Part, before: str, names: list[str]) -> None:
        if names:
            sentence = Mistake(f"'{part.name}': {before}", quoted(names), '').sentence()
            self.finding.notes.append((part.name, sentence))

    def _unknown(self) -> None:
        """Reports images that fit no template: beside the benchmark's they are a mistake, elsewhere something else."""
        known = {m.name for matches in self._matches.values() for m in matches}
        places: dict[str, tuple[Part, str]] = {}
        for found in self.finding.found:
            for pair in found.pairs:
                for name, template in zip(pair.names, found.layout.templates, strict=True):
                    places.setdefault(os.path.dirname(name), (found.part, template))
        strange, others = {}, []
        for name in self._names:
            if name not in known:
                place = places.get(os.path.dirname(name))
                strange.setdefault(place, []).append(name) if place else others.append(name)
        for (part, template), images in strange.items():
            self._mistake(part, 'left out ', images, f", whose names do not fit '{template}'; rename or remove them")
        if others:
            note = f"{len(others)} images elsewhere are left alone, such as '{others[0]}'"
            self.finding.notes.append((None, note))


def _partners(layout: Layout, lqs: list[Match], gts: list[Match]) -> Iterator[tuple[Match, Match]]:
    """Gives pairs: their words agree to the letter, or but for case and accents where that leaves no doubt."""
    words = [word for word in words_of(layout.lq) if word in words_of(layout.gt)]

    def spelt(m: Match) -> tuple[str, ...]:
        return (m.folder, *(m.words[word] for word in words))

    there = {spelt(gt): gt for gt in reversed(gts)}
    wanted = set(map(spelt, lqs))
    left: dict[tuple[str, ...], tuple[list, list]] = {}
    for i, spellings in enumerate((wanted - there.keys(), there.keys() - wanted)):
        for spelling in spellings:
            folded = (spelling[0], *map(fold, spelling[1:]))
            left.setdefault(folded, ([], []))[i].append(spelling)
    there |= {lq[0]: there[gt[0]] for lq, gt in left.values() if len(lq) == len(gt) == 1}
    yield from ((lq, there[spelt(lq)]) for lq in lqs if spelt(lq) in there)
