"""Degradations that come from the weather: rain, haze, snow and drops on the lens.

What all of them take and return is said in `degradations`.
"""

from __future__ import annotations

import cv2
import numpy as np

from .blur import line_kernel
from .camera import Range


def rain(
    image: np.ndarray,
    rng: np.random.Generator,
    density: Range = (0.001, 0.006),
    length: Range = (20, 50),
    width: Range = (0.7, 1.5),
    angle: Range = (60, 120),
    intensity: Range = (0.3, 0.8),
) -> np.ndarray:
    """Adds rain streaks: sparse noise, blurred along one direction, added to the image.

    Sources: Garg and Nayar, "Photorealistic Rendering of Rain Streaks", SIGGRAPH 2006 (drops appear as streaks along
    their path, brighter than what is behind); Yang et al., "Deep Joint Rain Detection and Removal", CVPR 2017
    (Rain100L/H: streak layers added to the clean image, whatever its brightness). Each image has one direction.

    Args:
        density: share of pixels in which a streak is centred.
        length: length of the streaks in pixels.
        width: their width in pixels.
        angle: direction of fall in degrees, counter-clockwise from horizontal (90 is vertical).
        intensity: brightness of the brightest streaks (0 to 1).
    """
    amount, longest, direction = rng.uniform(*density), rng.uniform(*length), rng.uniform(*angle)
    across, brightest = rng.uniform(*width), np.float32(rng.uniform(*intensity))
    for near in (1, 0.6, 0.35):
        # Far drops are smaller, fainter and more numerous; the ends of every streak fade out.
        # Room for the blur across, which would else be cut off at the kernel's edge.
        streak = np.pad(line_kernel(longest * near, direction), int(np.ceil(across)))
        streak = cv2.GaussianBlur(streak, (0, 0), across * near / 2 + 0.2) * _window(streak.shape[0])
        image = image + brightest * np.float32(near) * _scatter(image.shape, rng, amount / near, streak / streak.max())
    return np.clip(image, 0, 1)


def haze(
    image: np.ndarray,
    rng: np.random.Generator,
    beta: Range = (0.6, 2.2),
    airlight: Range = (0.7, 1),
    tint: Range = (0, 0.08),
    near: Range = (0, 0.5),
) -> np.ndarray:
    """Adds haze by atmospheric scattering: J * t + A * (1 - t), t = exp(-beta * depth).

    Source: Li et al., "Benchmarking Single-Image Dehazing and Beyond" (RESIDE), TIP 2019: its ranges of beta and A.
    The depth, in [0, 1], is made up: it grows towards one side, mostly the top, with bumps whose borders follow the
    edges of the image (He et al., "Guided Image Filtering", ECCV 2010).

    Args:
        beta: scattering coefficient, per unit of depth.
        airlight: A, brightness of the haze itself (0 to 1).
        tint: by how much the weakest channel of the haze is darker than the strongest (0 to 1).
        near: depth of what is nearest (0 to 1): high for even haze, in which nothing is near.
    """
    light = rng.uniform(*airlight) * (1 - rng.uniform(*tint) * rng.permutation([0, rng.random(), 1]))
    seen = np.exp(-np.float32(rng.uniform(*beta)) * _depth(image, rng, near))[..., None]
    return np.clip(image * seen + light.astype(np.float32) * (1 - seen), 0, 1)


def snow(
    image: np.ndarray,
    rng: np.random.Generator,
    density: Range = (0.004, 0.016),
    size: Range = (1, 4),
    intensity: Range = (0.6, 1),
) -> np.ndarray:
    """Lays three layers of snowflakes, small to large, over the image: y * (1 - z) + a * z, with a near white.

    Source: Liu et al., "DesnowNet: Context-Aware Deep Network for Snow Removal" (Snow100K), TIP 2018.

    Args:
        density: share of pixels in which a flake of the smallest size is centred; larger flakes are rarer.
        size: radius of the flakes of the middle layer in pixels.
        intensity: opacity of the brightest flakes (0 to 1).
    """
    amount, middle, opacity = rng.uniform(*density), rng.uniform(*size), np.float32(rng.uniform(*intensity))
    angle = rng.uniform(45, 135)
    for scale in (0.5, 1, 2):
        radius = middle * scale
        # A flake is a soft disc, drawn out a little along its fall.
        flake = cv2.GaussianBlur(np.pad(line_kernel(2 * radius, angle), int(3 * radius) + 1), (0, 0), radius / 2)
        layer = _scatter(image.shape, rng, amount * (0.5 / scale) ** 2, flake / flake.max())
        image = _screen(image, opacity * layer)
    return image


