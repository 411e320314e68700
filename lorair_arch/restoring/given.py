"""From whatever is given to be restored, array, image of Pillow, tensor or file, to pixels, and back to the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lorair_arch.data.images.photo import Photo, from_pillow
from lorair_arch.data.images.reading import read_photo
from lorair_arch.errors import DataError

Given = np.ndarray | Image.Image | Tensor | str | os.PathLike
# What integers mean by white.
_WHITE = {torch.uint8: 255, torch.uint16: 65535}
_CHANNELS = 'expected {} with 3 channels (RGB) or 1 (grey), with or without alpha'
_STRIP = 2**22  # numbers that are converted at once


class Pixels(NamedTuple):
    """An image as the networks are to see it.

    Attributes:
        values: [C, H, W], C 3 or 1 (grey), uint8, uint16 or floating point in [0, 1], on any device.
        back: Makes of such values what was given: kind, shape, transparency.
    """

    values: Tensor
    back: Callable[[Tensor], Any]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return tuple(self.values.shape[1:])

    @property
    def is_grey(self) -> bool:
        """Whether all channels are the same."""
        first, *others = self.values
        return all(torch.equal(first, other) for other in others)

    def window(self, rows: slice, columns: slice, device: torch.device | str = 'cpu') -> Tensor:
        """Gives a part as [1, 3, h, w], float32 in [0, 1], on a device."""
        values = self.values[:, rows, columns]
        white = _WHITE.get(values.dtype)
        if values.dtype == torch.uint16:  # which not every device knows
            values = values.float()
        values = values.to(device).float()  # 8 bits are sent as they are: floats are larger
        if white:
            values = values / white
        return values.expand(3, -1, -1)[None].contiguous()

    def bytes(self) -> Tensor:
        """Gives the image as [1, 3, H, W] in 8 bits: what the router looks at on a CPU."""
        values = self.values
        if values.dtype != torch.uint8:
            values = torch.empty(values.shape, dtype=torch.uint8)
            for rows in self.strips():
                values[:, rows] = as_type(self.window(rows, slice(None))[0, : len(values)], torch.uint8)
        return values.cpu().expand(3, -1, -1)[None]

    def strips(self) -> list[slice]:
        """Gives rows of the image, as many at once as take little memory."""
        height, width = self.size
        step = max(1, _STRIP // (3 * width))
        return [slice(start, start + step) for start in range(0, height, step)]


def as_type(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Gives values, clipped to [0, 1], in the type of an image."""
    values, white = values.float().clamp(0, 1), _WHITE.get(dtype)
    # Rounded: `to` cuts, which would darken by half a level.
    return (values.mul(white).round_() if white else values).to(dtype)


def put(values: Tensor, image: Pixels, rows: slice, restored: Tensor, grey: bool, strength: float) -> None:
    """Writes restored rows into the values of a result.

    Args:
        values: [C, H, W], of the type of the image's own.
        image: What was restored.
        rows: Which rows.
        restored: [1, 3, rows, W], on any device.
        grey: The image is grey, and its result stays so.
        strength: See `Restorer`.
    """
    restored = restored.float().clamp(0, 1)
    if grey:
        # Written so that of three equal numbers it is that number.
        first = restored[:, :1]
        restored = (first + (restored - first).mean(1, keepdim=True)).expand_as(restored)
    if strength != 1:
        lq = image.window(rows, slice(None), restored.device)
        restored = torch.lerp(lq, restored, strength)
    restored = restored[0, : len(values)]
    if values.dtype == torch.uint16:  # which not every device knows
        restored = restored.to(values.device)
    values[:, rows] = as_type(restored, values.dtype).to(values.device)


def pixels_of(image: Given) -> Pixels:
    """Takes an image of any kind.

    Args:
        image: See `Restorer.__call__`; a tensor has no batch.

    Raises:
        DataError: It has another shape, type or range; or the file cannot be read.
    """
    if isinstance(image, Tensor):
        return _of_tensor(image)
    if isinstance(image, (str, os.PathLike)):
        return _of_photo(read_photo(image), _whole)
    # Pillow's F are floats of any range: checked as an array's are.
    if isinstance(image, Image.Image):
        if image.mode == 'F':
            return _of_array(np.asarray(image), Image.fromarray)
        return _of_photo(from_pillow(image, 'of Pillow'), lambda pixels, alpha: _pillow(_whole(pixels, alpha), image))
    return _of_array(np.asarray(image))


