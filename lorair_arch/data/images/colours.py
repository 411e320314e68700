"""The pixels of an image of Pillow, in any mode, as grey or RGB; CMYK and Lab become sRGB."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from lorair_arch.data.images.photo import Photo, full_range, photo_of
from lorair_arch.errors import DataError

# Modes that Pillow itself turns into grey or RGB, with or without alpha, and loses nothing.
_CONVERTED = {
    '1': 'L', 'P': 'RGB', 'PA': 'RGBA', 'La': 'LA', 'RGBa': 'RGBA', 'RGBX': 'RGB', 'YCbCr': 'RGB', 'HSV': 'RGB',
}  # fmt: skip
_PLAIN = ('L', 'LA', 'RGB', 'RGBA')


def from_pillow(image: Image.Image, path: str) -> Photo:
    """Gives the pixels of an image of Pillow, in any mode; CMYK and Lab become sRGB.

    Args:
        image: it is not turned.
        path: its name, for messages.

    Returns:
        `icc` is b'' if the profile of the image does not hold any more, else None.

    Raises:
        DataError: if the pixels are not integers of 8 or 16 bits.
    """
    mode = image.mode
    if mode in ('CMYK', 'LAB'):
        return _to_srgb(image, image.info.get('icc_profile'))
    if mode in ('I', 'F') or mode.startswith('I;16'):
        return _deep(np.asarray(image), path)
    if 'transparency' in image.info:  # one colour, or the colours of a palette
        wanted = 'LA' if mode in ('1', 'L') else 'RGBA'
    else:
        wanted = _CONVERTED.get(mode, mode)
    if wanted not in _PLAIN:
        raise DataError(f"image '{path}' has pixels of the mode {mode}; convert it to RGB")
    return photo_of(np.asarray(image if wanted == mode else image.convert(wanted)))


def cmyk(inks: np.ndarray, icc: bytes | None) -> Photo:
    """Gives inks, uint8 [H, W, 4] with 255 for full, as sRGB."""
    return _to_srgb(Image.fromarray(np.ascontiguousarray(inks), 'CMYK'), icc)


def lab(values: np.ndarray) -> Photo:
    """Gives CIE L*a*b*, uint8 [H, W, 3], a* and b* as signed bytes, as sRGB."""
    height, width = values.shape[:2]
    return _to_srgb(Image.frombytes('LAB', (width, height), values.tobytes()), None)


def profile_fits(icc: bytes, pixels: np.ndarray) -> bool:
    """Whether a colour profile is sound and speaks of grey, or of RGB, as the pixels do."""
    wanted = 'GRAY' if pixels.ndim == 2 else 'RGB'
    return _space(icc) == wanted


def _to_srgb(image: Image.Image, icc: bytes | None) -> Photo:
    """Converts CMYK, with its profile if it has one that can be used, or Lab."""
    srgb = ImageCms.createProfile('sRGB')
    if image.mode == 'LAB':
        image = ImageCms.profileToProfile(image, ImageCms.createProfile('LAB'), srgb, outputMode='RGB')
        return Photo(np.asarray(image), icc=b'', notes=('its Lab colours became sRGB',))
    if icc and _space(icc) == 'CMYK':
        try:
            found = ImageCms.profileToProfile(image, io.BytesIO(icc), srgb, outputMode='RGB')
            return Photo(np.asarray(found), icc=b'', notes=('its CMYK colours became sRGB by its colour profile',))
        except ImageCms.PyCMSError:  # it lacks the tables
            pass
    note = 'its CMYK colours became sRGB without a colour profile, which is not exact'
    return Photo(np.asarray(image.convert('RGB')), icc=b'', notes=(note,))


def _space(icc: bytes) -> str:
    """Gives the colour space of a profile: 'RGB', 'GRAY', 'CMYK', ...; '': it is damaged."""
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space.strip()
    except (OSError, ImageCms.PyCMSError):
        return ''


def _deep(values: np.ndarray, path: str) -> Photo:
    """Takes Pillow's 16-bit grey, which older versions of it hold in 32 bits."""
    if values.dtype.kind == 'i' and values.min() >= 0 and values.max() < 2**16:
        values = values.astype(np.uint16)
    return photo_of(full_range(values.astype(values.dtype.newbyteorder('='), copy=False), 8 * values.itemsize, path))
