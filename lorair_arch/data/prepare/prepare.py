"""`lorair data prepare`: finds a benchmark's images, checks every one, and writes LMDBs of them."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.data.parallel import parallel
from lorair_arch.data.prepare.archives import Files
from lorair_arch.data.prepare.benchmarks import Benchmark, Part
from lorair_arch.data.prepare.layouts import Finding, Found, Pair, find
from lorair_arch.data.prepare.others import OTHERS
from lorair_arch.data.prepare.reading import read_image, read_pair
from lorair_arch.data.prepare.weather import WEATHER
from lorair_arch.data.prepare.wrong import not_found
from lorair_arch.data.stores import natural_sort, read_meta_info
from lorair_arch.errors import DataError, OptionsError, OutputError, did_you_mean
from lorair_arch.files import check_folder

BENCHMARKS = WEATHER | OTHERS
_BATCH = 2**26, 1.0  # bytes and seconds after which images are on the disk for good


class _Nothing(Exception):
    """None of the images of a part can be used."""


@dataclass
class Report:
    """What was found and made.

    Attributes:
        rows: of the table, one for each part.
        sources: lines for an options file.
        notes: what may be meant, such as other counts than the known ones.
        mistakes: what was left out, and why, a sentence each.
    """

    rows: list[tuple] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        header = ('part', 'found', 'known', 'prepared', 'smallest', 'largest', 'LMDBs')
        table = tabulate(self.rows, header, 'github', disable_numparse=True)
        return f'{table}\n\nsources:\n' + ''.join(f'  - {line}\n' for line in self.sources)


def prepare(
    name: str, source: str, out: str | None = None, overwrite: bool = False, parts: Sequence[str] = ()
) -> Report:
    """Makes LMDBs of all parts of a benchmark that a folder or archive holds.

    What can be used is prepared, whatever else is wrong. A run that was stopped, or killed, goes on where it was.

    Args:
        name: of the benchmark.
        source: a folder, which may hold archives, or an archive.
        out: the folder of the LMDBs; by default 'datasets/NAME'.
        overwrite: whether LMDBs of these names that were made of something else are replaced.
        parts: of the benchmark; by default all that are there.

    Raises:
        OptionsError: there is no such benchmark, or no such part.
        DataError: the source holds nothing of it, or an archive is damaged.
        OutputError: an LMDB exists already, or cannot be written.
    """
    if name not in BENCHMARKS:
        raise OptionsError(f"NAME: found '{name}', expected a benchmark{did_you_mean(name, BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    known = [part.name for part in benchmark.parts]
    for part in parts:
        if part not in known:
            raise OptionsError(f"--parts: found '{part}', expected parts of {name}{did_you_mean(part, known)}")
    folder = Path(out or os.path.join('datasets', name))
    check_folder(folder)
    with _no_empty_folders(folder):
        work = folder / 'unpacked.partial'
        with _found(benchmark, source, work) as (files, finding):
            writing = _Writing(name, files, folder, overwrite, finding.found)
            for found in finding.found:
                if found.part.name in (parts or known):
                    writing.write(found)
        shutil.rmtree(work, ignore_errors=True)
    report = _finished(writing.report, finding, files.mistakes, parts or known)
    if not report.rows:
        lines = [*report.mistakes, *(finding.absent[part] for part in parts if part in finding.absent)]
        raise DataError('\n'.join([*lines, f"nothing of '{source}' can be used"]))
    return report


@contextmanager
def _no_empty_folders(folder: Path) -> Iterator[None]:
    """Removes a folder, and those above it, that were made and stayed empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in missing:
            with suppress(OSError):  # it is of use, or was never made
                path.rmdir()