def _of_array(image: np.ndarray, back: Callable[[np.ndarray], Any] = lambda array: array) -> Pixels:
    channels = image if image.ndim != 2 else image[..., None]
    if channels.ndim != 3 or channels.shape[2] not in (1, 2, 3, 4) or 0 in channels.shape:
        raise DataError(f'image has shape {list(image.shape)}, {_CHANNELS.format("[H, W, C] or [H, W]")}')
    if image.dtype.newbyteorder('=') not in (np.uint8, np.uint16) and not np.issubdtype(image.dtype, np.floating):
        raise DataError(f'image has {image.dtype} pixels, expected uint8, uint16 or floating point in [0, 1]')
    count = channels.shape[2] - 1 + channels.shape[2] % 2  # 1 or 3 without alpha
    values = _tensor(channels[..., :count])
    _check_range(values, image.dtype)

    def restored(values: Tensor) -> Any:
        # In the layout that the array had: rows of pixels, not planes.
        array = values.permute(1, 2, 0).contiguous().numpy().astype(image.dtype, copy=False)
        if count < channels.shape[2]:
            array = np.concatenate([array, channels[..., count:]], axis=2)
        return back(array.reshape(image.shape))

    return Pixels(values, restored)


def _of_tensor(image: Tensor) -> Pixels:
    if image.dim() != 3 or image.shape[0] not in (1, 2, 3, 4) or 0 in image.shape:
        raise DataError(f'image has shape {list(image.shape)}, {_CHANNELS.format("[C, H, W] or [B, C, H, W]")}')
    if image.dtype not in _WHITE and not image.is_floating_point():
        raise DataError(f'image has {image.dtype} pixels, expected uint8, uint16 or floating point in [0, 1]')
    count = image.shape[0] - 1 + image.shape[0] % 2
    _check_range(image[:count], image.dtype)
    return Pixels(image.detach()[:count], lambda values: torch.cat([values.to(image.device), image[count:]]))


def _of_photo(photo: Photo, back: Callable[[np.ndarray, np.ndarray | None], Any]) -> Pixels:
    grey = photo.pixels.ndim == 2
    if 0 in photo.pixels.shape:  # of Pillow, as no file has that
        raise DataError(f'image has no pixels: {photo.pixels.shape[1]} x {photo.pixels.shape[0]}')
    values = _tensor(photo.pixels[..., None] if grey else photo.pixels)

    def restored(values: Tensor) -> Any:
        array = values[0] if grey else values.permute(1, 2, 0)
        return back(array.contiguous().numpy(), photo.alpha)

    return Pixels(values, restored)


def _tensor(channels: np.ndarray) -> Tensor:
    """[H, W, C] -> [C, H, W], of the same memory where PyTorch knows the type."""
    if np.issubdtype(channels.dtype, np.floating):
        channels = channels.astype(np.float32, copy=False)
    # PyTorch knows neither other byte orders, nor negative strides, nor what must not be written to.
    channels = np.require(channels, channels.dtype.newbyteorder('='), 'C' if channels.flags.writeable else 'CW')
    return torch.from_numpy(channels).permute(2, 0, 1)


def _check_range(values: Tensor, dtype: Any) -> None:
    if not values.is_floating_point():
        return
    low, high = values.min().item(), values.max().item()
    if not (low >= 0 and high <= 1):  # also if there is a NaN
        name = str(dtype).removeprefix('torch.')
        raise DataError(f'image has {name} values from {low} to {high}, expected [0, 1]')


def _whole(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    return pixels if alpha is None else np.dstack([pixels, alpha])


def _pillow(array: np.ndarray, given: Image.Image) -> Image.Image:
    """Gives an image of Pillow with what the given one carries along: profile, EXIF data, resolution."""
    image = Image.fromarray(array)
    image.info = {key: value for key, value in given.info.items() if key != 'transparency'}  # it is the alpha channel
    if given.mode in ('CMYK', 'LAB'):  # the colours are sRGB now
        image.info.pop('icc_profile', None)
    return image
