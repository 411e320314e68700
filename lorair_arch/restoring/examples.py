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

_EXAMPLES = {
    'noise': ('chelsea.png', {'type': 'noise', 'sigma': 30}),
    'rain': ('coffee.png', {'type': 'rain', 'density': 0.006, 'intensity': 0.6}),
    'haze': ('motorcycle_left.png', {'type': 'haze', 'beta': 1.2, 'airlight': 0.9}),
    'lowlight': ('astronaut.png', {'type': 'lowlight', 'gamma': 2, 'beta': 0.6, 'sigma': 2}),
    'jpeg': ('rocket.jpg', {'type': 'jpeg', 'quality': 12}),
}


def write_examples(folder: Path, degradations: Collection[str]) -> list[Path]:
    """Writes PNGs, one for each of the degradations that an example is known for; all examples if it is for none.

    Args:
        folder: Where to; made if missing.
        degradations: What the weights restore.

    Raises:
        OutputError: They cannot be written.
    """
    known = [name for name in _EXAMPLES if name in degradations]
    return [_write(folder / f'{name}.png', *_EXAMPLES[name]) for name in known or _EXAMPLES]


def _write(path: Path, photo: str, degrade: dict) -> Path:
    content = files('skimage').joinpath('data', photo).read_bytes()  # none of its functions, which may download
    degraded = build_degradation(degrade)(to_float(decode_image(content, photo)), np.random.default_rng(0))
    write_photo(path, Photo(np.rint(degraded * 255).astype(np.uint8)))
    return path
