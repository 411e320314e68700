"""Decoding of images: exactly what is in the file, or an error that names it."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import cv2
import numpy as np

from lorair_arch.errors import DataError

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')

# The rotation in EXIF data is ignored: a pair of which one file has lost it must still lie on top of each other.
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


def read_bytes(path: str | PathLike[str]) -> bytes:
    """Reads a file, or raises a DataError that names it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}") from error


def decode_image(content: bytes | memoryview, path: str) -> np.ndarray:
    """Decodes an image of any colour type; grey becomes RGB, an alpha channel is dropped.

    Args:
        content: what is in the file.
        path: its name, for messages.

    Returns:
        RGB, uint8 or uint16 [H, W, 3].

    Raises:
        DataError: if the image is empty, cut short, damaged, or has pixels other than 8- or 16-bit integers.
    """
    if not content:
        raise DataError(f"image '{path}' is empty; copy it again or remove it")
    if _is_cut_short(content):
        raise DataError(f"image '{path}' is cut short; copy it again or remove it")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), _FLAGS)
    except cv2.error as error:
        raise DataError(f"cannot decode image '{path}': OpenCV expects {error.err}; remove it") from error
    if image is None:
        raise DataError(f"cannot decode image '{path}': it is damaged or not an image; copy it again or remove it")
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"image '{path}' has {image.dtype} pixels; convert it to 8 or 16 bits")
    return image[..., ::-1]


def to_float(image: np.ndarray) -> np.ndarray:
    """Scales a uint8 or uint16 image to float32 in [0, 1], contiguous."""
    scaled = np.ascontiguousarray(image, np.float32)  # always a copy, as the type changes
    scaled /= np.float32(np.iinfo(image.dtype).max)
    return scaled


def _is_cut_short(content: bytes | memoryview) -> bool:
    start = bytes(content[:4])
    # OpenCV 4 fills the missing part of a JPEG with grey and carries on.
    if start.startswith(b'\xff\xd8'):
        content = bytes(content)
        # A thumbnail in the header has an end marker too: only one after the last scan's start counts.
        return content.find(b'\xff\xd9', max(content.rfind(b'\xff\xda'), 0)) < 0
    return start == b'\x89PNG' and b'IEND\xaeB`\x82' not in bytes(content[-4096:])
