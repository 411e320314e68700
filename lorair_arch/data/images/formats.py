"""What Pillow cannot read alone: formats of further packages, and pixels of more than 8 bits, which it cuts to 8."""

from __future__ import annotations

import importlib
import re

import imagecodecs
import numpy as np
from PIL import Image, features

from lorair_arch.data.images.photo import full_range
from lorair_arch.errors import DataError

# Formats that need a package more: its module, and the extra of this package that installs it.
_EXTRAS = {'HEIF': ('pillow_heif', 'heif'), 'JXL': ('pillow_jxl', 'jxl')}


def prepare(kind: str, path: str) -> None:
    """Lets Pillow read a format that it reads by another package, or raises a DataError that names the package."""
    if kind == 'AVIF' and not features.check('avif'):
        raise DataError(f"'{path}' is AVIF, which this build of Pillow cannot read; install pillow from PyPI")
    if kind in _EXTRAS:
        module, extra = _EXTRAS[kind]
        try:
            plugin = importlib.import_module(module)
        except ImportError as error:
            raise DataError(f"'{path}' is read with the package {module}: pip install 'lorair[{extra}]'") from error
        if kind == 'HEIF':  # the other plugin registers itself when it is imported
            plugin.register_heif_opener()


def deep_pixels(image: Image.Image, content: bytes | memoryview, path: str) -> np.ndarray | None:
    """Gives all bits of an image that has more than 8 of them.

    Args:
        image, content: what Pillow makes of it, and the file.
        path: its name, for messages.

    Returns:
        uint16, grey [H, W] or [H, W, 2 to 4], or None: it has 8 bits.
    """
    read = _READERS.get(image.format)
    found = read(image, bytes(content)) if read else None
    if found is None or found[1] <= 8:
        return None
    return full_range(*found, path)


def _jpeg2000(image: Image.Image, content: bytes) -> tuple[np.ndarray, int] | None:
    size = content.find(b'\xff\x51')  # the segment with the bits of the first component
    # 40 bytes behind the marker SIZ; the highest bit says that values are signed, the others are one less.
    bits = (content[size + 40] & 0x7F) + 1
    return (imagecodecs.jpeg2k_decode(content), bits) if bits > 8 else None


def _avif(image: Image.Image, content: bytes) -> tuple[np.ndarray, int] | None:
    # The third byte of the AV1 configuration: bit 6 says more than 8 bits, bit 5 then 12.
    flags = content[content.find(b'av1C') + 6]
    bits = 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    return (imagecodecs.avif_decode(content), bits) if bits > 8 else None


def _jpegxl(image: Image.Image, content: bytes) -> tuple[np.ndarray, int]:
    pixels = imagecodecs.jpegxl_decode(content)
    return pixels, 8 * pixels.itemsize


def _heif(image: Image.Image, content: bytes) -> tuple[np.ndarray, int] | None:
    import pillow_heif

    bits = image.info.get('bit_depth', 8)
    if bits <= 8:
        return None
    # pillow_heif moves the values up to 16 bits, by which white is less than 65535: `full_range` stretches them.
    pixels = np.asarray(pillow_heif.open_heif(content, convert_hdr_to_8bit=False))
    return pixels >> (16 - bits), bits


def _ppm(image: Image.Image, content: bytes) -> tuple[np.ndarray, int] | None:
    # Magic number, width, height, largest value, with comments anywhere between; a bitmap has no largest value.
    words = re.sub(rb'#[^\n]*', b'', content[:4096]).split(maxsplit=4)
    largest = int(words[3]) if words[0] not in (b'P1', b'P4') else 1
    if largest < 256:
        return None
    import cv2  # takes 0.1 s to import

    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:  # it says why on the console alone
        raise ValueError('truncated')
    pixels = pixels if pixels.ndim == 2 else pixels[..., ::-1]
    # The largest value may be any, and is white.
    return np.rint(pixels * (65535 / largest)).astype(np.uint16), 16


_READERS = {'JPEG2000': _jpeg2000, 'AVIF': _avif, 'JXL': _jpegxl, 'HEIF': _heif, 'PPM': _ppm}
