"""What restoring writes into the files that it makes, so that a later run knows them: decoders ignore it."""

from __future__ import annotations

import os
from typing import BinaryIO

from lorair_arch.data.images.writing import PNG_HEADER, with_chunks

_NAME = b'LoRA-IR'
_SOFTWARE = b'Software\0'  # PNG's own keyword for what made a file
_COMPARISON = b' comparison'  # behind the name, in pictures of before and after
_COMMENT = b'\xff\xfe' + (2 + len(_NAME)).to_bytes(2, 'big') + _NAME  # JPEG's; its length counts itself
# A chunk of WebP: name, length and content, which ends at an even place; the same bytes end TIFF and BMP files.
_TAIL = b'LoRA' + (8).to_bytes(4, 'little') + _NAME + b'\0'


def mark(content: bytes, suffix: str, comparison: bool = False) -> bytes:
    """Says in an encoded image what made it, for `is_marked`.

    Args:
        content: As `encode_photo` gives it.
        suffix: Its format, in lower case.
        comparison: It is a picture of before and after, a PNG, for `is_comparison`.
    """
    if suffix == '.png':
        return with_chunks(content, {b'tEXt': _SOFTWARE + _NAME + (_COMPARISON if comparison else b'')})
    if suffix in ('.jpg', '.jpeg'):
        # Behind the segments of applications: some readers look for EXIF data in the first of them alone.
        at = _behind_applications(content)
        return content[:at] + _COMMENT + content[at:]
    if suffix == '.ppm':
        return content[:3] + b'# ' + _NAME + b'\n' + content[3:]
    if suffix == '.webp':
        content = content[:4] + (len(content) - 8 + len(_TAIL)).to_bytes(4, 'little') + content[8:]
    return content + _TAIL


def is_marked(path: str | os.PathLike[str]) -> bool:
    """Tells whether restoring has made a file."""
    try:
        with open(path, 'rb') as file:
            head = file.read(64)
            if head.startswith(b'\x89PNG'):
                # Length and name of a chunk have four bytes each.
                return head[PNG_HEADER + 4 :].startswith(b'tEXt' + _SOFTWARE + _NAME)
            if head.startswith(b'\xff\xd8'):
                return _comment_of(file) == _COMMENT
            if head.startswith((b'P5', b'P6')):
                return head[3:].startswith(b'# ' + _NAME + b'\n')
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_TAIL)))
            return file.read() == _TAIL
    except OSError:  # of which reading the image will tell
        return False


def is_comparison(path: str | os.PathLike[str]) -> bool:
    """Tells whether a file is a picture of before and after that restoring has made."""
    wanted = b'tEXt' + _SOFTWARE + _NAME + _COMPARISON
    try:
        with open(path, 'rb') as file:
            return file.read(PNG_HEADER + 4 + len(wanted)).endswith(wanted)
    except OSError:
        return False


def _behind_applications(jpeg: bytes) -> int:
    at = 2
    while 0xE0 <= jpeg[at + 1] <= 0xEF:
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], 'big')
    return at


def _comment_of(jpeg: BinaryIO) -> bytes:
    """Gives what stands behind the segments of applications, as many bytes as `_COMMENT` has."""
    jpeg.seek(2)
    while (head := jpeg.read(4))[:1] == b'\xff' and 0xE0 <= head[1] <= 0xEF:
        jpeg.seek(int.from_bytes(head[2:], 'big') - 2, os.SEEK_CUR)
    return head + jpeg.read(len(_COMMENT) - len(head))