def raindrop(
    image: np.ndarray, rng: np.random.Generator, number: Range = (10, 40), radius: Range = (3, 12)
) -> np.ndarray:
    """Puts drops on the lens: inside the mask M the image is the background upside down and blurred.

    Source: Qian et al., "Attentive Generative Adversarial Network for Raindrop Removal", CVPR 2018:
    I = (1 - M) * B + R, where R is what a drop gathers from a wide angle of the scene.

    Args:
        number: number of drops in an image of 256 x 256 pixels; more in a larger one.
        radius: radius of the drops in pixels.
    """
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.float32)
    for _ in range(round(rng.uniform(*number) * height * width / 256**2)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        across = rng.uniform(*radius)
        axes = round(across), round(across * rng.uniform(1, 1.5))
        cv2.ellipse(mask, (round(x), round(y)), axes, rng.uniform(-15, 15), 0, 360, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 1.5)[..., None]
    # A drop is a lens: it shows the scene upside down, and out of focus.
    behind = cv2.GaussianBlur(image, (0, 0), 6)[::-1, ::-1]
    return np.clip(image * (1 - mask) + mask * (0.1 + 0.9 * behind), 0, 1)


def _depth(image: np.ndarray, rng: np.random.Generator, near: Range) -> np.ndarray:
    """Makes up a depth for each pixel: float32 [H, W] in [0, 1]."""
    height, width = image.shape[:2]
    bumps = cv2.resize(rng.random((5, 5), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    y = np.linspace(1, 0, height, dtype=np.float32)[:, None]
    x = np.linspace(0, 1, width, dtype=np.float32) * np.float32(rng.uniform(-0.5, 0.5))
    nearest, slope, rough = rng.uniform(*near), rng.uniform(0, 0.8), rng.uniform(0.1, 0.8)
    depth = nearest + slope * (y + x) + rough * (bumps - 0.5)
    # the guided filter: in every window the depth is a linear function of the grey image
    grey, window = image.mean(axis=2), (max(3, min(height, width) // 8),) * 2
    mean_i, mean_d, mean_id, mean_ii = (cv2.blur(a, window) for a in (grey, depth, grey * depth, grey * grey))
    # 1e-3 is the filter's regularisation: flat windows get a flat depth.
    slopes = (mean_id - mean_i * mean_d) / (mean_ii - mean_i * mean_i + 1e-3)
    depth = cv2.blur(slopes, window) * grey + cv2.blur(mean_d - slopes * mean_i, window)
    return np.clip(depth, 0, 1).astype(np.float32)


def _scatter(shape: tuple[int, ...], rng: np.random.Generator, density: float, stamp: np.ndarray) -> np.ndarray:
    """Stamps [k, k] at random places, in a share `density` of the pixels, each with its own brightness.

    Returns:
        float32 [H, W, 1] in [0, 1].
    """
    margin = stamp.shape[0] // 2  # so that stamps enter from outside the image too
    size = shape[0] + 2 * margin, shape[1] + 2 * margin
    layer = np.where(rng.random(size) < density, rng.random(size) ** 1.5, 0).astype(np.float32)
    layer = cv2.filter2D(layer, -1, stamp, borderType=cv2.BORDER_CONSTANT)
    return np.clip(layer[margin : margin + shape[0], margin : margin + shape[1], None], 0, 1)


def _window(size: int) -> np.ndarray:
    """Falls from 1 at the centre to 0 at the radius: float32 [size, size]."""
    distance = np.hypot(*np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j])
    return np.cos(np.clip(distance, 0, 1) * np.pi / 2).astype(np.float32)


def _screen(image: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Composes light over light: 1 - (1 - image) * (1 - layer)."""
    return 1 - (1 - image) * (1 - layer)
