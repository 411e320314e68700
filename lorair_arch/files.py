"""Files that are written: whole or not at all, and never in the place of another unless the user asks for it."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import json
import os
import re
import secrets
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from lorair_arch.errors import DataError, OutputError

# What a disk may have against a file, and what to do about it.
WRITE_ERRORS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), 'free some space'),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), 'make its folder writable'),
    errno.ENOTDIR: 'move away the file that stands in the place of a folder',
    errno.EFBIG: 'raise the limit on the size of files (ulimit -f)',
    errno.ENAMETOOLONG: 'choose a shorter name',
    errno.ELOOP: 'remove the links that lead to each other',
}
_TEMPORARY = re.compile(r'\.\d+-[0-9a-f]{8}\.tmp')  # as `writing` names its files
_ABANDONED = 3600  # seconds after which nobody is writing a temporary file any more
_LONGEST_NAME = 255  # bytes, on nearly every file system
_MARKS = {codecs.BOM_UTF8: 'utf-8-sig', codecs.BOM_UTF16_LE: 'utf-16', codecs.BOM_UTF16_BE: 'utf-16'}
# What else may stand under a name.
NO_FILES = {stat.S_IFDIR: 'a folder', stat.S_IFCHR: 'a device', stat.S_IFBLK: 'a device', stat.S_IFIFO: 'a pipe'}


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], check: Callable[[Path], None] | None = None) -> Iterator[BinaryIO]:
    """Writes a file whole or not at all: a temporary one in the same folder takes its name at the end.

    Whatever goes wrong, a full disk or Ctrl-C, nothing is left of the temporary file, and an old file is intact.

    Args:
        path: Where to. Missing folders are made. A link is replaced, not the file that it leads to.
        check: Looks at the temporary file when it is on the disk, and raises what is wrong with it.

    Yields:
        The temporary file, to be written and read.

    Raises:
        OSError: As the system gives it; see `cannot_write`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{os.getpid()}-{secrets.token_hex(4)}.tmp')  # short, whatever the name
    try:
        with temporary.open('x+b') as file:
            yield file
            file.flush()
            # Before the rename: else a power cut can leave the new name with nothing in it.
            os.fsync(file.fileno())
            _forget_cached(file.fileno())
        if check:
            check(temporary)
        os.replace(temporary, path)  # atomic within a file system, hence the same folder
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # it has its name, or was never made
            temporary.unlink()


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file as `writing` does.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        with writing(path) as file:
            file.write(content)
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes a JSON file for people to read, as `write_file` does; JSON has no NaN, nor infinity."""
    write_file(path, (json.dumps(content, indent=2, allow_nan=False) + '\n').encode())


def check_output(path: str | os.PathLike[str], overwrite: bool, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Asks whether a command may write a file, before it begins: the one rule of all commands.

    Args:
        path: The file.
        overwrite: Whether the user wants to replace a file that exists.
        inputs: Files that are never replaced, whatever the user wants.

    Raises:
        OutputError: The file is one of the inputs, also by another name; it exists and is not to be replaced; or
            nothing can be written there.
    """
    if exists(path):
        if any(os.path.exists(input) and os.path.samefile(input, path) for input in inputs):
            raise OutputError(f"output '{path}' would replace the input: choose another name")
        if not overwrite:
            raise OutputError(f"output '{path}' exists already: choose another name, or --overwrite to replace it")
    check_folder(Path(path).parent)


