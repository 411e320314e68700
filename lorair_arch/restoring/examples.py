"""Photographs to try restoring on: scikit-image's own, degraded as for training."""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources import files
from pathlib import Path

import numpy as np

from lorair_arch.data.degradations import build_degradation
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import decode_image, to_float
from lorair_arch.data.images.writing import write_photo

EXAMPLES = {
    'blur': ('motorcycle_right.png', {'type': 'blur', 'sigma': 1.5}),
    'haze': ('rocket.jpg', {'type': 'haze', 'beta': 1.2, 'airlight': 0.85}),
    'jpeg': ('chelsea.png', {'type': 'jpeg', 'quality': 12}),
    'lowlight': ('motorcycle_left.png', {'type': 'lowlight', 'gamma': 2, 'beta': 0.6, 'sigma': 2}),
    'noise': ('coffee.png', {'type': 'noise', 'sigma': 35}),
    'rain': ('chelsea.png', {'type': 'rain', 'density': 0.005, 'intensity': [0.4, 0.5], 'angle': [70, 75]}),
}


def write_examples(folder: Path, degradations: Collection[str]) -> list[Path]:
    """Writes PNGs, one for each of the degradations that an example is known for; all examples if it is for none.

    Args:
        folder: Where to; made if missing.
        degradations: What the weights restore.

    Raises:
        OutputError: They cannot be written.
    """
    known = [name for name in EXAMPLES if name in degradations]
    return [_write(folder / f'{name}.png', *EXAMPLES[name]) for name in known or EXAMPLES]


def _write(path: Path, photo: str, degrade: dict) -> Path:
    content = files('skimage').joinpath('data', photo).read_bytes()  # none of its functions, which may download
    degraded = build_degradation(degrade)(to_float(decode_image(content, photo)), np.random.default_rng(0))
    write_photo(path, Photo(np.rint(degraded * 255).astype(np.uint8)))
    return path
