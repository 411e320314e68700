"""Writing of LMDBs in BasicSR's layout."""

from __future__ import annotations

import os
import shutil
from types import TracebackType

import lmdb
import numpy as np

from lorair_arch.data.images.writing import encode_png
from lorair_arch.data.stores import key_bytes
from lorair_arch.errors import DataError, OutputError


class LmdbWriter:
    """Writes images as PNG into an LMDB that BasicSR's data sets and ours can read.

    A context manager: the LMDB appears under its name when it is complete, or not at all.

    Args:
        path: a new folder; its name ends in '.lmdb', as BasicSR demands.
        compressed: if not, images take up to twice the space and a fifth of the time to read.

    Raises:
        DataError: if the name is wrong, the folder exists, or it cannot be written.
    """

    def __init__(self, path: str, compressed: bool = True) -> None:
        if not path.endswith('.lmdb'):
            raise DataError(f"the name of an LMDB must end in '.lmdb', found '{path}'")
        if os.path.exists(path):
            raise DataError(f"'{path}' exists already; remove it or choose another name")
        # Beside the new one, to be renamed: on another disk that would be a copy.
        self._path, self._partial, self._compressed = path, f'{path}.partial', compressed

    def __enter__(self) -> LmdbWriter:
        shutil.rmtree(self._partial, ignore_errors=True)
        try:
            os.makedirs(self._partial)
            # The map is a limit, not an allocation. Everything is synced once, at the end. Nobody else knows of the
            # folder, and a file of locks would kill the process on a full disk.
            self._environment = lmdb.open(self._partial, map_size=2**40, sync=False, lock=False)
            meta = os.path.join(self._partial, 'meta_info.txt')
            self._meta = open(meta, 'w', encoding='utf-8', errors='surrogateescape')
        except (OSError, lmdb.Error) as error:
            shutil.rmtree(self._partial, ignore_errors=True)
            raise OutputError(f"cannot write '{self._path}': {error}") from error
        return self

    def put(self, key: str, image: np.ndarray) -> None:
        """Stores an image, RGB, uint8 or uint16 [H, W, 3].

        Raises:
            DataError: if the key is in use, empty or longer than LMDB allows, or the disk is full.
        """
        content = encode_png(image, self._compressed)
        try:
            with self._environment.begin(write=True) as transaction:
                new = transaction.put(key_bytes(key), content, overwrite=False)
        except lmdb.Error as error:
            raise DataError(f"cannot write '{key}' to '{self._path}': {error}") from error
        if not new:
            raise DataError(f"two images would have the key '{key}' in '{self._path}'; rename one of them")
        height, width, channels = image.shape
        # BasicSR's line; its last number is OpenCV's level of compression.
        self._meta.write(f'{key}.png ({height},{width},{channels}) {int(self._compressed)}\n')

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            with self._environment, self._meta:
                self._meta.flush()
                if kind is None:
                    # Now, as `sync=False` put it off: the name must not stand before the bytes.
                    self._environment.sync(True)
            if kind is None:
                os.rename(self._partial, self._path)
        except (OSError, lmdb.Error) as failure:
            raise OutputError(f"cannot write '{self._path}': {failure}") from failure
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)  # unless it has its name
