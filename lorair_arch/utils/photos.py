"""Image files with all that a photograph may bring along: transparency, 16 bits, a rotation in its EXIF data."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from lorair_arch.data.images import IMAGE_SUFFIXES, decode_image, read_bytes
from lorair_arch.errors import DataError
from lorair_arch.files import write_file

WRITABLE = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix != '.pgm')  # which is grey

_ORIENTATION = 0x0112  # the EXIF tag
# Formats that hold 16 bits and transparency.
_RICH = ('.png', '.tif', '.tiff')
_TRANSPARENT = (*_RICH, '.webp')


class Photo(NamedTuple):
    """RGB, uint8 or uint16 [H, W, 3], and the alpha channel [H, W] of the same type, if there is one."""

    rgb: np.ndarray
    alpha: np.ndarray | None


def read_photo(path: str | os.PathLike) -> Photo:
    """Reads an image of any colour type, upright.

    Raises:
        DataError: It cannot be read or decoded.
    """
    content = read_bytes(path)
    rgb = decode_image(content, str(path))
    raw = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    alpha = raw[..., 3] if raw is not None and raw.ndim == 3 and raw.shape[2] == 4 else None
    orientation = _orientation(content)
    return Photo(_upright(rgb, orientation), None if alpha is None else _upright(alpha, orientation))


def encode_photo(photo: Photo, suffix: str) -> bytes:
    """Encodes an image; what the format cannot hold is left out.

    Args:
        photo: The image.
        suffix: One of `WRITABLE`.

    Raises:
        DataError: The encoder refuses the image.
    """
    image = photo.rgb[..., ::-1]
    if photo.alpha is not None and suffix in _TRANSPARENT:
        image = np.dstack([image, photo.alpha])
    if image.dtype == np.uint16 and suffix not in _RICH:
        image = np.rint(image / 257).astype(np.uint8)
    quality = {'.jpg': cv2.IMWRITE_JPEG_QUALITY, '.jpeg': cv2.IMWRITE_JPEG_QUALITY, '.webp': cv2.IMWRITE_WEBP_QUALITY}
    settings = [quality[suffix], 95] if suffix in quality else []
    encoded, content = cv2.imencode(suffix, np.ascontiguousarray(image), settings)
    if not encoded:
        raise DataError(f'an image of {image.shape[1]} x {image.shape[0]} pixels cannot be written as {suffix}')
    return content.tobytes()


def write_photo(path: str | os.PathLike, photo: Photo) -> None:
    """Writes an image, whole or not at all; what the format of the suffix cannot hold is left out.

    Args:
        path: One of the suffixes `WRITABLE`. Missing folders are made.
        photo: The image.

    Raises:
        DataError: It cannot be written.
    """
    write_file(path, encode_photo(photo, Path(path).suffix.lower()))


def _orientation(content: bytes) -> int:
    """Gives the orientation in EXIF data, 1 to 8, that decoding has left to the reader."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # only the header is read
    try:
        image = Image.open(io.BytesIO(content))
        orientation = image.getexif().get(_ORIENTATION)
    except (OSError, SyntaxError, ValueError, struct.error):  # unknown to Pillow, or EXIF data that make no sense
        return 1
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    # OpenCV turns TIFF files itself
    return orientation if orientation in range(1, 9) and image.format != 'TIFF' else 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation: 5 to 8 are lying on their side, 2, 4, 5 and 7 mirrored."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return image[rows, columns]
