"""`lorair data prepare`: finds a benchmark's images, checks every one, and writes LMDBs of them."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tabulate import tabulate
from tqdm import tqdm

from lorair_arch.data.images.kinds import jpeg_header, kind_of
from lorair_arch.data.images.metadata import read_metadata
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import decode_photo
from lorair_arch.data.images.writing import encode_png
from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.data.prepare.archives import Files
from lorair_arch.data.prepare.layouts import Finding, Found, Pair, find
from lorair_arch.data.prepare.others import OTHERS
from lorair_arch.data.prepare.weather import WEATHER
from lorair_arch.data.prepare.wrong import not_found
from lorair_arch.data.stores import read_meta_info
from lorair_arch.errors import DataError, OptionsError, OutputError, did_you_mean, different_sizes
from lorair_arch.files import check_folder

BENCHMARKS = WEATHER | OTHERS
_MAX_THREADS = 16
_BATCH = 2**26, 1.0  # bytes and seconds after which images are on the disk for good

_Image = tuple[bytes, tuple[int, int]]  # what is in the file, (height, width)
_Read = Callable[[str], tuple[_Image, Photo]]
_Item = TypeVar('_Item')
_Result = TypeVar('_Result')


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


def prepare(name: str, source: str, out: str | None = None, overwrite: bool = False) -> Report:
    """Makes LMDBs of all parts of a benchmark that a folder or archive holds.

    What can be used is prepared, whatever else is wrong. A run that was stopped, or killed, goes on where it was.

    Args:
        name: of the benchmark.
        source: a folder, which may hold archives, or an archive.
        out: the folder of the LMDBs; by default 'datasets/NAME'.
        overwrite: whether LMDBs of these names that were made of something else are replaced.

    Raises:
        OptionsError: there is no such benchmark.
        DataError: the source holds nothing of it, or an archive is damaged.
        OutputError: an LMDB exists already, or cannot be written.
    """
    if name not in BENCHMARKS:
        raise OptionsError(f"NAME: found '{name}', expected a benchmark{did_you_mean(name, BENCHMARKS)}")
    folder = Path(out or os.path.join('datasets', name))
    check_folder(folder)
    work = folder / 'unpacked.partial'
    with Files(source, work) as files:
        finding = find(BENCHMARKS[name], files.images, files.texts)
        if not finding.found:
            raise DataError(not_found(BENCHMARKS[name], source, list(files.images), BENCHMARKS))
        writing = _Writing(name, files, folder, overwrite)
        for found in finding.found:
            writing.write(found)
    shutil.rmtree(work, ignore_errors=True)
    return _finished(writing.report, finding, files.mistakes)


def _finished(report: Report, finding: Finding, left_out: list[str]) -> Report:
    report.notes = finding.absent + finding.notes + report.notes
    report.mistakes = left_out + [line for m in finding.mistakes for line in m.lines()] + report.mistakes
    return report


class _Writing:
    """Writes one part after the other; the ground truths that several share, once."""

    def __init__(self, name: str, files: Files, folder: Path, overwrite: bool) -> None:
        self.report = Report()
        self._name, self._files, self._folder, self._overwrite = name, files, folder, overwrite
        self._written: dict[str, str] = {}  # what LMDBs of this run were made from

    def write(self, found: Found) -> None:
        part, sides = found.part, ('gt',) if found.layout.lq is None else ('lq', 'gt')
        paths = {side: self._path(found, side) for side in sides}
        failed: list[str] = []
        with ExitStack() as stack:
            writers = {side: stack.enter_context(self._writer(paths[side], found, side)) for side in sides}
            todo = [pair for pair in found.pairs if any(self._lacks(writer, pair) for writer in writers.values())]
            kept = [writer.done for writer in writers.values() if writer.complete]
            lost = [pair for pair in found.pairs if any(pair.key not in done for done in kept)]
            failed += [
                f"'{pair.names[0]}' was left out when the LMDB was made: --overwrite tries again" for pair in lost
            ]
            todo = [pair for pair in todo if pair not in lost]
            failed += self._fill(writers, todo, found)
            if not all(writer.done for writer in writers.values()):
                more = f'; the first: {failed[0]}' if failed else ''
                raise DataError(f"none of the {len(found.pairs)} images of '{part.name}' can be used{more}")
        self._written |= {paths[side]: self._made_from(found, side) for side in sides}
        self._tell(found, paths, failed)

    def _path(self, found: Found, side: str) -> str:
        """Gives the LMDB of a side: parts that share their ground truths share it, as long as they are the same."""
        own, shared = (self._folder / f'{name}_{side}.lmdb' for name in (found.part.name, found.part.shared_gt))
        if side == 'lq' or found.part.shared_gt is None:
            return str(own)
        made_from = self._made_from(found, side)
        return str(shared if self._written.get(str(shared), made_from) == made_from else own)

    def _writer(self, path: str, found: Found, side: str) -> LmdbWriter:
        try:
            overwrite = self._overwrite and path not in self._written
            return LmdbWriter(path, source=self._made_from(found, side), overwrite=overwrite)
        except OutputError as error:
            raise OutputError(
                f"'{path}' exists already, made of something else: choose another --out, or --overwrite to replace it"
            ) from error

    def _made_from(self, found: Found, side: str) -> str:
        """Says in a line what an LMDB is made from: it tells whether one that is there can be gone on with."""
        digest = hashlib.blake2b(digest_size=16)
        for pair in found.pairs:
            name = pair.gt if side == 'gt' else pair.lq
            digest.update(f'{pair.key}\0{name}\0{self._files.images[name]}\n'.encode('utf-8', 'surrogateescape'))
        part = found.part.shared_gt if side == 'gt' and found.part.shared_gt else found.part.name
        return f'{self._name} {part} {side} {digest.hexdigest()}'

    @staticmethod
    def _lacks(writer: LmdbWriter, pair: Pair) -> bool:
        return not writer.complete and pair.key not in writer.done

    def _fill(self, writers: dict[str, LmdbWriter], todo: list[Pair], found: Found) -> list[str]:
        """Reads, checks and stores pairs; gives a sentence for each that cannot be used."""
        failed, waiting = [], {side: [] for side in writers}
        size, since = 0, time.monotonic()

        def store() -> None:
            for side, writer in writers.items():
                if not writer.complete:
                    done = writer.done
                    writer.put_encoded(image for image in waiting[side] if image[0] not in done)
                waiting[side].clear()

        read = functools.partial(_read, self._files)
        # Several degraded images may have one ground truth, and lie beside each other.
        read_gt = functools.lru_cache(maxsize=4)(read) if found.part.gts else read
        results = _parallel(functools.partial(_read_pair, read, read_gt, found.part.crop_gt), todo)
        count, unit = len(found.pairs), 'image' if found.layout.lq is None else 'pair'
        bar = tqdm(results, found.part.name, count, False, unit=unit, disable=None, initial=count - len(todo))
        for pair, images in bar:
            if isinstance(images, str):
                failed.append(images)
                continue
            for side, (content, shape) in zip(writers, images, strict=True):
                waiting[side].append((pair.key, content, shape))
                size += len(content)
            if size > _BATCH[0] or time.monotonic() - since > _BATCH[1]:
                store()
                size, since = 0, time.monotonic()
        store()
        return failed

    def _tell(self, found: Found, paths: dict[str, str], failed: list[str]) -> None:
        part, report = found.part, self.report
        sizes = sorted(read_meta_info(os.path.join(paths['gt'], 'meta_info.txt'), 'surrogateescape').values())
        sizes.sort(key=lambda size: size[0] * size[1])
        known = '?' if part.pairs is None else part.pairs
        shown = ['{} x {}'.format(*sizes[i]) for i in (0, -1)]
        prepared = len(found.pairs) - len(failed)
        report.rows.append((part.name, len(found.pairs), known, prepared, *shown, ', '.join(paths.values())))
        report.mistakes += failed
        if part.pairs not in (None, len(found.pairs)):
            report.notes.append(f"'{part.name}' has {len(found.pairs)} of {part.pairs} images")
        gts = len({pair.gt for pair in found.pairs})
        if part.gts not in (None, gts):
            report.notes.append(f"'{part.name}' has {gts} of {part.gts} different ground truths")
        others = [size for size in sizes if part.size and sorted(size) != sorted(part.size)]
        if others:
            expected = '{} x {}'.format(*part.size)
            report.notes.append(f"'{part.name}' has {len(others)} images that are not {expected} pixels")
        lq = f'dataroot_lq: {paths["lq"]}, ' if 'lq' in paths else ''
        more = f', degrade: {part.degrade}' if part.degrade else ''
        report.sources.append(f'{{degradation: {part.degradation}, {lq}dataroot_gt: {paths["gt"]}{more}}}')


def _parallel(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[tuple[_Item, _Result]]:
    """Calls a function in threads, a few items ahead, and gives the results in order."""
    threads = min(os.cpu_count() or 1, _MAX_THREADS)
    waiting: deque[tuple[_Item, Future[_Result]]] = deque()
    # Threads: decoders let go of Python's lock. Not `map`, which would keep the images of a whole data set.
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > 8 * threads:
                item, future = waiting.popleft()
                yield item, future.result()
        yield from ((item, future.result()) for item, future in waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _read_pair(read: _Read, read_gt: _Read, crop_gt: bool, pair: Pair) -> list[_Image] | str:
    """Gives what is to be stored of a pair, degraded image first, or the sentence that says why it cannot be used."""
    try:
        gt, photo = read_gt(pair.gt)
        if pair.lq is None:
            return [gt]
        lq, _ = read(pair.lq)
    except DataError as error:
        return str(error)
    border = [side - wanted for side, wanted in zip(gt[1], lq[1], strict=True)]
    if crop_gt and max(border) > 0 and all(side >= 0 and side % 2 == 0 for side in border):
        top, left = (side // 2 for side in border)
        pixels = photo.rgb[top : top + lq[1][0], left : left + lq[1][1]]
        gt = encode_png(pixels), lq[1]
    if lq[1] != gt[1]:
        return different_sizes(pair.lq, lq[1][::-1], pair.gt, gt[1][::-1])
    return [lq, gt]


def _read(files: Files, name: str) -> tuple[_Image, Photo]:
    """Reads and decodes an image; gives what is to be stored, and its pixels.

    A file that BasicSR reads as we do is stored as it is, to the bit; of all others, a PNG of the pixels.

    Raises:
        DataError: it is damaged, or no image.
    """
    content = files.read(name)
    photo = decode_photo(content, name)
    kind = kind_of(content, name)
    kept = kind in ('JPEG', 'PNG') and photo.pixels.itemsize == 1
    kept &= kind != 'JPEG' or jpeg_header(content).channels != 4  # CMYK, of which everybody makes other colours
    # BasicSR would turn it, see `decode_photo`.
    turned = (b'Exif\0' in content or b'eXIf' in content) and read_metadata(content).orientation != 1
    height, width = photo.pixels.shape[:2]
    return (content if kept and not turned else encode_png(photo.rgb), (height, width)), photo
