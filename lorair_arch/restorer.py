"""Restores images with trained weights: `Restorer` for Python, `restore_paths` for the command."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lorair_arch.data.checks import did_you_mean
from lorair_arch.data.images import IMAGE_SUFFIXES, to_float
from lorair_arch.data.stores import Folder
from lorair_arch.devices import device_name
from lorair_arch.errors import DataError, OptionsError
from lorair_arch.tiling import restore_tiled
from lorair_arch.utils.photos import WRITABLE, read_photo, write_photo
from lorair_arch.utils.pretrained import Paths, load_networks

logger = logging.getLogger('lorair_arch')

AUTO = 'auto'
_SMALLEST_TILE = 32


class Restorer:
    """Restores images of any size, one at a time.

    >>> restorer = Restorer.from_pretrained('results/quickstart/weights')
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
        self.names = list(names)

    @classmethod
    def from_pretrained(cls, name_or_path: Paths, device: str | torch.device | None = None) -> Restorer:
        """Loads trained weights, of this project or of the official release.

        Args:
            name_or_path: A folder of weights, or a list of files: the router, the restorer and its experts, in any
                order (they are recognised by what is in them). Averaged weights (EMA) are preferred.
            device: Where to run, such as 'cpu' or 'cuda:1'; by default the GPU, if there is one.

        Raises:
            CheckpointError: A file is missing or damaged, or the files do not belong together.
            OptionsError: There is no such device.
        """
        return cls(*load_networks(name_or_path), device=device)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, degradation: str = AUTO, tile: int | None = None) -> np.ndarray:
        """Restores an image.

        Args:
            image: RGB [H, W, 3] or grey [H, W] or [H, W, 1]; uint8, uint16, or floating point in [0, 1].
            degradation: 'auto': the router chooses the experts. One of `names`: the expert of that degradation.
            tile: None: the image in one piece. Otherwise the side, in pixels, of overlapping tiles that are restored
                one after the other, all guided by the whole image, so that memory does not grow with the image.

        Returns:
            RGB [H, W, 3], of the same dtype.

        Raises:
            DataError: The image has another shape, dtype or range, or does not fit into the GPU's memory.
            OptionsError: `degradation` or `tile` is wrong.
        """
        self._check(degradation, tile)
        lq = _to_tensor(image)
        try:
            logits, prior = self.router(lq.to(self.device))
            if degradation != AUTO:
                # the one finite logit has the whole softmax, however many experts an image may use
                logits = torch.full_like(logits, -torch.inf)
                logits[:, self.names.index(degradation)] = 0

            def restore(part: Tensor) -> Tensor:
                return self.net(part.to(self.device), prior, logits).cpu()

            restored = restore_tiled(restore, lq, tile) if tile else restore(lq)
        except torch.cuda.OutOfMemoryError as error:
            raise DataError(
                f'an image of {lq.shape[3]} x {lq.shape[2]} pixels does not fit into the memory of the GPU: restore it '
                f'in {"smaller " if tile else ""}tiles, such as tile = {tile // 2 if tile else 512}'
            ) from error
        return _to_image(restored, np.asarray(image).dtype)

    @torch.inference_mode()
    def degradations(self, image: np.ndarray) -> dict[str, float]:
        """Gives the probability of each degradation, as the router sees the image (see `__call__`)."""
        logits, _ = self.router(_to_tensor(image).to(self.device))
        return dict(zip(self.names, logits[0].float().softmax(0).tolist()))

    def _check(self, degradation: str, tile: int | None) -> None:
        if degradation != AUTO and degradation not in self.names:
            raise OptionsError(f'degradation is {degradation!r}{did_you_mean(degradation, (AUTO, *self.names))}')
        if degradation != AUTO and not self.net.num_experts:
            raise OptionsError(f'degradation is {degradation!r}, but these weights have no experts: leave it out')
        if tile is not None and tile < _SMALLEST_TILE:
            raise OptionsError(f'tile is {tile} pixels, but must be at least {_SMALLEST_TILE}; 512 is a good start')


def restore_paths(
    input: str | Path,
    output: str | Path,
    weights: Paths,
    tile: int | None = None,
    device: str | None = None,
    degradation: str = AUTO,
) -> None:
    """Restores one image file, or all images in a folder and its subfolders.

    Args:
        input: An image or a folder.
        output: A folder, made if missing: images keep their names within the input, as PNG. For one image also the
            name of a file; its suffix says the format.
        weights: See `Restorer.from_pretrained`.
        tile: See `Restorer`.
        device: See `Restorer`.
        degradation: See `Restorer`.

    Raises:
        CheckpointError: The weights cannot be used.
        DataError: There are no images, the output would replace the input, or some images could not be restored; in a
            folder all others have been.
        OptionsError: `degradation`, `tile` or `device` is wrong.
    """
    jobs = _plan(Path(input), Path(output))
    restorer = Restorer.from_pretrained(weights, device)
    restorer._check(degradation, tile)
    failures = []
    for source, target in tqdm(jobs, desc='Restoring', unit='image', disable=len(jobs) == 1):
        try:
            photo = read_photo(source)
            write_photo(target, photo._replace(rgb=restorer(photo.rgb, degradation, tile)))
        except DataError as error:
            if len(jobs) == 1:
                raise
            failures.append(str(error))
    if failures:
        raise DataError(f'{len(failures)} of {len(jobs)} images could not be restored:\n' + '\n'.join(failures))
    where = jobs[0][1] if len(jobs) == 1 else output
    logger.info(f'Restored {len(jobs)} image{"s" if len(jobs) > 1 else ""}: {where}')


def _plan(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Pairs each image with the file that its restored version goes to; no image is ever replaced."""
    if source.is_dir():
        if output.suffix.lower() in IMAGE_SUFFIXES:
            raise DataError(f"output '{output}' is the name of an image, but input '{source}' is a folder: name one")
        folder, inside = Folder(str(source)), output.resolve()
        jobs = [(Path(folder.path(key)), output / f'{key}.png') for key in folder.keys]
        if inside != source.resolve():  # an earlier run may have left its results in a folder within the input
            jobs = [job for job in jobs if inside not in job[0].resolve().parents]
        if not jobs:
            raise DataError(f"input '{source}' holds no images beside those in output '{output}': check the paths")
    elif not source.exists():
        raise DataError(f"input '{source}' does not exist: check the path")
    elif output.suffix.lower() in WRITABLE:
        jobs = [(source, output)]
    elif output.suffix and not output.exists():
        raise DataError(
            f"output '{output}' ends in {output.suffix}, but images are written as {', '.join(WRITABLE)}; "
            'if it is to be a folder, make it first'
        )
    else:
        jobs = [(source, output / f'{source.stem}.png')]
    if output.is_file() and jobs[0][1] != output:
        raise DataError(f"output '{output}' is a file, but a folder is needed: choose another output")
    for image, target in jobs:
        if target.exists() and target.samefile(image):
            raise DataError(f"output would replace the input image '{image}': choose another output")
    return jobs


def _to_tensor(image: np.ndarray) -> Tensor:
    """Checks an image and gives it as [1, 3, H, W], float32 in [0, 1]."""
    image = np.asarray(image)
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
    return torch.from_numpy(image.transpose(2, 0, 1).copy())[None]


def _to_image(restored: Tensor, dtype: np.dtype) -> np.ndarray:
    image = restored[0].clamp(0, 1).permute(1, 2, 0).numpy()
    if np.issubdtype(dtype, np.floating):
        return image.astype(dtype)
    return (image * np.iinfo(dtype).max).round().astype(dtype)