@contextmanager
def _found(benchmark: Benchmark, source: str, work: Path) -> Iterator[tuple[Files, Finding]]:
    """Opens a source and finds a benchmark in it; removes what was unpacked if that is of no use."""
    with ExitStack() as stack:
        try:
            files = stack.enter_context(Files(source, work))
            finding = find(benchmark, files.images, files.texts)
            if not finding.found:
                raise DataError(not_found(benchmark, source, list(files.images), BENCHMARKS))
        except OutputError:  # such as a full disk: the next run goes on
            raise
        except DataError:
            shutil.rmtree(work, ignore_errors=True)
            raise
        yield files, finding


def _finished(report: Report, finding: Finding, left_out: list[str], parts: Sequence[str]) -> Report:
    """Adds what was found on the way to the parts that are wanted."""
    absent = [sentence for part, sentence in finding.absent.items() if part in parts]
    report.notes = absent + [note for part, note in finding.notes if part in (*parts, None)] + report.notes
    found = [line for part, mistake in finding.mistakes if part in parts for line in mistake.lines()]
    report.mistakes = list(dict.fromkeys(left_out + found + report.mistakes))  # parts may share an image
    return report


class _Writing:
    """Writes one part after the other; the ground truths that several share, once."""

    def __init__(self, name: str, files: Files, folder: Path, overwrite: bool, parts: Iterable[Found]) -> None:
        self.report = Report()
        self._name, self._files, self._folder, self._overwrite = name, files, folder, overwrite
        # Of all parts that are there, wanted or not: an LMDB of some would fail the others that share it.
        self._shared: dict[str, dict[str, Pair]] = {}
        for found in parts:
            if found.part.shared_gt:
                clean = self._shared.setdefault(found.part.shared_gt, {})
                clean |= {pair.key: Pair(pair.key, pair.gt) for pair in found.pairs}
        self._written: set[str] = set()  # LMDBs of this run

    def write(self, found: Found) -> None:
        """Writes the LMDBs of a part, and its row of the report."""
        part, pairs = found.part, found.pairs
        lq, gt = (str(self._folder / f'{part.name}_{side}.lmdb') for side in ('lq', 'gt'))
        roots = {'gt': gt} if found.layout.lq is None else {'lq': lq, 'gt': gt}
        if part.shared_gt is None:
            failed, keys = self._store(part, pairs, roots)
        else:
            clean = self._shared[part.shared_gt]
            shared = str(self._folder / f'{part.shared_gt}_gt.lmdb')
            _, there = self._store(part, [clean[key] for key in natural_sort(clean)], {'gt': shared})
            failed, keys = self._store(part, pairs, {'lq': lq})
            if keys == there:
                roots['gt'] = shared
            elif keys:  # BasicSR wants the same keys on both sides
                self._store(part, [clean[pair.key] for pair in pairs if pair.key in keys], {'gt': gt})
        self.report.mistakes += failed
        if keys:
            self._tell(found, roots, len(keys))

    def _store(self, part: Part, pairs: list[Pair], roots: dict[str, str]) -> tuple[list[str], set[str]]:
        """Writes one or both sides of pairs; gives a sentence for each that cannot be used, and the others' keys."""
        with suppress(_Nothing), ExitStack() as stack:
            made_from = {side: self._made_from(part, pairs, side) for side in roots}
            writers = {side: stack.enter_context(self._writer(root, made_from[side])) for side, root in roots.items()}
            kept = [writer.done for writer in writers.values() if writer.complete]
            lost = [pair for pair in pairs if any(pair.key not in done for done in kept)]
            after = 'was left out when the LMDB was made; --overwrite tries again'
            failed = [f"'{pair.names[0]}' {after}" for pair in lost]
            lost = set(lost)
            wanted = [pair for pair in pairs if pair not in lost]
            failed += self._fill(writers, wanted, part)
            keys = set.intersection(*(writer.done for writer in writers.values()))
            if not keys:
                raise _Nothing  # so that no LMDB is made
        self._written |= set(roots.values()) if keys else set()
        return failed, keys

    def _writer(self, path: str, source: str) -> LmdbWriter:
        try:
            return LmdbWriter(path, source=source, overwrite=self._overwrite and path not in self._written)
        except OutputError as error:
            raise OutputError(
                f"'{path}' exists already, made of something else: choose another --out, or --overwrite to replace it"
            ) from error

    def _made_from(self, part: Part, pairs: list[Pair], side: str) -> str:
        """Says in a line what an LMDB is made from: it tells whether one that is there can be gone on with."""
        digest = hashlib.blake2b(digest_size=16)
        for pair in pairs:
            name = pair.gt if side == 'gt' else pair.lq
            digest.update(f'{pair.key}\0{name}\0{self._files.images[name]}\n'.encode('utf-8', 'surrogateescape'))
        shared = part.shared_gt if side == 'gt' else None
        return f'{self._name} {shared or part.name} {side} {digest.hexdigest()}'

    def _fill(self, writers: dict[str, LmdbWriter], pairs: list[Pair], part: Part) -> list[str]:
        """Reads, checks and stores what is not there yet; gives a sentence for each pair that cannot be used."""
        failed, waiting = [], {side: [] for side in writers}
        there = [writer.done for writer in writers.values() if not writer.complete]
        todo = [pair for pair in pairs if any(pair.key not in done for done in there)]
        size, since = 0, time.monotonic()

        def store() -> None:
            for side, writer in writers.items():
                if not writer.complete:
                    done = writer.done
                    writer.put_encoded(image for image in waiting[side] if image[0] not in done)
                waiting[side].clear()

        read = functools.partial(read_image, self._files)
        # Several degraded images may have one ground truth, and lie beside each other.
        read_gt = functools.lru_cache(maxsize=4)(read) if part.gts else read
        results = parallel(functools.partial(read_pair, read, read_gt, part.crop_gt), todo, self._bytes)
        count, unit = len(pairs), 'pair' if 'lq' in writers else 'image'
        bar = tqdm(results, part.name, count, False, unit=unit, disable=None, initial=count - len(todo))
        for pair, images in bar:
            if isinstance(images, str):
                failed.append(images)
                continue
            for side in writers:
                content, shape = images[side]
                waiting[side].append((pair.key, content, shape))
                size += len(content)
            if size > _BATCH[0] or time.monotonic() - since > _BATCH[1]:
                store()
                size, since = 0, time.monotonic()
        store()
        return failed

    def _bytes(self, pair: Pair) -> int:
        return sum(self._files.images[name][0] for name in pair.names)

    def _tell(self, found: Found, roots: dict[str, str], prepared: int) -> None:
        part, report = found.part, self.report
        sizes = list(read_meta_info(os.path.join(roots['gt'], 'meta_info.txt'), 'surrogateescape').values())
        sizes.sort(key=lambda size: (size[0] * size[1], size))
        known = '?' if part.pairs is None else part.pairs
        shown = ['{} x {}'.format(*sizes[i]) for i in (0, -1)]
        report.rows.append((part.name, len(found.pairs), known, prepared, *shown, ', '.join(roots.values())))
        if part.pairs not in (None, len(found.pairs)):
            what = 'pairs' if 'lq' in roots else 'images'
            report.notes.append(f"'{part.name}' has {len(found.pairs)} of {part.pairs} {what}")
        gts = len({pair.gt for pair in found.pairs})
        if part.gts not in (None, gts):
            report.notes.append(f"'{part.name}' has {gts} of {part.gts} different ground truths")
        others = [size for size in sizes if part.size and sorted(size) != sorted(part.size)]
        if others:
            expected = '{} x {}'.format(*part.size)
            report.notes.append(f"'{part.name}' has {len(others)} images that are not {expected} pixels")
        lq = f'dataroot_lq: {roots["lq"]}, ' if 'lq' in roots else ''
        more = f', degrade: {part.degrade}' if part.degrade else ''
        report.sources.append(f'{{degradation: {part.degradation}, {lq}dataroot_gt: {roots["gt"]}{more}}}')