def exists(path: str | os.PathLike[str]) -> bool:
    """Tells whether a file stands where one is to be written.

    Raises:
        OutputError: Something else stands there, or the path cannot lead to a file.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        if os.path.islink(path):
            raise OutputError(
                f"output '{path}' is a link to '{os.readlink(path)}', which does not exist: remove it"
            ) from None
        return False
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error
    if kind != stat.S_IFREG:
        raise OutputError(f"output '{path}' is {NO_FILES.get(kind, 'no file')}: choose another name")
    return True


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Raises an OutputError if files cannot be written into a folder, or if it cannot be made."""
    there = Path(folder)
    # The folder may have to be made: what counts is the first one above it that is there.
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise OutputError(f"output folder '{folder}' cannot be made: '{there}' is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(cannot_write(folder, OSError(errno.EACCES, os.strerror(errno.EACCES))))


def fitting(stem: str, ending: str) -> str:
    """Gives a file's name; a stem that is too long for one is cut, and told from others by a checksum."""
    if len(os.fsencode(stem + ending)) <= _LONGEST_NAME:
        return stem + ending
    ending = f'-{zlib.crc32(os.fsencode(stem)):08x}{ending}'
    room = _LONGEST_NAME - len(os.fsencode(ending))
    return os.fsencode(stem)[:room].decode(errors='ignore') + ending  # no half of a letter at the end


def cannot_write(path: str | os.PathLike[str], error: Exception) -> str:
    """Says in a sentence which file cannot be written, why, and what to do about it."""
    # PyTorch's writer hides the error of the disk behind one of its own
    cause = error if isinstance(error, OSError) else error.__context__
    if not isinstance(cause, OSError):
        return f'{path} cannot be written: {error}'
    remedy = WRITE_ERRORS.get(cause.errno, 'check the disk and the path')
    return f'{path} cannot be written: {cause.strerror or cause}; {remedy}'


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Removes what `writing` left in a folder when its process was killed."""
    for file in Path(folder).glob('.*.tmp'):
        with contextlib.suppress(OSError):  # harmless, and the folder may be read-only
            file.unlink()


def remove_abandoned(folder: str | os.PathLike[str]) -> None:
    """Removes what `writing` left in a folder whose files are not ours alone; others may be writing there just now."""
    for file in Path(folder).glob('.*.tmp'):
        with contextlib.suppress(OSError):  # harmless, and the folder may be read-only
            if _TEMPORARY.fullmatch(file.name) and time.time() - file.stat().st_mtime > _ABANDONED:
                file.unlink()


def _forget_cached(descriptor: int) -> None:
    """Lets what is read next come from the disk, where the system can do so."""
    with contextlib.suppress(AttributeError, OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _sync_folder(folder: Path) -> None:
    """Makes a new name in a folder outlast a power cut, where the system can do so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def decode(content: bytes | memoryview, errors: str = 'strict') -> str:
    """Decodes UTF-8, with or without a byte order mark, or UTF-16 with one.

    Args:
        content: Of a file.
        errors: 'surrogateescape' keeps bytes that are no UTF-8, as in names of files.

    Raises:
        ValueError: It is something else; says what, and where.
    """
    content = bytes(content)
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), 'utf-8')
    try:
        text = content.decode(encoding, errors)
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise ValueError(f'is not a text in UTF-8 (line {line})') from error
    # UTF-16 of plain letters decodes as UTF-8, with a NUL beside each.
    if '\0' in text:
        line = text.count('\n', 0, text.index('\0')) + 1
        raise ValueError(f'is not a text in UTF-8 (a NUL in line {line}: UTF-16 without its byte order mark, maybe)')
    return text


def read_text(path: str | os.PathLike) -> str:
    """Reads a text file; lines end in '\\n'.

    Raises:
        DataError: It is no text in UTF-8.
        OSError: It cannot be read.
    """
    try:
        # As `open` does: Windows' line ends become \n.
        return io.StringIO(decode(Path(path).read_bytes()), newline=None).read()
    except ValueError as error:
        raise DataError(f"'{path}' {error}; save it as UTF-8") from error


def open_text(file: str | os.PathLike, mode: str = 'r', **kwargs) -> IO:
    """Takes the place of `open` in BasicSR's modules: texts are UTF-8 there as well."""
    # Only what BasicSR opens as plain text is decoded here; whoever gives an encoding means it.
    if mode == 'r' and not kwargs:
        return io.StringIO(read_text(file))
    return open(file, mode, **kwargs if 'b' in mode else {'encoding': 'utf-8', **kwargs})
