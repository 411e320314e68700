"""The one reader of image files, for training, testing and restoring alike: what is in the file, or a sentence."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

import imagecodecs
import numpy as np

from lorair_arch.data.images import photo as colours
from lorair_arch.data.images.formats import deep_pixels, prepare
from lorair_arch.data.images.kinds import check_single, check_whole, jpeg_header, kind_of, png_header
from lorair_arch.data.images.metadata import opened, read_metadata, with_exif
from lorair_arch.data.images.photo import MAX_PIXELS, Photo, check_size, full_range, photo_of
from lorair_arch.errors import DataError


def read_bytes(path: str | PathLike[str]) -> bytes:
    """Reads a file, or raises a DataError that names it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}") from error


def read_photo(path: str | PathLike[str]) -> Photo:
    """Reads an image file as viewers show it: upright, with its colour profile and EXIF data.

    The thumbnail is left out of the EXIF data, and they say that the image is upright.

    Raises:
        DataError: as `decode_photo`, or if the file cannot be read.
    """
    return complete_photo(read_bytes(path), os.fspath(path))


def complete_photo(content: bytes | memoryview, path: str, most_pixels: int = MAX_PIXELS) -> Photo:
    """Decodes an image as `read_photo` reads a file; the arguments are those of `decode_photo`."""
    photo = decode_photo(content, path, most_pixels)
    icc, exif, orientation, frames = read_metadata(content)
    photo = with_exif(photo.upright(orientation), exif)  # turned first: the EXIF data get its sides
    if frames > 1:
        photo = photo._replace(notes=(*photo.notes, 'the smaller or other images behind the first are left out'))
    if icc and photo.icc is None and not colours.profile_fits(icc, photo.pixels):
        note = 'its colour profile is damaged or of other colours than its pixels, and left out'
        return photo._replace(notes=(*photo.notes, note))
    return photo._replace(icc=icc if photo.icc is None else None)


def decode_photo(content: bytes | memoryview, path: str, most_pixels: int = MAX_PIXELS) -> Photo:
    """Decodes an image of any format and colour type; CMYK and Lab become sRGB.

    The rotation in EXIF data is ignored: a pair of which one file has lost it must still lie on top of each other. That
    of TIFF files is not: it says in which order the rows are stored.

    Args:
        content: what is in the file.
        path: its name, for messages; the suffix alone tells some cameras' raw files.
        most_pixels: that an image may have; asked before they are decoded, as a few bytes can claim gigabytes.

    Returns:
        Without EXIF data; `icc` is b'' if the profile of the file does not hold any more, as for CMYK, else None.

    Raises:
        DataError: if the image is empty, cut short, damaged, of a format that is not read, or has several frames or
            pages, pixels other than 8- or 16-bit integers, or too many of them.
    """
    if not content:
        raise DataError(f"image '{path}' is empty; copy it again or remove it")
    kind = kind_of(content, path)
    try:
        return _DECODERS.get(kind, _decode_other)(content, path, most_pixels)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"image '{path}' does not fit into memory; cut it into parts or remove it") from error
    except Exception as error:  # damaged bytes can raise nearly anything in a decoder
        check_whole('truncated' not in str(error).lower(), path)
        raise DataError(
            f"cannot decode image '{path}': it is damaged or not an image; copy it again or remove it"
        ) from error


def decode_image(content: bytes | memoryview, path: str) -> np.ndarray:
    """Decodes an image as `decode_photo` does; grey becomes RGB, an alpha channel is dropped.

    Returns:
        RGB, uint8 or uint16 [H, W, 3].
    """
    return decode_photo(content, path).rgb


def to_float(image: np.ndarray) -> np.ndarray:
    """Scales a uint8 or uint16 image to float32 in [0, 1], contiguous."""
    scaled = np.ascontiguousarray(image, np.float32)  # always a copy, as the type changes
    scaled /= np.float32(np.iinfo(image.dtype).max)
    return scaled


def _decode_jpeg(content: bytes | memoryview, path: str, most_pixels: int) -> Photo:
    header = jpeg_header(content)
    check_whole(header.whole, path)  # libjpeg fills what is missing with grey, and merely warns
    check_size(header.size, path, most_pixels)
    # With a frame more, JPEGs are photographs with a preview or what a brighter screen needs, not animations.
    if header.channels == 4:
        return colours.from_pillow(opened(content, ('JPEG',)), path)
    return photo_of(full_range(imagecodecs.jpeg8_decode(content), header.bits, path))


def _decode_png(content: bytes | memoryview, path: str, most_pixels: int) -> Photo:
    header = png_header(content)
    check_whole(header.whole, path)
    check_size(header.size, path, most_pixels)
    check_single(header.frames, path)
    return photo_of(imagecodecs.png_decode(content))  # not by Pillow, which cuts colours of 16 bits to 8


def _decode_tiff(content: bytes | memoryview, path: str, most_pixels: int) -> Photo:
    from lorair_arch.data.images.tiff import decode_tiff  # its library takes 0.1 s to import

    return decode_tiff(content, path, most_pixels)


def _decode_other(content: bytes | memoryview, path: str, most_pixels: int) -> Photo:
    kind = kind_of(content, path)
    prepare(kind, path)
    if kind == 'WEBP':
        # RIFF's length counts what follows its first 8 bytes.
        check_whole(8 + int.from_bytes(content[4:8], 'little') <= len(content), path)
    # one format alone: others of Pillow's run programs (EPS); a TGA has no beginning to know it by
    with opened(content, (kind or 'TGA',)) as image:
        check_size(image.size, path, most_pixels)
        check_single(getattr(image, 'n_frames', 1), path)
        deep = deep_pixels(image, content, path)
        return colours.from_pillow(image, path) if deep is None else photo_of(deep)


_DECODERS = {'JPEG': _decode_jpeg, 'PNG': _decode_png, 'TIFF': _decode_tiff}
