"""Degradations that blur: an imperfect lens, defocus, and movement of the camera.

What all of them take and return is said in `degradations`.
"""

from __future__ import annotations

import cv2
import numpy as np

from .camera import Range


def blur(image: np.ndarray, rng: np.random.Generator, sigma: Range = (1, 4)) -> np.ndarray:
    """Blurs with an anisotropic Gaussian kernel of random axes and direction.

    Source: Zhang et al., "Designing a Practical Degradation Model" (BSRGAN), ICCV 2021, section 3.2.

    Args:
        sigma: standard deviation of each of the two axes in pixels.
    """
    along, across = rng.uniform(*sigma, size=2)
    angle = rng.uniform(0, np.pi)
    # Beyond three deviations there is less than 0.3% of a Gaussian's weight, along either axis.
    radius = int(np.ceil(3 * max(along, across)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return _convolve(image, np.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2)))


def defocus(image: np.ndarray, rng: np.random.Generator, radius: Range = (1.5, 5)) -> np.ndarray:
    """Blurs with a disc, the image of a point out of focus through a round aperture.

    Source: Pentland, "A New Sense for Depth of Field", PAMI 1987.

    Args:
        radius: of the disc in pixels; its rim is antialiased.
    """
    disc = rng.uniform(*radius)
    reach = int(np.ceil(disc))
    distance = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return _convolve(image, np.clip(disc + 0.5 - distance, 0, 1))


def motion_blur(
    image: np.ndarray,
    rng: np.random.Generator,
    length: Range = (9, 25),
    angle: Range = (0, 180),
    bend: Range = (0, 0),
) -> np.ndarray:
    """Blurs along a path, as a camera that moves evenly during the exposure.

    Sources: Nah et al., "Deep Multi-scale CNN for Dynamic Scene Deblurring" (GoPro), CVPR 2017: a blurred photograph
    is the mean of the sharp ones seen during the exposure; here all are shifts along one path. Levin et al.,
    "Understanding and Evaluating Blind Deconvolution Algorithms", CVPR 2009, for bent paths of hand shake.

    Args:
        length: length of the path in pixels.
        angle: direction at its middle in degrees, counter-clockwise from horizontal.
        bend: by how much the direction wanders along the path, in degrees; 0 is a straight line.
    """
    longest, direction, wander = rng.uniform(*length), rng.uniform(*angle), rng.uniform(*bend)
    return _convolve(image, line_kernel(longest, direction, wander * rng.uniform(-1, 1, size=2)))


def line_kernel(length: float, angle: float, bends: tuple[float, float] | np.ndarray = (0, 0)) -> np.ndarray:
    """Draws a centred, antialiased line about one pixel wide; its brightest pixel is 1.

    Args:
        length: in pixels.
        angle: at its middle, in degrees, counter-clockwise from horizontal.
        bends: how far the direction turns towards either end: once (an arc), and back again (an S), in degrees.

    Returns:
        float32 [k, k], k odd and just large enough for a straight line.
    """
    radius = int(np.ceil(length / 2))
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    # Eight samples per pixel, each shared out bilinearly between its four neighbours.
    t = np.linspace(-1, 1, 8 * kernel.shape[0])
    turned = np.deg2rad(angle + bends[0] * t + bends[1] * (2 * t**2 - 1))
    step = max(length - 1, 0) / 2 * (t[1] - t[0])
    # Rows count downwards: the sign makes angles counter-clockwise.
    x, y = np.cumsum(np.cos(turned)) * step, -np.cumsum(np.sin(turned)) * step
    # Centred: a kernel off its middle would also shift the image against its ground truth.
    x, y = radius + x - x.mean(), radius + y - y.mean()
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for dx in (0, 1):
        for dy in (0, 1):
            share = (1 - np.abs(x - left - dx)) * (1 - np.abs(y - top - dy))
            column, row = np.clip(left + dx, 0, 2 * radius), np.clip(top + dy, 0, 2 * radius)
            # `+=` would count samples that share a pixel once.
            np.add.at(kernel, (row, column), share.astype(np.float32))
    return kernel / kernel.max()


def _convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    kernel = (kernel / kernel.sum()).astype(np.float32)
    # Plain reflection: the default border (which does not repeat the edge) needs two pixels.
    return np.clip(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT), 0, 1)
