"""Text files are UTF-8, whatever the locale says; those of Windows' editors and shells are understood too.

Python, and BasicSR with it, reads and writes texts in the encoding of the locale: GBK on a Chinese Windows, ASCII where
none is set. Quick to import: no PyTorch.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
import time
from pathlib import Path
from typing import IO

from lorair_arch.errors import DataError

_MARKS = {codecs.BOM_UTF8: 'utf-8-sig', codecs.BOM_UTF16_LE: 'utf-16', codecs.BOM_UTF16_BE: 'utf-16'}


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
        return io.StringIO(decode(Path(path).read_bytes()), newline=None).read()
    except ValueError as error:
        raise DataError(f"'{path}' {error}; save it as UTF-8") from error


def open_text(file: str | os.PathLike, mode: str = 'r', **kwargs) -> IO:
    """Takes the place of `open` in BasicSR's modules: texts are UTF-8 there as well."""
    if mode == 'r' and not kwargs:
        return io.StringIO(read_text(file))
    return open(file, mode, **kwargs if 'b' in mode else {'encoding': 'utf-8', **kwargs})


def copy_opt_file(opt_file: str | os.PathLike, experiments_root: str | os.PathLike) -> None:
    """Copies an options file to the folder of its experiment, with time and command on top, as BasicSR does."""
    head = f'# GENERATE TIME: {time.asctime()}\n# CMD:\n# {" ".join(sys.argv)}\n\n'
    text = (head + read_text(opt_file)).encode('utf-8', 'surrogateescape')  # names of any bytes may be in the command
    Path(experiments_root, Path(opt_file).name).write_bytes(text)
