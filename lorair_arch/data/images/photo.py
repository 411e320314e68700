"""A decoded image, and what decoders of every format have in common: depths, alpha channels, turning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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


def check_size(size: tuple[int, int], path: str) -> None:
    """Raises a DataError if an image of the size (width, height) is larger than any photograph."""
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            f"image '{path}' claims to have {size[0]} x {size[1]} pixels, at most {MAX_PIXELS} are read; cut it into "
            'parts or remove it'
        )


def full_range(channels: np.ndarray, bits: int, path: str) -> np.ndarray:
    """Stretches unsigned integers of 1 to 16 bits to uint8, or to uint16 if they have more than 8.

    Raises:
        DataError: if they are something else.
    """
    if channels.dtype.kind not in 'bu' or bits > 16:
        raise DataError(f"image '{path}' has {channels.dtype} pixels; convert it to 8 or 16 bits")
    if bits in (8, 16):
        return channels.astype(f'u{bits // 8}', copy=False)
    wide = np.uint8 if bits < 8 else np.uint16
    return np.rint(channels * (np.iinfo(wide).max / (2**bits - 1))).astype(wide)


def undo_multiplication(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Divides colours [H, W, C] by the alpha channel [H, W] that they were multiplied with; under 0 they stay."""
    top = np.iinfo(colours.dtype).max
    share = np.where(alpha, alpha, top)[..., None].astype(np.float64)
    return np.minimum(np.rint(colours * (top / share)), top).astype(colours.dtype)


def _turned(plane: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        plane = plane.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return plane[rows, columns]
