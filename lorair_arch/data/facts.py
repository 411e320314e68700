"""What an image file holds, beyond the pixels that training sees."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image

from lorair_arch.data.stores import Store
from lorair_arch.errors import DataError

_ORIENTATION = 0x0112  # the EXIF tag
_GREY = ('1', 'L', 'LA', 'I', 'I;16', 'I;16B')


class Facts(NamedTuple):
    """Facts of an image.

    Attributes:
        size: (width, height) in pixels.
        kind: format, bits and colours, as far as they are not 8 bits and RGB: 'PNG', 'JPEG grey', 'PNG 16 bits'.
        grey: it has one channel.
        alpha: it is transparent somewhere, or could be.
        orientation: of its EXIF data, 1 to 8; 1 is upright.
        frames: how many images the file holds.
        digest: of its pixels.
    """

    size: tuple[int, int]
    kind: str
    grey: bool
    alpha: bool
    orientation: int
    frames: int
    digest: bytes


class _Header(NamedTuple):
    format: str = 'unknown format'
    mode: str = 'RGB'
    alpha: bool = False
    orientation: int = 1
    frames: int = 1


def read_facts(store: Store, key: str) -> Facts | str:
    """Reads and decodes an image as training does; gives its facts, or the sentence that says what is wrong."""
    headers: list[_Header] = []
    try:
        pixels = store.load(key, lambda content: headers.append(_header(content)))
    except DataError as error:
        return str(error)
    header, bits = headers[0], 8 * pixels.itemsize
    grey = header.mode in _GREY
    words = [
        header.format,
        f'{bits} bits' if bits != 8 else '',
        'grey' if grey else '',
        'alpha' if header.alpha else '',
    ]
    words.append(header.mode if header.mode in ('CMYK', 'P') else '')
    digest = hashlib.blake2b(np.ascontiguousarray(pixels), digest_size=16).digest()
    size = pixels.shape[1], pixels.shape[0]
    kind = ' '.join(filter(None, words))
    return Facts(size, kind, grey, header.alpha, header.orientation, header.frames, digest)


@contextmanager
def any_size() -> Iterator[None]:
    """Lets Pillow look at the headers of images of any size; they are decoded elsewhere."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _header(content: bytes | memoryview) -> _Header:
    try:
        image = Image.open(io.BytesIO(content))
        orientation = image.getexif().get(_ORIENTATION, 1) if image.format != 'TIFF' else 1  # which OpenCV turns itself
        alpha = image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info
        return _Header(image.format, image.mode, alpha, orientation, getattr(image, 'n_frames', 1))
    except (OSError, SyntaxError, ValueError, struct.error):  # unknown to Pillow, or EXIF data that make no sense
        return _Header()
