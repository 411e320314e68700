"""What a user may ask of `lorair restore`, each value checked before anything else happens."""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lorair_arch.data.images.writing import WRITABLE
from lorair_arch.errors import OptionsError

AUTO = 'auto'
SAME = 'same'
FORMATS = ('png', 'jpg', 'webp', 'tif', SAME)
_LONGEST_SUFFIX = 100  # bytes


@dataclass(frozen=True)
class Settings:
    """How images are restored and written.

    Attributes:
        degradation, strength, tile: See `Restorer`.
        format: One of `FORMATS`; None: what the output's name says, else PNG.
        quality: Of JPEG and WebP files, 1 to 100.
        suffix: Stands behind the stem of the results' names.
        shard: (i, n): of n runs that share the images, the i-th from 1 on.
        compare: Write a picture of before and after beside each result.
        overwrite: Results replace files that exist. An image of the input is never replaced.

    Raises:
        OptionsError: A value is out of its range.
    """

    degradation: str | Mapping[str, float] = AUTO
    strength: float = 1.0
    tile: str | int | None = AUTO
    format: str | None = None
    quality: int = 95
    suffix: str = ''
    shard: tuple[int, int] = (1, 1)
    compare: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise OptionsError(f'--strength: found {self.strength}, expected 0 to 1')
        if not 1 <= self.quality <= 100:
            raise OptionsError(f'--quality: found {self.quality}, expected 1 to 100')
        if self.format not in (None, *FORMATS):
            raise OptionsError(f'--format: found {self.format!r}, expected one of {", ".join(FORMATS)}')
        if set(self.suffix) & {'/', os.sep, '\0'}:
            raise OptionsError(f'--suffix: found {self.suffix!r}, expected a part of a file name')
        if len(os.fsencode(self.suffix)) > _LONGEST_SUFFIX:
            raise OptionsError(f'--suffix: found {len(self.suffix)} letters, expected a few')
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise OptionsError(f'--shard: found {self.shard[0]}/{self.shard[1]}, expected 1/n to n/n')

    def ending(self, name: str) -> str:
        """Gives the suffix of the file that an image is written to, by the image's name."""
        suffix = Path(name).suffix
        if self.format == SAME:
            return suffix if suffix.lower() in WRITABLE else '.png'
        return f'.{self.format or "png"}'

    def has(self, name: str) -> bool:
        """Tells whether an image belongs to this shard, by its name within the input alone."""
        return zlib.crc32(os.fsencode(name)) % self.shard[1] == self.shard[0] - 1


def parse_degradation(text: str) -> str | dict[str, float]:
    """Reads 'auto', a name, or weights of several: 'rain=0.7,noise=0.3'."""
    if '=' not in text:
        return text
    weights: dict[str, float] = {}
    for part in text.split(','):
        name, _, value = (word.strip() for word in part.partition('='))
        try:
            weight = float(value)
        except ValueError:
            weight = -1.0
        if not name or not 0 <= weight < math.inf:
            raise OptionsError(f'--degradation: found {part!r}, expected NAME=WEIGHT, as in rain=0.7,noise=0.3')
        if name in weights:
            raise OptionsError(f'--degradation: found {name!r} twice')
        weights[name] = weight
    if not any(weights.values()):
        raise OptionsError(f'--degradation: found {text!r}, expected a weight above 0')
    return weights


def parse_tile(text: str) -> str | int:
    """Reads 'auto' or a number of pixels."""
    if text == AUTO:
        return AUTO
    if not re.fullmatch(r'[1-9]\d{0,8}', text):
        raise OptionsError(f"--tile: found {text!r}, expected 'auto' or a number of pixels, such as 512")
    return int(text)


def parse_shard(text: str) -> tuple[int, int]:
    """Reads 'i/n'."""
    found = re.fullmatch(r'(\d{1,9})/(\d{1,9})', text)
    if not found:
        raise OptionsError(f'--shard: found {text!r}, expected i/n, such as 1/4')
    return int(found[1]), int(found[2])
