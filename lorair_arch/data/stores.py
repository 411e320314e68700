"""Where images lie: a folder of files or a BasicSR LMDB, both as a mapping from keys to encoded images."""

from __future__ import annotations

import functools
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import lmdb
import numpy as np

from lorair_arch.data.images import IMAGE_SUFFIXES, decode_image, read_bytes
from lorair_arch.errors import DataError

# `name.png (480,480,3) 1`: the line of BasicSR's meta_info.txt; the shape and the compression level may be absent.
_META_LINE = re.compile(r'(?P<key>.+)\.\w+( \(\d+,\d+,\d+\))?( \d+)?')


class Store(ABC):
    """Encoded images by key.

    Attributes:
        root: the folder or LMDB.
        keys: in natural order.
    """

    root: str
    keys: list[str]

    @abstractmethod
    def path(self, key: str) -> str:
        """Gives the path of an image, for messages and for the names of results."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """Reads what is stored, or raises a DataError that names it."""

    def load(self, key: str) -> np.ndarray:
        """Decodes an image, see `images.decode_image`."""
        return decode_image(self.read(key), self.path(key))


class Folder(Store):
    """The images in a folder and its subfolders; the key is the path in the folder, without the extension."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._files: dict[str, str] = {}
        for name in natural_sort(_image_files(root)):
            key = os.path.splitext(name)[0]
            if key in self._files:
                raise DataError(f"'{root}' holds both '{self._files[key]}' and '{name}'; keep one of them")
            self._files[key] = name
        if not self._files:
            is_lmdb = Path(root, 'data.mdb').exists()
            hint = "it is an LMDB: its name must end in '.lmdb'" if is_lmdb else 'check the path'
            raise DataError(f"'{root}' holds no images ({', '.join(IMAGE_SUFFIXES)}); {hint}")
        self.keys = list(self._files)

    def path(self, key: str) -> str:
        return os.path.join(self.root, self._files[key])

    def read(self, key: str) -> bytes:
        return read_bytes(self.path(key))


class Lmdb(Store):
    """A BasicSR LMDB: a folder `*.lmdb` with data.mdb and with meta_info.txt, which lists the keys."""

    def __init__(self, root: str) -> None:
        self.root = root
        for name in ('data.mdb', 'meta_info.txt'):
            if not Path(root, name).is_file():
                raise DataError(f"LMDB '{root}' has no {name}; make it with scripts/data_preparation/make_lmdb.py")
        self.keys = natural_sort(read_meta_info(os.path.join(root, 'meta_info.txt')))
        missing = [key for key in self.keys if self._get(key, buffers=True) is None]
        if missing:
            raise DataError(f"LMDB '{root}' lacks {listing(missing)}, which its meta_info.txt lists; make it again")

    def path(self, key: str) -> str:
        return f'{self.root}/{key}.png'

    def read(self, key: str) -> bytes:
        return self._get(key) or b''

    def _get(self, key: str, buffers: bool = False) -> bytes | memoryview | None:
        try:
            with lmdb_environment(os.path.realpath(self.root)).begin(buffers=buffers) as transaction:
                return transaction.get(key.encode())
        except lmdb.Error as error:
            raise DataError(f"cannot read '{key}' in LMDB '{self.root}': {error}; make the LMDB again") from error


def open_store(root: str) -> Store:
    """Opens an LMDB, if the name ends in '.lmdb', or a folder of images.

    Raises:
        DataError: if it does not exist, holds nothing or cannot be read.
    """
    if not os.path.isdir(root):
        raise DataError(f"folder '{root}' does not exist (looked for from '{os.getcwd()}'); check the path")
    return Lmdb(root) if root.rstrip('/').endswith('.lmdb') else Folder(root)


def read_meta_info(path: str) -> list[str]:
    """Reads the keys (names without extension) that a meta_info file lists, one a line.

    Raises:
        DataError: if the file cannot be read, lists nothing, or has a line that does not begin with a file name.
    """
    lines = read_bytes(path).decode('utf-8', 'replace').splitlines()
    keys = []
    for number, line in enumerate(lines, 1):
        match = _META_LINE.fullmatch(line.strip())
        if match:
            keys.append(match['key'])
        elif line.strip():
            raise DataError(f"'{path}', line {number}: expected 'name.png (height,width,channels) 1', found {line!r}")
    if not keys:
        raise DataError(f"'{path}' lists no images")
    return list(dict.fromkeys(keys))


def natural_sort(names: Iterable[str]) -> list[str]:
    """Sorts names so that 'img2' comes before 'img10'."""
    return sorted(names, key=lambda n: ([int(p) if p.isdecimal() else p for p in re.split(r'(\d+)', n)], n))


def listing(names: list[str]) -> str:
    """Names the first three and counts the rest."""
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return ', '.join(f"'{name}'" for name in names[:3]) + more


def _image_files(root: str) -> Iterable[str]:
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders.sort()
        # Each folder once: a link to a folder above would otherwise be followed for ever.
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        for name in files:
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.'):
                yield os.path.relpath(os.path.join(folder, name), root)


@functools.cache
def lmdb_environment(root: str) -> lmdb.Environment:
    """Opens an LMDB once per process: LMDB refuses a second time.

    A forked worker goes on with its parent's: for reading without locks it is no more than a mapped file.
    """
    try:
        environment = lmdb.open(root, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise DataError(f"cannot open LMDB '{root}': {error}; make it again") from error
    # To read behind the end of a mapped file would kill the process.
    expected = environment.stat()['psize'] * (environment.info()['last_pgno'] + 1)
    found = os.path.getsize(os.path.join(root, 'data.mdb'))
    if found < expected:
        environment.close()
        raise DataError(f"LMDB '{root}' is cut short: data.mdb has {found} of {expected} bytes; make it again")
    return environment
