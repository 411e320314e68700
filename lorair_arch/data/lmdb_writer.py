"""Writing of LMDBs in BasicSR's layout."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import lmdb
import numpy as np

from lorair_arch.data.images.writing import encode_png
from lorair_arch.data.stores import key_bytes
from lorair_arch.errors import DataError, OutputError

_LINE = re.compile(r'(?P<key>.+)\.png \(\d+,\d+,3\) [01]')
_SOURCE = 'source.txt'
_LITTLE = 2**20  # bytes


class LmdbWriter:
    """Writes images into an LMDB that BasicSR's data sets and ours can read.

    A context manager: the LMDB appears under its name when it is complete, or not at all.

    Args:
        path: a new folder; its name ends in '.lmdb', as BasicSR demands.
        compressed: if not, images take up to twice the space and a fifth of the time to read.
        source: what the images are made from, in a line. With it, what a killed or failed process has written is kept,
            and the next writer with the same source goes on; and one that is complete is taken as it is.
        overwrite: whether another LMDB of this name is replaced, at the end.

    Attributes:
        done: the keys of images that are there.
        complete: whether the LMDB was made from this source before; nothing can be put into it.

    Raises:
        DataError: if the name is wrong, or it cannot be written.
        OutputError: if the folder exists.
    """

    def __init__(self, path: str, compressed: bool = True, source: str | None = None, overwrite: bool = False) -> None:
        if not path.endswith('.lmdb'):
            raise DataError(f"the name of an LMDB must end in '.lmdb', found '{path}'")
        self.complete = source is not None and not overwrite and _source(path) == source
        if os.path.lexists(path) and not self.complete and not overwrite:
            raise OutputError(f"'{path}' exists already; remove it or choose another name")
        # Beside the new one, to be renamed: on another disk that would be a copy.
        self._path, self._partial, self._compressed = path, f'{path}.partial', compressed
        self._source = source
        self._lines: dict[str, str] = {}  # of meta_info.txt, by their keys

    @property
    def done(self) -> set[str]:
        return set(self._lines)

    def __enter__(self) -> LmdbWriter:
        if self.complete:
            self._lines = _lines(self._path)
            return self
        going_on = self._source is not None and _source(self._partial) == self._source
        if not going_on:
            shutil.rmtree(self._partial, ignore_errors=True)
        try:
            os.makedirs(self._partial, exist_ok=True)
            # The map is a limit, not an allocation. Without a source everything is synced once, at the end. Nobody else
            # knows of the folder, and a file of locks would kill the process on a full disk.
            sync = self._source is not None
            self._environment = lmdb.open(self._partial, map_size=2**40, sync=sync, lock=False)
            if going_on:
                self._lines = {key: line for key, line in _lines(self._partial).items() if self._holds(key)}
            meta = os.path.join(self._partial, 'meta_info.txt')
            self._meta = open(meta, 'a', encoding='utf-8', errors='surrogateescape')
            self._meta.write('\n' if going_on else '')  # the last line may be cut
            if sync and not going_on:
                Path(self._partial, _SOURCE).write_text(f'{self._source}\n', encoding='utf-8')
        except (OSError, lmdb.Error) as error:
            if going_on:  # nothing that is done is lost
                what, remedy = f"cannot go on with '{self._partial}'", '; mend that, or remove it to begin again'
            else:
                what, remedy = f"cannot write '{self._path}'", ''
                shutil.rmtree(self._partial, ignore_errors=True)
            raise OutputError(f'{what}: {error}{remedy}') from error
        return self

    def put(self, key: str, image: np.ndarray) -> None:
        """Stores an image, RGB, uint8 or uint16 [H, W, 3], as PNG.

        Raises:
            DataError: if the key is in use, empty or longer than LMDB allows, or the disk is full.
        """
        self.put_encoded([(key, encode_png(image, self._compressed), image.shape[:2])])

    def put_encoded(self, images: Iterable[tuple[str, bytes, tuple[int, int]]]) -> None:
        """Stores images, together or not at all: their keys, what is in their files, and (height, width).

        Raises:
            DataError: as `put`.
        """
        lines: dict[str, str] = {}
        what = ''
        try:
            with self._environment.begin(write=True) as transaction:
                for key, content, (height, width) in images:
                    what = f"'{key}' "
                    if key in self._lines or key in lines:
                        raise DataError(f"two images would have the key '{key}' in '{self._path}'; rename one of them")
                    # BasicSR's line; its last number is OpenCV's level of compression.
                    lines[key] = f'{key}.png ({height},{width},3) {int(self._compressed)}\n'
                    transaction.put(key_bytes(key), content)
            self._meta.writelines(lines.values())
            self._meta.flush()
        except (OSError, lmdb.Error) as error:
            # LMDB calls it an error of input and output
            full = '; the disk is full: free some space' if shutil.disk_usage(self._partial).free < _LITTLE else ''
            raise DataError(f"cannot write {what}to '{self._path}': {error}{full}") from error
        self._lines |= lines

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self.complete:
            return
        kept = self._source is not None and self._lines
        try:
            with self._environment, self._meta:
                if kind is None:
                    self._meta.truncate(0)  # lines may have been cut, or of images that did not follow
                    self._meta.writelines(self._lines.values())
                    self._meta.flush()
                    os.fsync(self._meta.fileno())
                    # Where `sync=False` put it off: the name must not stand before the bytes.
                    if self._source is None:
                        self._environment.sync(True)
            if kind is None:
                self._publish()
        except (OSError, lmdb.Error) as failure:
            raise OutputError(f"cannot write '{self._path}': {failure}") from failure
        finally:
            if not kept:
                shutil.rmtree(self._partial, ignore_errors=True)  # unless it has its name

    def _publish(self) -> None:
        old = f'{self._path}.replaced'
        if os.path.lexists(self._path):  # to be overwritten: out of the way first, as folders cannot be replaced
            shutil.rmtree(old, ignore_errors=True)
            os.rename(self._path, old)
        os.rename(self._partial, self._path)
        shutil.rmtree(old, ignore_errors=True)

    def _holds(self, key: str) -> bool:
        with self._environment.begin() as transaction:
            return transaction.get(key_bytes(key)) is not None


def _source(path: str) -> str | None:
    """Gives what an LMDB, or a part of one, was made from, if it says so."""
    try:
        return Path(path, _SOURCE).read_text(encoding='utf-8').strip()
    except (OSError, ValueError):
        return None


def _lines(path: str) -> dict[str, str]:
    """Reads the whole lines of a meta_info.txt by their keys."""
    try:
        with open(Path(path, 'meta_info.txt'), encoding='utf-8', errors='surrogateescape') as file:
            return {found['key']: line for line in file if (found := _LINE.fullmatch(line.rstrip('\n')))}
    except OSError:
        return {}
