"""Where images lie: a folder of files or a BasicSR LMDB, both as a mapping from keys to encoded images."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from lorair_arch.data.images.kinds import IMAGE_SUFFIXES
from lorair_arch.data.images.reading import decode_image, read_bytes
from lorair_arch.errors import DataError, Mistake, quoted
from lorair_arch.files import decode

Look = Callable[[bytes | memoryview], Any]  # is shown an encoded image

# `name.png (480,480,3) 1`: the line of BasicSR's meta_info.txt; the shape and the compression level may be absent.
_META_LINE = re.compile(r'(?P<key>.+)\.\w+( \((?P<height>\d+),(?P<width>\d+),\d+\))?( \d+)?')


class Store(ABC):
    """Encoded images by key.

    Attributes:
        root: the folder or LMDB.
        keys: in natural order; those that can be read, whatever else is wrong.
        mistakes: what is wrong with the store as a whole.
    """

    root: str
    keys: list[str]
    mistakes: list[Mistake]

    @abstractmethod
    def path(self, key: str) -> str:
        """Gives the path of an image, for messages and for the names of results."""

    @abstractmethod
    def opened(self, key: str) -> AbstractContextManager[bytes | memoryview]:
        """Gives what is stored, to be used within the context alone, or raises a DataError that names it."""

    def load(self, key: str, look: Look | None = None) -> np.ndarray:
        """Decodes an image, see `reading.decode_image`; shows `look` what is stored."""
        with self.opened(key) as content:
            if look:
                look(content)
            return decode_image(content, self.path(key))


class Folder(Store):
    """The images in a folder and its subfolders; the key is the path in the folder, without the extension."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._files: dict[str, str] = {}
        twice = []
        for name in natural_sort(image_files(root)):
            # Keys without suffix: a pair may be of a PNG and a JPEG.
            first = self._files.setdefault(os.path.splitext(name)[0], name)
            if first != name:
                twice.append(f"'{first}' and '{name}'")
        self.mistakes = [Mistake(f"'{root}' holds both ", twice, '; keep one of them')] if twice else []
        if not self._files:
            is_lmdb = Path(root, 'data.mdb').exists()
            hint = "it is an LMDB: its name must end in '.lmdb'" if is_lmdb else 'check the path'
            raise DataError(f"'{root}' holds no images (.png, .jpg, .tif, ...); {hint}")
        self.keys = list(self._files)

    def path(self, key: str) -> str:
        return os.path.join(self.root, self._files[key])

    def opened(self, key: str) -> AbstractContextManager[bytes]:
        return nullcontext(read_bytes(self.path(key)))


