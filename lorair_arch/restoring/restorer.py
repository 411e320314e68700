"""Restores images with trained weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lorair_arch.data.images.photo import Photo, from_pillow
from lorair_arch.data.images.reading import to_float
from lorair_arch.devices import device_name
from lorair_arch.errors import DataError, OptionsError, did_you_mean
from lorair_arch.restoring.tiling import restore_tiled, smallest_tile
from lorair_arch.weights.pretrained import Paths, load_networks

AUTO = 'auto'


class Restored(NamedTuple):
    """A stand-in."""

    image: np.ndarray
    degradations: dict[str, float]
    tile: int | None


class Restorer:
    """Restores images of any size, one at a time.

    >>> restorer = Restorer.from_pretrained('lorair-tiny')
    >>> restored = restorer(image)  # image and restored: [H, W, 3], RGB

    Args:
        router: A trained `DegradationRouter`.
        net: A trained `LoRAIR`, with or without experts.
        names: The degradations, in the order of the router's classes.
        device: Where to run; by default the GPU, if there is one.

    Attributes:
        names: See above; what `degradation` may be, beside 'auto'.
    """

    def __init__(
        self, router: nn.Module, net: nn.Module, names: Sequence[str], device: str | torch.device | None = None
    ) -> None:
        try:
            self.device = torch.device(device or device_name())
            self.router, self.net = (module.eval().to(self.device) for module in (router, net))
        except (RuntimeError, AssertionError) as error:  # the latter from a build of PyTorch without CUDA
            raise OptionsError(f'device {str(device)!r} cannot be used: {str(error).splitlines()[0]}') from error
        self.names, self.precision = list(names), 'fp32'

    @classmethod
    def from_pretrained(cls, name_or_path: Paths, device=None, precision=None) -> Restorer:
        """Loads trained weights, of this project or of the official release.

        Args:
            name_or_path: 'lorair-tiny', the weights that come with the package; or a folder of weights, or a list of
                files: the router, the restorer and its experts, in any order (they are recognised by what is in
                them). Averaged weights (EMA) are preferred.
            device: Where to run, such as 'cpu' or 'cuda:1'; by default the GPU, if there is one.

        Raises:
            CheckpointError: A file is missing or damaged, the files do not belong together, or the name is unknown.
            OptionsError: There is no such device.
        """
        return cls(*load_networks(name_or_path), device=device)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray | Image.Image, degradation: str = AUTO, tile: int | None = None) -> np.ndarray:
        """Restores an image.

        Args:
            image: RGB [H, W, 3] or grey [H, W] or [H, W, 1]; uint8, uint16, or floating point in [0, 1]. Or an image of
                Pillow in any mode, which is not turned; CMYK and Lab become sRGB.
            degradation: 'auto': the router chooses the experts. One of `names`: the expert of that degradation.
            tile: None: the image in one piece. Otherwise the side, in pixels, of overlapping tiles that are restored
                one after the other, all guided by the whole image, so that memory does not grow with the image.

        Returns:
            The same shape and dtype. What is grey, or has three equal channels, stays so: it is the mean of the three
            channels that the network gives, as all three estimate the same values. Of an image of Pillow RGB or grey,
            with its alpha channel unchanged as the last one, if it has one.

        Raises:
            DataError: The image has another shape, dtype or range, or does not fit into the GPU's memory.
            OptionsError: `degradation` or `tile` is wrong.
        """
        self.check(degradation, 1, tile)
        photo = _photo_of(image)
        lq = _to_tensor(photo.pixels)
        try:
            # Asked even where the expert is named: the prior guides the restorer in any case.
            logits, prior = self.router(lq.to(self.device))
            if degradation != AUTO:
                # the one finite logit has the whole softmax, however many experts an image may use
                logits = torch.full_like(logits, -torch.inf)
                logits[:, self.names.index(degradation)] = 0

            if tile:
                restored = restore_tiled(self.net, lq, prior, logits, tile)
            else:
                restored = self.net(lq.to(self.device), prior, logits).cpu()
        except torch.cuda.OutOfMemoryError as error:
            raise DataError(
                f'an image of {lq.shape[3]} x {lq.shape[2]} pixels does not fit into the memory of the GPU: restore it '
                f'in {"smaller " if tile else ""}tiles, such as tile = {tile // 2 if tile else 512}'
            ) from error
        if (lq == lq[:, :1]).all():
            restored = restored.clamp(0, 1).mean(1, keepdim=True).expand_as(restored)
        restored = _to_image(restored, photo.pixels)
        return restored if photo.alpha is None else np.dstack([restored, photo.alpha])

    def restore(self, image, degradation: str = AUTO, strength: float = 1, tile=None) -> Restored:
        """A stand-in."""
        tile = None if tile == AUTO else tile
        return Restored(self(image, degradation, tile), self.degradations(image), tile)

    @torch.inference_mode()
    def degradations(self, image: np.ndarray | Image.Image) -> dict[str, float]:
        """Gives the probability of each degradation, as the router sees the image (see `__call__`)."""
        logits, _ = self.router(_to_tensor(_photo_of(image).pixels).to(self.device))
        return dict(zip(self.names, logits[0].float().softmax(0).tolist()))

    def check(self, degradation: str, strength=1, tile=None) -> None:
        """Raises an OptionsError if `__call__` does not take these."""
        tile = None if tile == AUTO else tile
        if degradation != AUTO and degradation not in self.names:
            raise OptionsError(f'degradation is {degradation!r}{did_you_mean(degradation, (AUTO, *self.names))}')
        if degradation != AUTO and not self.net.num_experts:
            raise OptionsError(f'degradation is {degradation!r}, but these weights have no experts: leave it out')
        smallest = smallest_tile(self.net)
        if tile is not None and tile < smallest:
            raise OptionsError(f'tile is {tile} pixels, but must be at least {smallest}; 512 is a good start')


def _photo_of(image: np.ndarray | Image.Image) -> Photo:
    # Pillow's F are floats of any range: checked below as an array's are.
    if isinstance(image, Image.Image) and image.mode != 'F':
        return from_pillow(image, 'of Pillow')
    return Photo(np.asarray(image))


def _to_tensor(image: np.ndarray) -> Tensor:
    """Checks an image and gives it as [1, 3, H, W], float32 in [0, 1]."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise DataError(f'image has shape {list(image.shape)}, expected [H, W, 3] (RGB) or [H, W] (grey)')
    if image.dtype in (np.uint8, np.uint16):
        image = to_float(image)
    elif not np.issubdtype(image.dtype, np.floating):
        raise DataError(f'image has {image.dtype} pixels, expected uint8, uint16 or floating point in [0, 1]')
    elif not (image.min() >= 0 and image.max() <= 1):  # also if there is a NaN
        raise DataError(f'image has {image.dtype} values from {image.min()} to {image.max()}, expected [0, 1]')
    image = np.broadcast_to(image.astype(np.float32, copy=False), (*image.shape[:2], 3))
    # A copy: a broadcast array must not be written to, and the caller's image is his own.
    return torch.from_numpy(image.transpose(2, 0, 1).copy())[None]


def _to_image(restored: Tensor, like: np.ndarray) -> np.ndarray:
    image = restored[0].clamp(0, 1).permute(1, 2, 0).numpy()
    if np.issubdtype(like.dtype, np.integer):
        # Rounded: `astype` cuts, which would darken by half a level.
        image = (image * np.iinfo(like.dtype).max).round()
    image = image.astype(like.dtype)
    return image if image.shape == like.shape else image[..., 0].reshape(like.shape)
