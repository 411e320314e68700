"""Small made-up photographs, and data sets of them on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def photo(seed: int = 0, height: int = 48, width: int = 40) -> np.ndarray:
    """Makes a smooth colour image: RGB, uint8 [H, W, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def write(path: Path, image: np.ndarray) -> Path:
    """Writes an RGB image and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


def write_pairs(root: Path, names: tuple[str, ...] = ('img1', 'img2', 'img10'), **size: int) -> dict[str, str]:
    """Writes pairs of PNGs into root/lq and root/gt; lq is gt upside down. Gives the two dataroots."""
    for seed, name in enumerate(names):
        image = photo(seed, **size)
        write(root / 'lq' / f'{name}.png', image[::-1])
        write(root / 'gt' / f'{name}.png', image)
    return {'dataroot_lq': str(root / 'lq'), 'dataroot_gt': str(root / 'gt')}
