"""PSNR and SSIM as the all-weather papers compute them (Histoformer, arXiv 2407.10172; LoRA-IR, Table 1).

Their scripts read the saved 8-bit files and weigh the channels of OpenCV's BGR images in RGB order, so that their "Y"
is not the luma of BasicSR's `test_y_channel`; it is not rounded. Numbers that are to stand beside the published ones
need the same arithmetic, to the float32.
"""

from __future__ import annotations

import math

import numpy as np
from skimage.metrics import mean_squared_error, structural_similarity

WINDOW = 11
WEIGHTS = (65.481, 128.553, 24.966)


def _gray(img: np.ndarray, img2: np.ndarray, crop_border: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives the weighted sum of the channels of both images, float32 with data range 1."""
    if img.shape != img2.shape:
        raise ValueError(f'two images of the same shape are needed, got {img.shape} and {img2.shape}')
    if img.ndim != 3 or img.shape[2] != 3:
        raise ValueError(f'colour images [H, W, 3] are needed, got {img.shape}')
    height, width = img.shape[:2]
    inside = slice(crop_border, height - crop_border), slice(crop_border, width - crop_border)
    # the scripts divide in float32, sum in float64 and store float32
    return tuple(
        ((np.dot(image[inside].astype(np.float32) / 255, WEIGHTS) + 16) / 255).astype(np.float32)
        for image in (img, img2)
    )


def calculate_psnr_allweather(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, **kwargs) -> float:
    """PSNR of the all-weather papers, in dB.

    Args:
        img: Restored image [H, W, 3], BGR, range [0, 255]; 8 bits for the published numbers.
        img2: Ground truth, the same shape and range.
        crop_border: Pixels to leave out at each edge.

    Raises:
        ValueError: The shapes differ, are not [H, W, 3], or nothing is left inside the border.
    """
    img, img2 = _gray(img, img2, crop_border)
    if not img.size:
        raise ValueError(f'nothing is left of the image inside a border of {crop_border} pixels')
    mse = mean_squared_error(img2, img)
    return 10 * math.log10(1 / mse) if mse else math.inf


def calculate_ssim_allweather(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, **kwargs) -> float:
    """SSIM of the all-weather papers: a uniform window of 11 x 11 pixels.

    Args:
        img, img2, crop_border: See `calculate_psnr_allweather`.

    Raises:
        ValueError: The shapes differ, are not [H, W, 3], or a side is smaller than the window.
    """
    img, img2 = _gray(img, img2, crop_border)
    if min(img.shape) < WINDOW:
        raise ValueError(f'SSIM needs at least {WINDOW} x {WINDOW} pixels inside the border, got {img.shape}')
    return float(structural_similarity(img2, img, win_size=WINDOW, data_range=1))
