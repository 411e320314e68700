"""What an image file holds, beyond the pixels that training sees."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from lorair_arch.data.images import decode_photo
from lorair_arch.data.metadata import opened, read_metadata
from lorair_arch.data.stores import Store
from lorair_arch.errors import DataError


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
    orientation: int = 1
    frames: int = 1


def read_facts(store: Store, key: str) -> Facts | str:
    """Reads and decodes an image as training does; gives its facts, or the sentence that says what is wrong."""
    try:
        with store.opened(key) as content:
            photo = decode_photo(content, store.path(key))
            header = _header(content)
    except DataError as error:
        return str(error)
    pixels, grey = photo.rgb, photo.pixels.ndim == 2
    bits, alpha = 8 * pixels.itemsize, photo.alpha is not None
    words = [header.format, f'{bits} bits' if bits != 8 else '', 'grey' if grey else '', 'alpha' if alpha else '']
    words.append(header.mode if header.mode in ('CMYK', 'P') else '')
    digest = hashlib.blake2b(np.ascontiguousarray(pixels), digest_size=16).digest()
    size = pixels.shape[1], pixels.shape[0]
    return Facts(size, ' '.join(filter(None, words)), grey, alpha, header.orientation, header.frames, digest)


def _header(content: bytes | memoryview) -> _Header:
    try:
        image = opened(content)
    except OSError:  # unknown to Pillow
        return _Header()
    _, _, orientation, frames = read_metadata(content)
    return _Header(image.format, image.mode, orientation, frames)
