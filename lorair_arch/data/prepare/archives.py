"""Where a benchmark's files lie: a folder, or archives, whose names never say where anything is written."""

from __future__ import annotations

import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lorair_arch.data.images.kinds import IMAGE_SUFFIXES
from lorair_arch.data.images.reading import read_bytes
from lorair_arch.data.stores import image_files
from lorair_arch.errors import DataError, OutputError
from lorair_arch.files import cannot_write

# `.gz` alone: so the authors of Rain100L and Rain100H name their TAR files.
_TARS = ('.tar', '.tar.gz', '.tgz', '.gz', '.tar.xz', '.txz', '.tar.bz2', '.tbz2')
_SURELY_TARS = tuple(suffix for suffix in _TARS if suffix != '.gz')
ARCHIVES = ('.zip', *_TARS)
_OTHER_ARCHIVES = ('.rar', '.7z', '.z01', '.001')
_WANTED = (*IMAGE_SUFFIXES, '.txt')
_LARGEST = 2**30  # bytes of a file: no image of the benchmarks comes near
_DENSEST = 100  # bytes that one byte of an archive may become: images hardly shrink
_LONGEST_LIST = 2**26
_CUT = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError)


class Files:
    """The images and texts of a source, by their names: paths that begin with the source's own name.

    Args:
        source: a folder, which may hold archives, or an archive.
        work: a folder for what has to be unpacked; it is made if it is needed.

    Attributes:
        images: their names, with what tells whether a file has changed: its size, and when it was written.
        texts: functions that read text files, by their names.
        mistakes: what has been left out of archives, and why.

    Raises:
        DataError: the source is not there, or an archive is damaged.
        OutputError: nothing can be unpacked there.
    """

    def __init__(self, source: str, work: Path) -> None:
        self.images: dict[str, tuple] = {}
        self.texts: dict[str, Callable[[], bytes]] = {}
        self.mistakes: list[str] = []
        self._readers: dict[str, Callable[[], bytes]] = {}
        self._work = Path(os.path.abspath(work))
        self._opened: list[zipfile.ZipFile] = []
        path = os.path.abspath(source)
        if os.path.isdir(path):
            self._folder(path, os.path.basename(path))
            for name in sorted(os.listdir(path)):
                if _stem(name) and not os.path.isdir(os.path.join(path, _stem(name))):  # else it has been unpacked
                    self._archive(os.path.join(path, name), f'{os.path.basename(path)}/{_stem(name)}', beside=True)
            if not self.images and any(name.lower().endswith(_OTHER_ARCHIVES) for name in os.listdir(path)):
                raise DataError(f"'{source}' holds archives that cannot be read here: unpack them first")
        elif os.path.isfile(path) and _stem(path):
            self._archive(path, _stem(os.path.basename(path)))
        elif os.path.isfile(path):
            raise DataError(f"'{source}' is a file; expected a folder or an archive ({', '.join(ARCHIVES)})")
        else:
            raise DataError(f"'{source}' does not exist (looked for from '{os.getcwd()}'); check --from")

    def read(self, name: str) -> bytes:
        """Reads an image; safe in several threads.

        Raises:
            DataError: it cannot be read.
        """
        return self._readers[name]()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for archive in self._opened:
            archive.close()

    def _folder(self, root: str, top: str) -> None:
        for name in image_files(root, _WANTED):
            path = os.path.join(root, name)
            if path.startswith(f'{self._work}{os.sep}'):
                continue  # unpacked below the source before a kill
            status = os.stat(path)
            state = status.st_size, int(status.st_mtime)
            self._add(f'{top}/{name}'.replace(os.sep, '/'), state, lambda path=path: read_bytes(path))

    def _add(self, name: str, state: tuple, read: Callable[[], bytes]) -> None:
        if not name.lower().endswith('.txt'):
            self.images[name], self._readers[name] = state, read
        elif state[0] <= _LONGEST_LIST:
            self.texts[name] = read

    def _archive(self, path: str, top: str, beside: bool = False) -> None:
        """Reads an archive; one that merely lies `beside` others, and whose name promises little, may be none."""
        try:
            if path.lower().endswith('.zip'):
                self._zip(path, top)
            elif not beside or path.lower().endswith(_SURELY_TARS) or tarfile.is_tarfile(path):
                self._tar(path, top)
            else:
                self.mistakes.append(f"'{path}' is no archive of files, or damaged; it is left out")
        except _CUT as error:
            reason = str(error).partition('\n')[0].rstrip(':')
            raise DataError(f"archive '{path}' is cut short or damaged ({reason}); download it again") from error
        except OSError as error:
            raise DataError(f"cannot read archive '{path}': {error.strerror or error}") from error
        except RuntimeError as error:  # of zipfile
            remedy = 'unpack it with another program, and name the folder'
            raise DataError(f"archive '{path}' cannot be read here ({error}): {remedy}") from error

    def _zip(self, path: str, top: str) -> None:
        """Reads a ZIP file in place: nothing is written at all."""
        archive = zipfile.ZipFile(path)
        self._opened.append(archive)
        total, kinds = 0, set()
        for member in archive.infolist():
            name, size = member.filename.replace('\\', '/'), member.file_size  # some are made on Windows
            if member.is_dir() or not _wanted(name):
                continue
            total += size
            if not self._safe(path, name, size, total, not stat.S_ISLNK(member.external_attr >> 16)):
                continue
            kind = member.compress_type, member.flag_bits
            if kind not in kinds:
                kinds.add(kind)
                with suppress(zipfile.BadZipFile):  # one that is damaged is named when it is read
                    archive.open(member.filename).close()  # else the same would be said of every image
            self._add(f'{top}/{name}', (size, member.CRC), lambda member=member: _read_zip(archive, path, member))

    def _tar(self, path: str, top: str) -> None:
        """Unpacks a TAR file, whose images cannot be read without reading all before them, under names of our own."""
        status = os.stat(path)
        folder = self._work / f'{_stem(os.path.basename(path))}-{status.st_size}-{status.st_mtime_ns}'
        total = 0
        with tarfile.open(path) as archive:
            for number, member in enumerate(archive):
                name, size = member.name, member.size
                if member.isdir() or not _wanted(name):
                    continue
                total += size
                if not self._safe(path, name, size, total, member.isfile()):
                    continue
                file = folder / f'{number}{os.path.splitext(name)[1]}'
                if not file.is_file() or file.stat().st_size != size:  # else it was unpacked before a kill
                    _write(file, archive.extractfile(member).read())
                name = os.path.normpath(name).replace(os.sep, '/')  # without './' in front
                self._add(f'{top}/{name}', (size, int(member.mtime)), lambda file=file: read_bytes(file))

    def _safe(self, path: str, name: str, size: int, total: int, plain: bool) -> bool:
        """Tells whether a file may be one of a benchmark: within its folder, and none that would fill a disk."""
        if total > _DENSEST * os.path.getsize(path) + _LARGEST:
            raise DataError(f"archive '{path}' would become more than {_DENSEST} times its size: it holds no images")
        if os.path.isabs(name) or '..' in name.replace('\\', '/').split('/'):
            mistake = f"names '{name}', outside of its own folder"
        elif not plain:
            mistake = f"holds '{name}', which is a link or no plain file"
        elif size > _LARGEST:
            mistake = f"holds '{name}' of {size} bytes, no image"
        else:
            return True
        self.mistakes.append(f"archive '{path}' {mistake}; it is left out")
        return False


def _stem(name: str) -> str:
    """Gives an archive's name without its suffixes; '': it is none."""
    suffixes = [suffix for suffix in ARCHIVES if name.lower().endswith(suffix)]
    return name[: -len(max(suffixes, key=len))] if suffixes else ''


def _wanted(name: str) -> bool:
    # macOS puts a file of its own beside each image
    hidden = any(part.startswith('.') and part not in ('.', '..') or part == '__MACOSX' for part in name.split('/'))
    return name.lower().endswith(_WANTED) and not hidden


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:
        raise OutputError(cannot_write(file, error)) from error


def _read_zip(archive: zipfile.ZipFile, path: str, member: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(member)
    except (*_CUT, OSError) as error:
        raise DataError(f"cannot read '{member.filename}' in archive '{path}': {error}; download it again") from error
