"""Odd image files, made byte by byte where no library writes them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.photos import photo

RGB = photo(0, 31, 45)
GREY = RGB[..., 0]


def saved(image, file_format, **options):
    """Encodes an image, or an array, with Pillow."""
    stream = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(stream, file_format, **options)
    return stream.getvalue()


def several(file_format, count=3, **options):
    """An animation, or a file of several pages."""
    more = [Image.fromarray(np.roll(RGB, 7 * i, 1)) for i in range(1, count)]
    return saved(RGB, file_format, save_all=True, append_images=more, **options)


def chunk(name, data):
    return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))


def png(*before, size=None, colour=2, bits=8, rows=None, interlaced=0):
    """A PNG with further chunks before its pixels."""
    width, height = size or RGB.shape[1::-1]
    rows = b''.join(b'\0' + row.tobytes() for row in RGB) if rows is None else rows
    header = struct.pack('>IIBBBBB', width, height, bits, colour, 0, 0, interlaced)
    parts = chunk(b'IHDR', header), *before, chunk(b'IDAT', zlib.compress(rows)), chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def interlaced_png():
    """The image in the seven passes of Adam7."""
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    passes = [RGB[top::down, left::right] for top, left, down, right in starts]
    return png(rows=b''.join(b'\0' + row.tobytes() for part in passes for row in part), interlaced=1)


def deep_png_with_transparent_colour():
    """16 bits, one colour of which is transparent."""
    values = RGB.astype('>u2') * 257
    key = struct.pack('>HHH', *(int(value) for value in values[0, 0]))
    return png(chunk(b'tRNS', key), bits=16, rows=b''.join(b'\0' + row.tobytes() for row in values))


def with_segment(jpeg, data, marker=0xE1):
    """Puts a segment behind the start of a JPEG."""
    return jpeg[:2] + bytes([0xFF, marker]) + (len(data) + 2).to_bytes(2, 'big') + data + jpeg[2:]


def without_adobe(jpeg):
    """Takes the marker of Adobe's programs out of a JPEG."""
    at = jpeg.index(b'\xff\xee')
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], 'big') :]


def ppm(top, kind=6):
    """A PPM or PGM, with a comment, whose largest value is `top`."""
    image = RGB if kind == 6 else GREY
    values = np.rint(image / 255 * top).astype('>u2' if top > 255 else 'u1')
    return b'P%d\n# by hand\n45 31\n%d\n' % (kind, top) + values.tobytes()
