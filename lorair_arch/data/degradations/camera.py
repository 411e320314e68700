"""Degradations that come from the camera: three kinds of noise, low light and JPEG.

What all of them take and return is said in `degradations`.
"""

from __future__ import annotations

import cv2
import numpy as np

Range = tuple[float, float]

# How bilinear demosaicing spreads what the sensor measured: green at half of the pixels, red and blue at a quarter.
_GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
_RED_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4


def noise(image: np.ndarray, rng: np.random.Generator, sigma: Range = (15, 50)) -> np.ndarray:
    """Adds white Gaussian noise, the same level in all channels.

    Source: Zhang et al., "Beyond a Gaussian Denoiser" (DnCNN), TIP 2017; levels 15, 25 and 50 are the common test.

    Args:
        sigma: standard deviation in 8-bit levels (0 to 255).
    """
    level = rng.uniform(*sigma) / 255
    return np.clip(image + np.float32(level) * rng.standard_normal(image.shape, dtype=np.float32), 0, 1)


def sensor_noise(
    image: np.ndarray, rng: np.random.Generator, shot: Range = (0.001, 0.03), read: Range = (0, 10)
) -> np.ndarray:
    """Adds noise whose variance grows with the light: shot * image + read ** 2.

    Source: Foi et al., "Practical Poissonian-Gaussian Noise Modeling and Fitting", TIP 2008.

    Args:
        shot: variance of the photon noise of a white pixel.
        read: standard deviation of the signal-independent noise in 8-bit levels (0 to 255).
    """
    variance = np.float32(rng.uniform(*shot)) * image + np.float32(rng.uniform(*read) / 255) ** 2
    return np.clip(image + np.sqrt(variance) * rng.standard_normal(image.shape, dtype=np.float32), 0, 1)


def camera_noise(
    image: np.ndarray,
    rng: np.random.Generator,
    shot: Range = (0.0005, 0.02),
    read: Range = (0, 5),
    quality: Range = (80, 98),
) -> np.ndarray:
    """Adds noise as it leaves a camera: demosaiced, thus coarse and coloured, and compressed as JPEG.

    Sources: Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019 (noise of linear light, one
    colour for each pixel, white balance, gamma); Xu et al., "Real-world Noisy Image Denoising" (PolyU), 2018, whose
    photographs are such JPEGs. Only the noise is demosaiced, so that the image stays as sharp as it was.

    Args:
        shot: variance of the photon noise of a white pixel, in linear light.
        read: standard deviation of the signal-independent noise in 8-bit levels (0 to 255), in linear light.
        quality: quality of the JPEG, whole numbers from 1 to 100.
    """
    light = np.power(image, np.float32(2.2))  # 2.2: the usual approximation of sRGB's curve
    gains = np.array([rng.uniform(1.4, 2.4), 1, rng.uniform(1.4, 2.4)], np.float32)  # white balance of daylight
    variance = np.float32(rng.uniform(*shot)) * light * gains + (np.float32(rng.uniform(*read) / 255) * gains) ** 2
    grain = np.sqrt(variance) * rng.standard_normal(image.shape, dtype=np.float32)
    seen = np.zeros_like(image)
    seen[::2, ::2, 0], seen[1::2, 1::2, 2] = grain[::2, ::2, 0], grain[1::2, 1::2, 2]  # Bayer's pattern, RGGB
    seen[::2, 1::2, 1], seen[1::2, ::2, 1] = grain[::2, 1::2, 1], grain[1::2, ::2, 1]
    for channel, kernel in enumerate((_RED_BLUE, _GREEN, _RED_BLUE)):
        light[..., channel] += cv2.filter2D(seen[..., channel], -1, kernel, borderType=cv2.BORDER_REFLECT)
    return jpeg(np.power(np.clip(light, 0, 1), np.float32(1 / 2.2)), rng, quality)


def lowlight(
    image: np.ndarray,
    rng: np.random.Generator,
    gamma: Range = (1.5, 3.5),
    alpha: Range = (0.9, 1),
    beta: Range = (0.5, 1),
    cast: Range = (0, 0.15),
    shot: Range = (0, 0.002),
    sigma: Range = (0, 5),
) -> np.ndarray:
    """Darkens by beta * (alpha * image) ** gamma, tints, and adds noise of photons and of the sensor.

    Sources: Lv et al., "Attention Guided Low-Light Image Enhancement", IJCV 2021 (the formula; alpha 0.9 to 1, beta
    0.5 to 1, gamma 1.5 to 5), and Lore et al., "LLNet", Pattern Recognition 2017 (gamma darkening with noise).

    Args:
        gamma: exponent; larger is darker.
        alpha: scale before the exponent.
        beta: scale after the exponent.
        cast: by how much the weakest channel is darker than the strongest (0 to 1).
        shot: see `sensor_noise`.
        sigma: standard deviation of the signal-independent noise in 8-bit levels (0 to 255).
    """
    dark = rng.uniform(*beta) * (rng.uniform(*alpha) * image) ** rng.uniform(*gamma)
    # One channel is left as it is, one gets the whole cast, one something between.
    tint = 1 - rng.uniform(*cast) * rng.permutation([0, rng.random(), 1])
    return sensor_noise((dark * tint).astype(np.float32), rng, shot, sigma)


def jpeg(image: np.ndarray, rng: np.random.Generator, quality: Range = (10, 40), shift: Range = (0, 0)) -> np.ndarray:
    """Compresses as JPEG (with libjpeg's quality) and decodes again.

    Sources: Dong et al., "Compression Artifacts Reduction by a Deep Convolutional Network" (ARCNN), ICCV 2015, which
    uses qualities 10 to 40; Jiang et al., "Towards Flexible Blind JPEG Artifacts Removal" (FBCNN), ICCV 2021, for the
    second compression of a cropped image, whose blocks are shifted.

    Args:
        quality: JPEG quality, whole numbers from 1 to 100.
        shift: by how many pixels, down and right, the image lies off the grid of blocks (0 to 7).
    """
    low, high = (int(q) for q in quality)
    setting = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(low, high + 1))]
    top, left = rng.integers(int(shift[0]), int(shift[1]) + 1, size=2)
    bgr = np.rint(image[..., ::-1] * 255).astype(np.uint8)
    # Blocks begin at the corner of a file: rows and columns before the image move it off them.
    bgr = cv2.copyMakeBorder(bgr, top, 0, left, 0, cv2.BORDER_REPLICATE)
    _, content = cv2.imencode('.jpg', bgr, setting)
    return cv2.imdecode(content, cv2.IMREAD_COLOR)[top:, left:, ::-1].astype(np.float32) / 255
