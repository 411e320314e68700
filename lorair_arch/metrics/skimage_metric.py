"""PSNR and SSIM of scikit-image on RGB, as the three- and five-task papers since AirNet compute them.

AirNet, PromptIR (its `utils/val_utils.py`) and who builds on them divide 8 bits by 255 in float32 and call
scikit-image with its defaults: SSIM of each channel in a uniform window of 7 x 7 pixels. Their images are cut around
the centre to multiples of 16 before anything else. `gaussian` is scikit-image's other way, which its documentation
gives as that of Wang et al. (TIP 2004).
"""

from __future__ import annotations

import math

import numpy as np
from skimage.metrics import mean_squared_error, structural_similarity

WINDOW = 7
GAUSSIAN_WINDOW = 11  # scikit-image cuts the Gaussian of sigma 1.5 at 3.5 sigma


def _prepared(img: np.ndarray, img2: np.ndarray, crop_border: int, multiple_of: int) -> list[np.ndarray]:
    """Gives what is left of both images inside the border, float32 with data range 1."""
    if img.shape != img2.shape:
        raise ValueError(f'two images of the same shape are needed, got {img.shape} and {img2.shape}')
    inside = []
    for side in img.shape[:2]:
        side -= 2 * crop_border
        rest = side % multiple_of
        start = crop_border + rest // 2
        inside.append(slice(start, start + side - rest))
    cut = [image[tuple(inside)].astype(np.float32) / 255 for image in (img, img2)]
    if not cut[0].size:
        raise ValueError(f'nothing is left inside a border of {crop_border} pixels, in multiples of {multiple_of}')
    return cut


def calculate_psnr_skimage(
    img: np.ndarray, img2: np.ndarray, crop_border: int = 0, multiple_of: int = 1, **kwargs
) -> float:
    """PSNR over all channels, in dB.

    Args:
        img: Restored image [H, W, C], range [0, 255].
        img2: Ground truth, the same shape and range.
        crop_border: Pixels to leave out at each edge.
        multiple_of: Cuts both images around the centre to multiples of this; 16 in the papers.

    Raises:
        ValueError: The shapes differ, or nothing is left.
    """
    img, img2 = _prepared(img, img2, crop_border, multiple_of)
    mse = mean_squared_error(img2, img)
    return 10 * math.log10(1 / mse) if mse else math.inf


def calculate_ssim_skimage(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int = 0,
    multiple_of: int = 1,
    gaussian: bool = False,
    **kwargs,
) -> float:
    """SSIM, the mean of the channels'.

    Args:
        img, img2, crop_border, multiple_of: See `calculate_psnr_skimage`.
        gaussian: A Gaussian window of 11 x 11 pixels with sigma 1.5; else a uniform one of 7 x 7.

    Raises:
        ValueError: The shapes differ, or a side is smaller than the window.
    """
    img, img2 = _prepared(img, img2, crop_border, multiple_of)
    window = GAUSSIAN_WINDOW if gaussian else WINDOW
    if min(img.shape[:2]) < window:
        raise ValueError(f'SSIM needs at least {window} x {window} pixels, {img.shape[1]} x {img.shape[0]} are left')
    how = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False} if gaussian else {}
    return float(structural_similarity(img2, img, data_range=1, channel_axis=2 if img.ndim == 3 else None, **how))
