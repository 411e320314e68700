"""LPIPS (Zhang et al., CVPR 2018) by torchmetrics, an extra: `pip install 'lorair[lpips]'`.

Of the libraries that have it torchmetrics is kept up, small, and free (Apache-2.0, LPIPS itself BSD-2-Clause); the
original `lpips` was last released in 2021, piq in 2023, and pyiqa, which has most metrics, is for non-commercial use
alone, as are the weights of most learned metrics without reference. Without reference there is BasicSR's
`calculate_niqe`.
"""

from __future__ import annotations

import functools

import numpy as np

from lorair_arch.errors import LoRAIRError


def calculate_lpips(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, **kwargs) -> float:
    """LPIPS with AlexNet, version 0.1, as most papers report it; lower is better.

    Args:
        img: Restored image [H, W, 3], BGR, range [0, 255].
        img2: Ground truth, the same shape and range.
        crop_border: Pixels to leave out at each edge.

    Raises:
        LoRAIRError: torchmetrics is not installed, or AlexNet's weights are not there and cannot be downloaded.
        ValueError: The shapes differ.
    """
    import torch

    if img.shape != img2.shape:
        raise ValueError(f'two images of the same shape are needed, got {img.shape} and {img2.shape}')
    network = _network()
    height, width = img.shape[:2]
    inside = slice(crop_border, height - crop_border), slice(crop_border, width - crop_border)
    tensors = [
        torch.from_numpy(np.ascontiguousarray(image[inside][..., ::-1], np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        for image in (img, img2)
    ]
    with torch.inference_mode():
        return float(network(*tensors))


@functools.cache
def _network():
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    except ModuleNotFoundError as error:
        raise LoRAIRError("LPIPS needs torchmetrics, which is not installed: pip install 'lorair[lpips]'") from error
    try:
        return LearnedPerceptualImagePatchSimilarity(net_type='alex').net
    except OSError as error:  # of the download
        import torch
        from torchvision.models import AlexNet_Weights

        url = AlexNet_Weights.DEFAULT.url
        raise LoRAIRError(
            f"LPIPS needs AlexNet's weights, which cannot be downloaded ({error}): get {url} elsewhere and put it into "
            f'{torch.hub.get_dir()}/checkpoints'
        ) from error
