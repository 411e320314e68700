"""What kind of image some bytes are, whether they are all there, and which kinds are not read."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from lorair_arch.errors import DataError

# What can be decoded; HEIC and JPEG XL with a package more, see `formats._EXTRAS`.
IMAGE_SUFFIXES = (
    '.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm', '.pbm', '.pnm', '.gif', '.tga', '.apng',
    '.jpe', '.jfif', '.mpo', '.jp2', '.j2k', '.jpx', '.jpf', '.avif', '.heic', '.heif', '.hif', '.jxl', '.qoi', '.dib',
)  # fmt: skip
RAW_SUFFIXES = (
    '.dng', '.cr2', '.cr3', '.crw', '.nef', '.nrw', '.arw', '.srf', '.sr2', '.orf', '.rw2', '.raf', '.pef', '.srw',
    '.x3f', '.3fr', '.fff', '.iiq', '.erf', '.kdc', '.dcr', '.mrw', '.mef', '.mos', '.rwl',
)  # fmt: skip
# Pictures, but not read.
OTHER_SUFFIXES = (*RAW_SUFFIXES, '.psd', '.psb', '.xcf', '.svg', '.eps', '.exr', '.hdr', '.pfm')

_FLOATS = (b'v/1\x01', b'PF', b'Pf', b'#?RADIANCE')
_STARTS = {
    b'\xff\xd8\xff': 'JPEG',
    b'\x89PNG\r\n\x1a\n': 'PNG',
    b'II*\0': 'TIFF',
    b'MM\0*': 'TIFF',
    b'II+\0': 'TIFF',  # BigTIFF, with offsets of 64 bits
    b'MM\0+': 'TIFF',
    b'GIF8': 'GIF',
    b'BM': 'BMP',
    b'qoif': 'QOI',
    b'\xff\x4f\xff\x51': 'JPEG2000',
    b'\0\0\0\x0cjP  \r\n\x87\n': 'JPEG2000',
    b'\xff\x0a': 'JXL',
    b'\0\0\0\x0cJXL \r\n\x87\n': 'JXL',
    **dict.fromkeys((b'FUJIFILMCCD-RAW', b'IIU\0', b'IIRO', b'IIRS', b'MMOR', b'FOVb', b'\0MRM'), 'raw'),
    b'8BPS': 'a Photoshop file; save it as TIFF or PNG',
    **dict.fromkeys(_FLOATS, 'an image of floating-point pixels; convert it to 8 or 16 bits'),
    b'%!PS': 'a PostScript file; save it as TIFF or PNG',
    b'%PDF': 'a PDF file; save its pages as TIFF or PNG',
    b'gimp xcf': 'a GIMP file; export it as TIFF or PNG',
}
# After 'ftyp', in the files that are built like MP4; the first that is there counts.
_BRANDS = {b'crx ': 'raw', b'avif': 'AVIF', b'avis': 'AVIF'} | dict.fromkeys(
    (b'heic', b'heix', b'hevc', b'hevx', b'heim', b'heis', b'mif1', b'msf1'), 'HEIF'
)
RAW = "a camera's raw file, in which only a preview can be read here; develop it to a TIFF of 16 bits first"
# In the coded data of a JPEG, 0xff before something else than 0 or a restart marker ends them.
_MARKER = re.compile(rb'\xff[^\x00\x01\xff\xd0-\xd8]')


class Header(NamedTuple):
    """What stands before and around the pixels of a JPEG or PNG.

    Attributes:
        size: (width, height).
        bits: of a sample of a JPEG.
        whole: the end of the image is there; whatever follows it.
        channels: of a JPEG; 4: CMYK.
        frames: more than one: an animation.
    """

    size: tuple[int, int] = (0, 0)
    bits: int = 8
    whole: bool = False
    channels: int = 0
    frames: int = 1


def kind_of(content: bytes | memoryview, path: str) -> str:
    """Names the format that the first bytes tell; '': none.

    Raises:
        DataError: if it is one that is known and not read.
    """
    # SVG and web pages may begin with a comment or a mark; all others show in the first few bytes.
    head = bytes(content[:512])
    kind = next((kind for start, kind in _STARTS.items() if head.startswith(start)), '')
    if head[4:8] == b'ftyp':
        # The first box has its length in front, and lists the brands that can read the file.
        brands = head[8 : int.from_bytes(head[:4], 'big')]
        kind = next((kind for brand, kind in _BRANDS.items() if brand in brands), '')
    elif head[:4] == b'RIFF' and head[8:12] == b'WEBP':
        kind = 'WEBP'
    elif re.match(rb'P[1-6]\s', head):
        kind = 'PPM'
    elif head.lstrip(b'\xef\xbb\xbf \t\r\n')[:9].lower().startswith((b'<!doctype', b'<html')):
        kind = 'a web page (a download gave a page instead of the file); download it again'
    elif b'<svg' in head:
        kind = 'an SVG file; save it as PNG'
    # Many raw files are TIFF files to look at: Canon's say CR, of others the suffix alone tells.
    if kind == 'raw' or (kind == 'TIFF' and head[8:10] == b'CR') or path.lower().endswith(RAW_SUFFIXES):
        kind = RAW
    if kind.startswith('a'):  # formats are names, refusals begin with an article
        raise DataError(f"'{path}' is {kind}")
    return kind


def refusal(path: str) -> str:
    """Says why a file with one of `OTHER_SUFFIXES` is not read."""
    try:
        with open(path, 'rb') as file:
            kind_of(file.read(512), path)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"cannot read '{path}': {error.strerror}"
    return f"'{path}' has the suffix of a format that is not read; save it as PNG or TIFF"


def jpeg_header(content: bytes | memoryview) -> Header:
    """Walks over the segments of a JPEG, up to its end; thumbnails lie within segments, videos behind the end."""
    header, at = Header(), 2
    while found := _MARKER.search(content, at):
        marker, at = content[found.start() + 1], found.end()
        if marker == 0xD9:  # EOI
            return header._replace(whole=True)
        # SOF0 to SOF15, the frame; among their numbers are DHT, JPG and DAC.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 8 <= len(content):
            bits, height, width, channels = struct.unpack_from('>BHHB', content, at + 2)
            header = header._replace(size=(width, height), bits=bits, channels=channels)
        # Over the segment, which may hold a thumbnail with markers of its own.
        at += int.from_bytes(content[at : at + 2], 'big')
    return header


def png_header(content: bytes | memoryview) -> Header:
    """Walks over the chunks of a PNG, up to its end."""
    if len(content) < 33:
        return Header()
    header, at, name = Header(struct.unpack_from('>II', content, 16)), 8, b''
    while at + 12 <= len(content) and name != b'IEND':
        length, name = struct.unpack_from('>I4s', content, at)
        # The control chunk of an animation begins with the number of its frames.
        if name == b'acTL' and length == 8:
            header = header._replace(frames=struct.unpack_from('>I', content, at + 8)[0])
        at += 12 + length  # length, name and checksum have four bytes each
    return header._replace(whole=name == b'IEND' and at <= len(content))


def check_whole(whole: bool, path: str) -> None:
    if not whole:
        raise DataError(f"image '{path}' is cut short; copy it again or remove it")


def check_single(count: int, path: str, what: str = 'an animation of {} frames') -> None:
    """Raises a DataError if a file holds several images: which one is meant, or all, nobody has said."""
    if count > 1:
        kind = what.format(count)
        raise DataError(f"'{path}' is {kind}, and a single image is needed; save each as a file of its own")
