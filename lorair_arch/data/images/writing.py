"""The one writer of image files: pixels, transparency, colour profile and EXIF data, as far as a format holds them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from lorair_arch.data.images.photo import Photo
from lorair_arch.errors import DataError
from lorair_arch.files import write_file

PNG_HEADER = 33  # bytes: the signature, and the chunk that comes first
WRITABLE = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm')

# What formats hold beside 8 bits in RGB.
_DEEP = ('.png', '.tif', '.tiff')
_TRANSPARENT = (*_DEEP, '.webp')
_GREY = (*_DEEP, '.jpg', '.jpeg', '.bmp')
_DESCRIBED = (*_TRANSPARENT, '.jpg', '.jpeg')
_NAMES = {'.jpg': 'JPEG', '.jpeg': 'JPEG', '.bmp': 'BMP', '.webp': 'WEBP', '.ppm': 'PPM'}
# A segment has its length in 16 bits, and counts their two bytes along.
_LONGEST_EXIF_IN_JPEG = 65533
_PNG = imagecodecs.PNG


def left_out(photo: Photo, suffix: str) -> list[str]:
    """Says what the format of a suffix cannot hold of a photo, a clause each."""
    parts = _parts(photo, suffix)
    found = {
        'its transparency is left out': photo.alpha is not None and parts.alpha is None,
        'its 16 bits become 8': photo.pixels.dtype != parts.pixels.dtype,
        'its colour profile is left out': photo.icc and not parts.icc,
        'its EXIF data are left out': photo.exif and not parts.exif,
    }
    return [clause for clause, holds in found.items() if holds]


def encode_photo(photo: Photo, suffix: str, quality: int = 95) -> bytes:
    """Encodes an image; what the format cannot hold is left out, see `left_out`.

    Args:
        photo: The image; `exif` says that it is upright.
        suffix: One of `WRITABLE`.
        quality: Of JPEG and WebP, 1 to 100.

    Raises:
        DataError: If the format does not allow an image of this size.
    """
    photo = _parts(photo, suffix)
    if suffix in ('.tif', '.tiff'):
        return _tiff(photo)
    if suffix == '.png':
        return _png(photo)
    stream, way = io.BytesIO(), {} if suffix in ('.bmp', '.ppm') else {'quality': quality}
    more = {'exif': photo.exif, 'icc_profile': photo.icc} if suffix in _DESCRIBED else {}
    try:
        image = Image.fromarray(np.ascontiguousarray(_channels(photo)))
        image.save(stream, _NAMES[suffix], **way, **{key: value for key, value in more.items() if value})
    except (OSError, ValueError) as error:
        height, width = photo.pixels.shape[:2]
        raise DataError(f'cannot write {width} x {height} pixels as {suffix}: {error}; take .png or .tif') from error
    return stream.getvalue()


def write_photo(path: str | PathLike[str], photo: Photo) -> None:
    """Writes an image, whole or not at all; what the format of the suffix cannot hold is left out.

    Args:
        path: One of the suffixes `WRITABLE`. Missing folders are made.
        photo: The image.

    Raises:
        DataError: It cannot be written.
    """
    write_file(path, encode_photo(photo, Path(path).suffix.lower()))


def encode_png(channels: np.ndarray, compressed: bool = True) -> bytes:
    """Encodes grey or RGB, with or without alpha, as PNG: uint8 or uint16 [H, W] or [H, W, 2 to 4]."""
    # Level 1, run lengths and one simple filter: a quarter of the time of zlib's own way, and a tenth larger.
    way = {'level': 1, 'strategy': _PNG.STRATEGY.RLE, 'filter': _PNG.FILTER.SUB}
    if not compressed:
        way = {'level': 0, 'filter': _PNG.FILTER.NONE}
    # `ravel`: of an axis of one pixel NumPy keeps any stride, which the encoder does not take.
    return imagecodecs.png_encode(np.ascontiguousarray(channels).ravel().reshape(channels.shape), **way)


def with_chunks(png: bytes, chunks: Mapping[bytes, bytes]) -> bytes:
    """Puts chunks, by their names, behind the header of a PNG."""
    more = b''.join(
        struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
        for name, data in chunks.items()
    )
    return png[:PNG_HEADER] + more + png[PNG_HEADER:]  # iCCP must stand before the pixels


def in_8_bits(deep: np.ndarray) -> np.ndarray:
    """Rounds uint16 to uint8; 65535 = 257 * 255: white stays white."""
    # In integers: floats would take four times the memory of the image.
    return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _parts(photo: Photo, suffix: str) -> Photo:
    """Gives what the format of a suffix can hold."""
    pixels = photo.pixels if suffix in _GREY else photo.rgb
    alpha = photo.alpha if suffix in _TRANSPARENT else None
    if pixels.dtype == np.uint16 and suffix not in _DEEP:
        pixels, alpha = (None if x is None else in_8_bits(x) for x in (pixels, alpha))
    # a profile of grey pixels does not speak of three channels
    icc = photo.icc if suffix in _DESCRIBED and pixels.ndim == photo.pixels.ndim else None
    exif = photo.exif if suffix in _DESCRIBED else None
    if exif and suffix in ('.jpg', '.jpeg') and len(exif) > _LONGEST_EXIF_IN_JPEG:
        exif = None
    return Photo(pixels, alpha, icc, exif)


def _channels(photo: Photo) -> np.ndarray:
    return photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])


def _png(photo: Photo) -> bytes:
    chunks = {}
    if photo.icc:
        # Any name, its end, and 0 for deflate, as PNG wants it.
        chunks[b'iCCP'] = b'ICC Profile\0\0' + zlib.compress(photo.icc)
    if photo.exif:
        # PNG's chunk has no 'Exif' in front, JPEG's segment has.
        chunks[b'eXIf'] = photo.exif.removeprefix(b'Exif\0\0')
    return with_chunks(encode_png(_channels(photo)), chunks)


def _tiff(photo: Photo) -> bytes:
    """Encodes an image as TIFF, which is EXIF data with pixels behind them: tags as numbered in TIFF 6.0."""
    height, width = photo.pixels.shape[:2]
    channels = _channels(photo).reshape(height, width, -1)
    count, is_grey = channels.shape[2], photo.pixels.ndim == 2
    tags = Image.Exif()
    if photo.exif:
        tags.load(photo.exif)
    # One byte order for the whole file: that of the EXIF data, where there are any.
    tags.endian = order = tags.endian or '<'
    # differences to the pixel on the left compress better
    differences = np.diff(channels, axis=1, prepend=channels.dtype.type(0))
    strip = zlib.compress(differences.astype(channels.dtype.newbyteorder(order)).tobytes())
    # Compression 8 is deflate, colours 1 grey from black and 2 RGB, planes 1 pixel by pixel, predictor 2 differences.
    layout = {
        256: width, 257: height, 258: (8 * channels.itemsize,) * count, 259: 8, 262: 1 if is_grey else 2,
        273: 0, 277: count, 278: height, 279: len(strip), 284: 1, 317: 2,
    }  # fmt: skip
    if photo.alpha is not None:
        layout[338] = 2  # 2: alpha with which the colours are not multiplied
    if photo.icc:
        layout[34675] = photo.icc
    for tag, value in layout.items():
        tags[tag] = value
    # Pillow makes the place of the strip, 273, an offset from the end of the tags
    return tags.tobytes().removeprefix(b'Exif\0\0') + strip
