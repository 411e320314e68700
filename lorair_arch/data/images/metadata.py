"""What comes along with the pixels of a file: its colour profile, EXIF data, and how the camera was held."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image
from PIL.ExifTags import IFD, Base

from lorair_arch.data.images.photo import Photo

_LOCK = threading.Lock()
# Of the first 532 tags, which TIFF and EXIF share, those that say nothing of how the pixels are stored.
_DESCRIPTIVE = {
    Base.ImageDescription, Base.Make, Base.Model, Base.Orientation, Base.XResolution, Base.YResolution,
    Base.ResolutionUnit, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer,
}  # fmt: skip
# XMP, IPTC, Photoshop's resources and layers, ICC profile: of TIFF files, not of EXIF data.
_OTHER_DATA = {700, 33723, 34377, 34675, 37724}
_LAST_OF_TIFF = 532


class Metadata(NamedTuple):
    """What a file says of its pixels.

    Attributes:
        icc: the colour profile, or None.
        exif: what is known of the photograph, None: it cannot be read.
        orientation: of the pixels, 1 to 8; 1 is upright. TIFF and JPEG XL are turned when they are decoded.
        frames: more than one: a photograph with a preview, or with what a brighter screen needs.
    """

    icc: bytes | None
    exif: Image.Exif | None
    orientation: int
    frames: int = 1


def opened(content: bytes | memoryview, formats: Sequence[str] | None = None) -> Image.Image:
    """Opens an image with Pillow, which reads no more than its header yet, of whatever size it claims to be."""
    with _LOCK:  # the limit is Pillow's, for the whole process
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(content), formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def read_metadata(content: bytes | memoryview) -> Metadata:
    """Reads what comes along with the pixels of a file that can be decoded."""
    exif, icc, frames = Image.Exif(), None, 1
    # TIFF's orientation is obeyed when it is decoded, see `decode_photo`.
    is_tiff = is_upright = content[:2] in (b'II', b'MM')
    try:
        # 42 is TIFF's number in either byte order; BigTIFF has 43, which Pillow's EXIF data do not know.
        if is_tiff and 42 in content[2:4]:  # a TIFF file is built like EXIF data, also where Pillow cannot open it
            exif.load(b'Exif\0\0' + bytes(content))
            icc = exif.get(Base.InterColorProfile)
        else:
            image = opened(content)
            icc, frames = image.info.get('icc_profile'), getattr(image, 'n_frames', 1)
            exif = image.getexif()
            is_upright |= image.format == 'JXL'  # which has an orientation of its own, obeyed by its decoder
        orientation = exif.get(Base.Orientation)
    except Exception:  # damaged EXIF data can raise nearly anything, and Pillow may not know the format
        return Metadata(icc, None, 1, frames)
    return Metadata(icc, exif, 1 if is_upright or orientation not in range(1, 9) else orientation, frames)


def with_exif(photo: Photo, exif: Image.Exif | None) -> Photo:
    """Gives an upright photo the EXIF data of its file, without the thumbnail."""
    damaged = photo._replace(notes=(*photo.notes, 'its EXIF data cannot be read and are left out'))
    if exif is None:
        return damaged
    height, width = photo.pixels.shape[:2]
    try:
        for tag in list(exif):
            # Strips, compression and the like of the old file would be lies about the new one.
            if (tag <= _LAST_OF_TIFF and tag not in _DESCRIPTIVE) or tag in _OTHER_DATA:
                del exif[tag]
        if Base.Orientation in exif:
            exif[Base.Orientation] = 1  # the pixels are upright now: viewers would turn them once more
        camera = exif.get_ifd(IFD.Exif) if IFD.Exif in exif else {}  # asked for, Pillow would make one
        for tag, side in ((Base.ExifImageWidth, width), (Base.ExifImageHeight, height)):
            if tag in camera:
                camera[tag] = side
        return photo._replace(exif=exif.tobytes() if len(exif) else None)
    except Exception:  # see above
        return damaged
