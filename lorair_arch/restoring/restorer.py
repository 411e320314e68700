"""Restores images with trained weights."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lorair_arch.devices import PRECISIONS, choose_precision, device_name
from lorair_arch.errors import DataError, OptionsError, did_you_mean
from lorair_arch.restoring.given import Given, Pixels, pixels_of, put
from lorair_arch.restoring.memory import choose_tile, is_out_of_memory, next_smaller, no_room, too_large
from lorair_arch.restoring.tiling import restore_bands, smallest_tile
from lorair_arch.weights.bundle import save_folder
from lorair_arch.weights.hub import check_name, push
from lorair_arch.weights.pretrained import Paths, load_networks

AUTO = 'auto'
Degradation = str | Mapping[str, float]
# Images of a list that are restored at once have so many pixels together: small ones keep a GPU busy only together. But
# the router's views of each take the same memory, however small it is.
_BATCH_PIXELS, _BATCH_IMAGES = 2**20, 16


class Restored(NamedTuple):
    """A restored image, and how it came about.

    Attributes:
        image: The same kind as what was given.
        degradations: The probability of each degradation, as the router saw the image.
        tile: Side of the tiles in pixels; None: in one piece.
    """

    image: Any
    degradations: dict[str, float]
    tile: int | None


class Restorer:
    """Restores images of any size.

    >>> restorer = Restorer.from_pretrained('lorair-tiny')
    >>> restored = restorer(image)  # the same kind as image: array, image of Pillow, tensor, or a list of them

    Args:
        router: A trained `DegradationRouter`.
        net: A trained `LoRAIR`, with or without experts.
        names: The degradations, in the order of the router's classes.
        device: Where to run; by default the GPU, if there is one.
        precision: 'fp32', 'bf16' or 'fp16', in which convolutions are computed; by default bf16 on a GPU of CUDA that
            has it, else fp32.

    Attributes:
        names: See above; what `degradation` may be, beside 'auto'.

    Raises:
        OptionsError: There is no such device, or it does not have the precision.
    """

    def __init__(
        self,
        router: nn.Module,
        net: nn.Module,
        names: Sequence[str],
        device: str | torch.device | None = None,
        precision: str | None = None,
    ) -> None:
        try:
            self.device = torch.device(device_name() if device is None else device)
            self.router, self.net = (module.eval().to(self.device) for module in (router, net))
            if device is not None:
                torch.zeros(1, device=self.device).item()  # some devices of PyTorch have no numbers
        except (RuntimeError, AssertionError) as error:  # the latter from a build of PyTorch without CUDA
            raise OptionsError(f'device {str(device)!r} cannot be used: {str(error).splitlines()[0]}') from error
        self.names = list(names)
        self.precision = choose_precision(precision, self.device.type)

    @classmethod
    def from_pretrained(
        cls, name_or_path: Paths, device: str | torch.device | None = None, precision: str | None = None
    ) -> Restorer:
        """Loads trained weights, of this project or of the official release.

        Args:
            name_or_path: A name that `lorair weights` lists, such as 'lorair-tiny'; 'user/repo' of the Hugging Face
                hub; a folder of weights; or a list of files: the router, the restorer and its experts, in any order
                (they are recognised by what is in them). Averaged weights (EMA) are preferred.
            device, precision: See the class.

        Raises:
            CheckpointError: A file is missing or damaged, the files do not belong together, or the name is unknown.
            OptionsError: There is no such device, or it does not have the precision.
        """
        return cls(*load_networks(name_or_path), device=device, precision=precision)

    def __call__(
        self,
        image: Given | Sequence,
        degradation: Degradation = AUTO,
        strength: float = 1,
        tile: int | str | None = AUTO,
    ) -> Any:
        """Restores an image, or several.

        Args:
            image: RGB or grey, with or without alpha: an array [H, W, C] or [H, W], or a tensor [C, H, W] or
                [B, C, H, W]; uint8, uint16, or floating point in [0, 1]. An image of Pillow in any mode, which is not
                turned. The path of an image file, read as viewers show it. Or a list of such: images of the same size
                are restored together.
            degradation: 'auto': the router chooses the experts. One of `names`: the expert of that degradation. Weights
                by name, such as {'rain': 0.7, 'noise': 0.3}: their experts in this proportion.
            strength: From 0, which gives the image back as it is, to 1, what the network restores; between them a
                blend of the two.
            tile: None: the image in one piece. A number: the side, in pixels, of overlapping tiles that are restored
                one after the other, all guided by the whole image, so that memory does not grow with the image. 'auto':
                in one piece if memory allows, else in tiles as large as it does; smaller ones if it runs out.

        Returns:
            The same kind, size, type and transparency. What is grey, or has three equal channels, stays so: it is the
            mean of the three channels that the network gives, as all three estimate the same values. An image of Pillow
            comes back as RGB or grey, with alpha if it had any; of a path comes an array.

        Raises:
            DataError: The image has another shape, type or range, or does not fit into memory; or numbers overflow in
                this `precision`.
            OptionsError: `degradation`, `strength` or `tile` is wrong.
        """
        if isinstance(image, Tensor) and image.dim() == 4:
            restored = self(list(image), degradation, strength, tile)
            return torch.stack(restored) if restored else image.clone()
        if not isinstance(image, (list, tuple)):
            return self.restore(image, degradation, strength, tile).image
        self.check(degradation, strength, tile)
        pixels = [pixels_of(one) for one in image]
        results: dict[int, Restored] = {}
        for batch in _batches(pixels):
            restored = self._restore([pixels[i] for i in batch], degradation, strength, tile)
            results.update(zip(batch, restored))
        return [results[i].image for i in range(len(pixels))]

    def restore(
        self, image: Given, degradation: Degradation = AUTO, strength: float = 1, tile: int | str | None = AUTO
    ) -> Restored:
        """Restores an image as `__call__` does, and tells what the router saw, which is asked once."""
        self.check(degradation, strength, tile)
        return self._restore([pixels_of(image)], degradation, strength, tile)[0]

    @torch.inference_mode()
    def degradations(self, image: Given) -> dict[str, float]:
        """Gives the probability of each degradation, as the router sees the image (see `__call__`)."""
        return self._probabilities(self._route([pixels_of(image)])[0])[0]

    def check(self, degradation: Degradation = AUTO, strength: float = 1, tile: int | str | None = AUTO) -> None:
        """Raises an OptionsError if `__call__` does not take these."""
        if not isinstance(degradation, (str, Mapping)):
            raise OptionsError(f'degradation is {degradation!r}, expected a name, or weights by name')
        weights = {degradation: 1.0} if isinstance(degradation, str) else degradation
        known = (AUTO, *self.names) if isinstance(degradation, str) else self.names
        for name, weight in weights.items():
            if name not in known:
                raise OptionsError(f'degradation is {name!r}{did_you_mean(name, known)}')
            if not (isinstance(weight, Real) and 0 <= weight < math.inf):
                raise OptionsError(f'degradation gives {name!r} the weight {weight!r}, expected a number from 0 up')
        if not any(weights.values()):
            raise OptionsError('degradation gives no degradation a weight above 0: name one')
        if degradation != AUTO and not self.net.num_experts:
            raise OptionsError(f'degradation is {degradation!r}, but these weights have no experts: leave it out')
        if not (isinstance(strength, Real) and 0 <= strength <= 1):
            raise OptionsError(f'strength is {strength!r}, expected a number from 0 (the input) to 1')
        smallest = smallest_tile(self.net)
        if not (tile is None or tile == AUTO or isinstance(tile, Integral)):
            raise OptionsError(f"tile is {tile!r}, expected 'auto' or a number of pixels")
        if isinstance(tile, Integral) and tile < smallest:
            raise OptionsError(f'tile is {tile} pixels, but must be at least {smallest}; 512 is a good start')

    def save_pretrained(self, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Writes the weights as a folder of the Hugging Face hub: model.safetensors, config.json and a model card.

        Args:
            folder: Where to; made if missing. `from_pretrained` reads it, and model.safetensors alone.
            overwrite: Whether files in it may be replaced.

        Raises:
            OutputError: A file exists, or cannot be written.
        """
        save_folder(folder, self.router, self.net, self.names, overwrite)

    def push_to_hub(self, name: str, private: bool = False) -> str:
        """Uploads what `save_pretrained` writes to the Hugging Face hub; a model card that is there stays as it is.

        Args:
            name: 'user/repo'; made if there is none. `hf auth login` or HF_TOKEN says who you are.
            private: Whether a repository that is made is only seen by its owner.

        Returns:
            The address of the commit.

        Raises:
            CheckpointError: The name is none, or the hub cannot be reached, or refuses.
        """
        check_name(name)
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, name.rpartition('/')[2])  # after which the model card is called
            self.save_pretrained(folder)
            return push(folder, name, private)

    def _restore(
        self, images: list[Pixels], degradation: Degradation, strength: float, tile: int | str | None
    ) -> list[Restored]:
        """Restores images of the same size: together if that needs no tiles and fits into memory, else one by one."""
        if len(images) > 1 and not self._side(images, tile):
            with contextlib.suppress(DataError):
                return self._at_once(images, degradation, strength, None)
        return [self._at_once([image], degradation, strength, tile)[0] for image in images]

    def _side(self, images: list[Pixels], tile: int | str | None) -> int | None:
        """Gives the side of tiles, in pixels."""
        height, width = images[0].size
        return choose_tile(self.net, (height * len(images), width), self.device) if tile == AUTO else tile

    @torch.inference_mode()
    def _at_once(
        self, images: list[Pixels], degradation: Degradation, strength: float, tile: int | str | None
    ) -> list[Restored]:
        """Restores images of the same size together; in tiles only if there is one.

        Raises:
            DataError: They do not fit into memory, or their results are no images.
        """
        size, side = images[0].size, self._side(images, tile)
        logits, prior = self._route(images)
        degradations, grey = self._probabilities(logits), [image.is_grey for image in images]
        net, logits = self._steered(logits, degradation)
        while True:
            try:
                values = [torch.empty_like(image.values) for image in images]
                with self._autocast():
                    for rows, band in restore_bands(net, _window(images, self.device), size, prior, logits, side):
                        self._check_finite(band)
                        for i, image in enumerate(images):
                            put(values[i], image, rows, band[i : i + 1], grey[i], strength)
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                smaller = next_smaller(self.net, size, side)
                if tile != AUTO or not smaller:
                    raise DataError(too_large(size, side, smaller, self.device)) from error
                side = smaller
                if self.device.type == 'cuda':
                    torch.cuda.empty_cache()
        return [Restored(image.back(v), seen, side) for image, v, seen in zip(images, values, degradations)]

    def _check_finite(self, restored: Tensor) -> None:
        """Raises a DataError if numbers have overflowed: as pixels they would be black, or white."""
        if not restored.isfinite().all():
            remedy = 'its weights are of no use for it' if self.precision == 'fp32' else 'use the precision fp32'
            raise DataError(f'the network makes undefined numbers of this image in {self.precision}: {remedy}')

    def _route(self, images: list[Pixels]) -> tuple[Tensor, Tensor]:
        """Asks the router; gives logits [B, E] and prior [B, P], or raises a DataError if there is no memory for it."""
        try:
            if self.device.type == 'cpu':
                lq = torch.cat([image.bytes() for image in images]) if len(images) > 1 else images[0].bytes()
            else:
                lq = _window(images, self.device)(slice(None), slice(None))
            with self._autocast():
                logits, prior = self.router(lq)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise DataError(f'the router {no_room(self.device)}') from error
        return logits.float(), prior.float()

    def _probabilities(self, logits: Tensor) -> list[dict[str, float]]:
        return [dict(zip(self.names, row)) for row in logits.softmax(1).tolist()]

    def _steered(self, logits: Tensor, degradation: Degradation) -> tuple[nn.Module, Tensor]:
        """Gives the network to run, and the logits that choose its experts, if the user has named some."""
        if degradation == AUTO:
            return self.net, logits
        if isinstance(degradation, str):
            # the one finite logit has the whole softmax, however many experts an image may use
            chosen = torch.full_like(logits, -torch.inf)
            chosen[:, self.names.index(degradation)] = 0
            return self.net, chosen
        return self.net.merge([degradation.get(name, 0) for name in self.names]), logits

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.precision == 'fp32':
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, PRECISIONS[self.precision])


def _batches(images: list[Pixels]) -> Iterator[list[int]]:
    """Gives the numbers of images that are restored together: of the same size, and not too many."""
    groups: dict[tuple, list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(image.size, []).append(i)
    for (height, width), group in groups.items():
        count = max(1, min(_BATCH_PIXELS // (height * width), _BATCH_IMAGES))
        yield from (group[start : start + count] for start in range(0, len(group), count))


def _window(images: list[Pixels], device: torch.device) -> Any:
    def window(rows: slice, columns: slice) -> Tensor:
        parts = [image.window(rows, columns, device) for image in images]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    return window
