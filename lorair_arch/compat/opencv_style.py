"""The one reader and writer, called as OpenCV and BasicSR call theirs: BGR, and names of any bytes.

OpenCV's own functions end the process at names that are not UTF-8, multiply TIFF files with their alpha channel, and
read planes of 16 bits as garbage.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import complete_photo, decode_photo, read_bytes
from lorair_arch.data.images.writing import WRITABLE, encode_photo
from lorair_arch.errors import DataError
from lorair_arch.files import writing


def imread(path: str | os.PathLike[str], flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Reads an image as `cv2.imread` does.

    Args:
        path: of any bytes.
        flags: `IMREAD_COLOR`: uint8 BGR, upright; `IMREAD_UNCHANGED`: as it is stored; others are OpenCV's affair.

    Raises:
        DataError: if it cannot be read or decoded; OpenCV gives None.
    """
    content = read_bytes(path)
    if flags == cv2.IMREAD_COLOR:
        return _colour(complete_photo(content, os.fspath(path)))
    if flags == cv2.IMREAD_UNCHANGED:
        photo = decode_photo(content, os.fspath(path))
        if photo.alpha is not None:
            return np.dstack([photo.rgb[..., ::-1], photo.alpha])
        # OpenCV and PyTorch take no negative strides.
        return np.ascontiguousarray(photo.pixels[..., ::-1] if photo.pixels.ndim == 3 else photo.pixels)
    return cv2.imdecode(np.frombuffer(content, np.uint8), flags)  # from memory: the name never reaches OpenCV


def imfrombytes(content: bytes | memoryview, flag: str = 'color', float32: bool = False) -> np.ndarray:
    """Decodes an image as `basicsr.utils.imfrombytes` does: upright BGR of 8 bits.

    Args:
        content: what is in the file.
        flag: 'color'; 'grayscale' and 'unchanged' are OpenCV's affair.
        float32: scaled to [0, 1], else uint8.

    Raises:
        ValueError: if it cannot be decoded; whoever knows its name adds it.
    """
    if flag == 'color':
        try:
            image = _colour(complete_photo(content, ''))
        except DataError as error:
            # BasicSR decodes bytes, whose file only its data sets know.
            raise ValueError(str(error).replace("image ''", 'the image').replace("''", 'the image')) from error
    else:
        flags = {'grayscale': cv2.IMREAD_GRAYSCALE, 'unchanged': cv2.IMREAD_UNCHANGED}
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags[flag])
    return image.astype(np.float32) / 255.0 if float32 else image


def imwrite(img: np.ndarray, file_path: str, params: list[int] | None = None, auto_mkdir: bool = True) -> None:
    """Writes an image, whole or not at all, as `basicsr.utils.imwrite` does in part.

    Args:
        img: grey, BGR or BGRA.
        file_path: of any bytes; the suffix says the format.
        params: OpenCV's, for its own encoders.
        auto_mkdir: whether missing folders are made.

    Raises:
        OSError: if it cannot be written.
    """
    path = Path(file_path)
    suffix = path.suffix.lower()
    if not auto_mkdir:
        os.stat(path.parent)  # raises, where `writing` would make it
    # Parameters are OpenCV's words for its encoders, float pixels its formats' (EXR, HDR).
    if params is None and suffix in WRITABLE and img.dtype in (np.uint8, np.uint16):
        pixels = np.squeeze(img, 2) if img.ndim == 3 and img.shape[2] == 1 else img
        colours = pixels[..., 2::-1] if pixels.ndim == 3 else pixels
        content = encode_photo(Photo(colours, img[..., 3] if img.shape[2:] == (4,) else None), suffix)
    else:
        content = cv2.imencode(suffix, img, params or [])[1].tobytes()
    with writing(path) as file:
        file.write(content)


def _colour(photo: Photo) -> np.ndarray:
    image = photo.rgb[..., ::-1]
    # As OpenCV: the upper 8 of 16 bits.
    return np.ascontiguousarray(image >> 8 if image.dtype == np.uint16 else image).astype(np.uint8, copy=False)
