"""Degradations that come from the camera: noise, blur, low light and JPEG.

Every function takes an RGB image (float32 [H, W, 3] in [0, 1]), a NumPy generator and `(low, high)` ranges, draws its
parameters uniformly from the ranges, and returns a new image of the same shape and range.
"""

from __future__ import annotations

import cv2
import numpy as np

Range = tuple[float, float]


def noise(image: np.ndarray, rng: np.random.Generator, sigma: Range = (15, 50)) -> np.ndarray:
    """Adds white Gaussian noise, the same level in all channels.

    Source: Zhang et al., "Beyond a Gaussian Denoiser" (DnCNN), TIP 2017; levels 15, 25 and 50 are the common test.

    Args:
        image: RGB, float32 [H, W, 3] in [0, 1].
        rng: the only source of randomness.
        sigma: standard deviation in 8-bit levels (0 to 255).
    """
    level = rng.uniform(*sigma) / 255
    return np.clip(image + np.float32(level) * rng.standard_normal(image.shape, dtype=np.float32), 0, 1)


def blur(image: np.ndarray, rng: np.random.Generator, sigma: Range = (1, 4)) -> np.ndarray:
    """Blurs with an anisotropic Gaussian kernel of random axes and direction.

    Source: Zhang et al., "Designing a Practical Degradation Model" (BSRGAN), ICCV 2021, section 3.2.

    Args:
        image: RGB, float32 [H, W, 3] in [0, 1].
        rng: the only source of randomness.
        sigma: standard deviation of each of the two axes in pixels.
    """
    along, across = rng.uniform(*sigma, size=2)
    angle = rng.uniform(0, np.pi)
    radius = int(np.ceil(3 * max(along, across)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2)).astype(np.float32)
    return _convolve(image, kernel / kernel.sum())


def motion_blur(
    image: np.ndarray, rng: np.random.Generator, length: Range = (9, 25), angle: Range = (0, 180)
) -> np.ndarray:
    """Blurs along a straight line, as a camera that moves evenly during the exposure.

    Source: Nah et al., "Deep Multi-scale CNN for Dynamic Scene Deblurring" (GoPro), CVPR 2017: a blurred photograph
    is the mean of the sharp ones seen during the exposure; here all are shifts along one line.

    Args:
        image: RGB, float32 [H, W, 3] in [0, 1].
        rng: the only source of randomness.
        length: length of the line in pixels.
        angle: direction of the line in degrees, counter-clockwise from horizontal.
    """
    kernel = line_kernel(rng.uniform(*length), rng.uniform(*angle))
    return _convolve(image, kernel / kernel.sum())


def lowlight(
    image: np.ndarray,
    rng: np.random.Generator,
    gamma: Range = (1.5, 3.5),
    alpha: Range = (0.9, 1),
    beta: Range = (0.5, 1),
    sigma: Range = (0, 5),
) -> np.ndarray:
    """Darkens by beta * (alpha * image) ** gamma and adds Gaussian noise.

    Sources: Lv et al., "Attention Guided Low-Light Image Enhancement", IJCV 2021 (the formula; alpha 0.9 to 1, beta
    0.5 to 1, gamma 1.5 to 5), and Lore et al., "LLNet", Pattern Recognition 2017 (gamma darkening with noise).

    Args:
        image: RGB, float32 [H, W, 3] in [0, 1].
        rng: the only source of randomness.
        gamma: exponent; larger is darker.
        alpha: scale before the exponent.
        beta: scale after the exponent.
        sigma: standard deviation of the noise in 8-bit levels (0 to 255).
    """
    dark = rng.uniform(*beta) * (rng.uniform(*alpha) * image) ** rng.uniform(*gamma)
    return noise(dark.astype(np.float32), rng, sigma)


def jpeg(image: np.ndarray, rng: np.random.Generator, quality: Range = (10, 40)) -> np.ndarray:
    """Compresses as JPEG (with libjpeg's quality) and decodes again.

    Source: Dong et al., "Compression Artifacts Reduction by a Deep Convolutional Network" (ARCNN), ICCV 2015, which
    uses qualities 10 to 40.

    Args:
        image: RGB, float32 [H, W, 3] in [0, 1].
        rng: the only source of randomness.
        quality: JPEG quality, whole numbers from 1 to 100.
    """
    low, high = (int(q) for q in quality)
    bgr = np.rint(image[..., ::-1] * 255).astype(np.uint8)
    _, content = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(low, high + 1))])
    return cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255


def line_kernel(length: float, angle: float) -> np.ndarray:
    """Draws a centred, antialiased line about one pixel wide; its brightest pixel is 1.

    Args:
        length: in pixels.
        angle: in degrees, counter-clockwise from horizontal.

    Returns:
        float32 [k, k], k odd and just large enough.
    """
    radius = int(np.ceil(length / 2))
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    # Eight samples per pixel, each shared out bilinearly between its four neighbours.
    offsets = np.linspace(-1, 1, 8 * kernel.shape[0]) * max(length - 1, 0) / 2
    x, y = radius + offsets * np.cos(np.deg2rad(angle)), radius - offsets * np.sin(np.deg2rad(angle))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for dx in (0, 1):
        for dy in (0, 1):
            share = (1 - np.abs(x - left - dx)) * (1 - np.abs(y - top - dy))
            column, row = np.minimum(left + dx, 2 * radius), np.minimum(top + dy, 2 * radius)
            np.add.at(kernel, (row, column), share.astype(np.float32))
    return kernel / kernel.max()


def _convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    # Plain reflection: the default border (which does not repeat the edge) needs two pixels.
    return np.clip(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT), 0, 1)