class Lmdb(Store):
    """A BasicSR LMDB: a folder `*.lmdb` with data.mdb and with meta_info.txt, which lists the keys.

    Attributes:
        sizes: (width, height) of each key as meta_info.txt has it, or None.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._place = os.path.realpath(root)
        for name in ('data.mdb', 'meta_info.txt'):
            if not Path(root, name).is_file():
                raise DataError(f"LMDB '{root}' has no {name}; make it with scripts/data_preparation/make_lmdb.py")
        self.sizes = read_meta_info(os.path.join(root, 'meta_info.txt'), 'surrogateescape')
        self.keys = [key for key in natural_sort(self.sizes) if self._holds(key)]
        missing = quoted(natural_sort(set(self.sizes) - set(self.keys)))
        after = ', which its meta_info.txt lists; make it again'
        self.mistakes = [Mistake(f"LMDB '{root}' lacks ", missing, after)] if missing else []

    def path(self, key: str) -> str:
        return f'{self.root}/{key}.png'

    @contextmanager
    def opened(self, key: str) -> Iterator[memoryview]:
        with self._reading(key) as transaction:
            # An empty image is refused by its name, when it is decoded.
            yield transaction.get(key_bytes(key)) or memoryview(b'')

    def unlisted(self) -> int:
        """Counts the images that meta_info.txt does not list, and nobody will see."""
        return lmdb_environment(self._place).stat()['entries'] - len(self.keys)

    def _holds(self, key: str) -> bool:
        with self._reading(key) as transaction:
            return transaction.get(key_bytes(key)) is not None

    @contextmanager
    def _reading(self, key: str) -> Iterator[lmdb.Transaction]:
        """Gives a transaction whose values are views of the file, valid as long as it lasts."""
        try:
            # Buffers: views of the mapped file, where bytes would copy every image.
            with lmdb_environment(self._place).begin(buffers=True) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise DataError(f"cannot read '{key}' in LMDB '{self.root}': {error}; make the LMDB again") from error


def open_store(root: str) -> Store:
    """Opens an LMDB, if the name ends in '.lmdb', or a folder of images.

    Raises:
        DataError: if it does not exist, holds nothing, has mistakes or cannot be read.
    """
    store = find_store(root)
    for mistake in store.mistakes:
        raise DataError(mistake.sentence())
    return store


def find_store(root: str) -> Store:
    """Opens a store as `open_store` does, but leaves its `mistakes` to the caller."""
    if os.path.exists(root) and not os.path.isdir(root):
        raise DataError(f"'{root}' is a file; expected a folder of images or an LMDB, which is a folder too")
    if not os.path.isdir(root):
        raise DataError(f"folder '{root}' does not exist (looked for from '{os.getcwd()}'); check the path")
    return Lmdb(root) if root.rstrip('/').endswith('.lmdb') else Folder(root)


def read_meta_info(path: str, errors: str = 'strict') -> dict[str, tuple[int, int] | None]:
    """Reads the keys (names without extension) that a meta_info file lists, one a line.

    Args:
        path: the file.
        errors: see `decode`: the lists of LMDBs have names of any bytes, as their images had.

    Returns:
        (width, height) of each image, or None where the line does not say it.

    Raises:
        DataError: if the file cannot be read, is no text in UTF-8, lists nothing, or has a line that does not begin
            with a file name, or names a file outside.
    """
    content = read_bytes(path)
    try:
        lines = decode(content, errors).splitlines()
    except ValueError as error:
        raise DataError(f"'{path}' {error}; save it as UTF-8") from error
    sizes = {}
    for number, line in enumerate(lines, 1):
        match = _META_LINE.fullmatch(line.strip())
        if match and {'', '..'} & set(match['key'].split('/')):  # results must not be written outside their folder
            raise DataError(f"'{path}', line {number}: found '{match['key']}', expected a name within its folder")
        if match:
            sizes[match['key']] = (int(match['width']), int(match['height'])) if match['width'] else None
        elif line.strip():
            raise DataError(f"'{path}', line {number}: expected 'name.png (height,width,channels) 1', found {line!r}")
    if not sizes:
        raise DataError(f"'{path}' lists no images")
    return sizes


def key_bytes(key: str) -> bytes:
    """Gives the key in an LMDB: UTF-8, or the bytes of a file's name that are not."""
    return key.encode('utf-8', 'surrogateescape')


def normal(name: str) -> str:
    """Gives the one form of names that look the same: an accented letter may be one character or two."""
    return unicodedata.normalize('NFC', name)


def natural_sort(names: Iterable[str]) -> list[str]:
    """Sorts names so that 'img2' comes before 'img10'."""
    return sorted(names, key=lambda n: ([int(p) if p.isdecimal() else p for p in re.split(r'(\d+)', n)], n))


def image_files(root: str, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Iterator[str]:
    """Gives the files in a folder and its subfolders, hidden ones left out, relative to it."""
    above: dict[str, set[str]] = {root: set()}  # the real paths of all folders above each folder
    # Links are followed: data sets are often put together of them.
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_refuse):
        subfolders.sort()  # the order of `os.walk` is the file system's
        real = os.path.realpath(folder)
        if real in above[folder]:  # a link to a folder above would be followed for ever
            subfolders.clear()
            continue
        above |= {os.path.join(folder, name): above[folder] | {real} for name in subfolders}
        for name in files:
            if name.lower().endswith(suffixes) and not name.startswith('.'):
                yield os.path.relpath(os.path.join(folder, name), root)


def _refuse(error: OSError) -> None:
    raise DataError(f"cannot read folder '{error.filename}': {error.strerror}; check its permissions") from error


@functools.cache
def lmdb_environment(root: str) -> lmdb.Environment:
    """Opens an LMDB once per process: LMDB refuses a second time.

    A forked worker goes on with its parent's: for reading without locks it is no more than a mapped file.
    """
    found = os.path.getsize(os.path.join(root, 'data.mdb'))
    if not found:  # of which LMDB says something else each time
        raise DataError(f"cannot open LMDB '{root}': data.mdb is empty; make it again")
    try:
        # No lock: the disk may be read-only, another process may write. No reading ahead: images are drawn at random.
        environment = lmdb.open(root, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        reason = str(error).removeprefix(f'{root}: ')
        raise DataError(f"cannot open LMDB '{root}': {reason}; make it again") from error
    # To read behind the end of a mapped file would kill the process.
    expected = environment.stat()['psize'] * (environment.info()['last_pgno'] + 1)
    if found < expected:
        environment.close()
        raise DataError(f"LMDB '{root}' is cut short: data.mdb has {found} of {expected} bytes; make it again")
    return environment
