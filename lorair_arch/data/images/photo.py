"""A decoded image, what decoders have in common, and the way from Pillow's modes and colour spaces to grey or RGB."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from lorair_arch.errors import DataError

MAX_PIXELS = 2**30  # of one image; more is hardly a photograph, but a few bytes can claim it


class Photo(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: uint8 or uint16, RGB [H, W, 3] or grey [H, W].
        alpha: [H, W] of the same type, or None. The pixels are not multiplied with it.
        icc: the colour profile of these pixels, or None.
        exif: EXIF data as they stand in a file, beginning with 'Exif', or None.
        notes: what is in the file but not here, or was changed; a clause each.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()

    @property
    def rgb(self) -> np.ndarray:
        """The pixels as RGB [H, W, 3]; grey ones three times."""
        return self.pixels if self.pixels.ndim == 3 else np.repeat(self.pixels[..., None], 3, 2)

    def upright(self, orientation: int) -> Photo:
        """Undoes an EXIF orientation: 5 to 8 are lying on their side, 2, 4, 5 and 7 mirrored."""
        alpha = None if self.alpha is None else _turned(self.alpha, orientation)
        return self._replace(pixels=_turned(self.pixels, orientation), alpha=alpha)


def photo_of(channels: np.ndarray, notes: tuple[str, ...] = ()) -> Photo:
    """Makes a photo of grey, grey and alpha, RGB, or RGB and alpha: [H, W] or [H, W, 1 to 4]."""
    if channels.ndim == 2:
        return Photo(channels, notes=notes)
    count = channels.shape[2]
    pixels = channels[..., :3] if count >= 3 else channels[..., 0]
    return Photo(pixels, channels[..., -1] if count in (2, 4) else None, notes=notes)


def check_size(size: tuple[int, int], path: str, most_pixels: int) -> None:
    """Raises a DataError if an image of the size (width, height) is larger than is to be read."""
    if size[0] * size[1] > most_pixels:
        raise DataError(
            f"image '{path}' claims to have {size[0]} x {size[1]} pixels, at most {most_pixels} are read; cut it into "
            'parts or remove it'
        )


def full_range(channels: np.ndarray, bits: int, path: str) -> np.ndarray:
    """Stretches unsigned integers of 1 to 16 bits to uint8, or to uint16 if they have more than 8.

    Raises:
        DataError: if they are something else.
    """
    # What floats and 32 bits mean by white differs from file to file.
    if channels.dtype.kind not in 'bu' or bits > 16:
        raise DataError(f"image '{path}' has {channels.dtype} pixels; convert it to 8 or 16 bits")
    if bits in (8, 16):
        return channels.astype(f'u{bits // 8}', copy=False)
    wide = np.uint8 if bits < 8 else np.uint16
    return np.rint(channels * (np.iinfo(wide).max / (2**bits - 1))).astype(wide)


def undo_multiplication(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Divides colours [H, W, C] by the alpha channel [H, W] that they were multiplied with; under 0 they stay."""
    top = np.iinfo(colours.dtype).max
    # Nothing can be divided by 0: under full transparency any colour is right.
    share = np.where(alpha, alpha, top)[..., None].astype(np.float64)
    return np.minimum(np.rint(colours * (top / share)), top).astype(colours.dtype)


def _turned(plane: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        plane = plane.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return plane[rows, columns]


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
    if mode in ('I', 'F') or mode.startswith('I;16'):  # before `convert`, which would cut them at 255
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
        # b'' and not None: the profile of the file must not be put back, it speaks of the old colours.
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
    # Some modes (I;16B) keep the byte order of the file, with which PyTorch does not compute.
    return photo_of(full_range(values.astype(values.dtype.newbyteorder('='), copy=False), 8 * values.itemsize, path))
