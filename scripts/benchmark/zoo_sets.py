"""The sets that the weights of the zoo are measured on: where their images lie and how they are degraded.

Nothing is downloaded, and none of these images may be shipped with a package: whoever has them puts them into one
folder (`lq` and `gt` hold images of equal names; the extension may differ):

    clean/train/gt                 photographs of BSDS500 that no test has; tune_classical.py alone reads them
    clean/val/gt                   32 others of BSDS500 (val)
    denoise/CBSD68/gt              68 of BSDS500 (val), the usual test
    denoise/PolyU_real/{lq,gt}     real noise: the crops of the PolyU data set
    derain/Rain100H/{lq,gt}, derain/Rain100L/{lq,gt}, derain_dehaze/OutdoorRain/{lq,gt}
    dehaze/SOTS_indoor/{lq,gt}, dehaze/SOTS_outdoor/{lq,gt}
    lowlight/FiveK_sample/{lq,gt}  MIT-Adobe FiveK: the raw photograph's rendering, and expert C's
    jpeg/LIVE1_sample/gt, jpeg/classic5/gt
    deblur/kernels/Levin09.mat     eight paths of real cameras that shook (Levin et al., CVPR 2009)
    unpaired/LOLv1_eval15_low/lq, unpaired/daclip_real_mix/lq

What is degraded here is what `lorair restore` can be fed with: a file of 8 bits. So Gaussian noise is clipped to black
and white and rounded, while most papers keep it unclipped; PSNR of both protocols differ, above all at sigma 50. Every
draw is a function of (SEED, set, index of the image).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from lorair_arch.data.degradations import build_degradation
from lorair_arch.data.images.reading import to_float
from lorair_arch.data.images.writing import in_8_bits
from lorair_arch.data.sources import load_pair, pair_keys
from lorair_arch.data.stores import open_store
from lorair_arch.errors import DataError, OptionsError, did_you_mean

SEED = 0
LAYOUT = 'scripts/benchmark/zoo_sets.py says what it must hold'
# As in the recipe's validation (options/zoo).
_VAL = {
    'clean': {'type': 'clean'},
    'noise': {'type': 'noise', 'sigma': 25},
    'rain': {'type': 'rain', 'density': [0.0005, 0.008], 'width': [0.6, 1.8], 'intensity': [0.2, 0.7]},
    'haze': {'type': 'haze'},
    'blur': {'type': 'motion_blur', 'length': [5, 20], 'bend': [0, 60]},
    'lowlight': {'type': 'lowlight', 'gamma': [1.4, 2.6], 'beta': [0.3, 1], 'sigma': [0, 4]},
    'jpeg': {'type': 'jpeg', 'quality': [10, 40]},
}
# Blur that moves nothing; `val_blur` is shaken.
_STILL = {
    'gaussian_blur': {'type': 'blur', 'sigma': [0.6, 2.5]},
    'defocus_blur': {'type': 'defocus', 'radius': [1, 4]},
}
# As in its training; what came first stands first.
_RAINY_HAZE = (
    {'type': 'haze', 'beta': [0.4, 2], 'airlight': [0.4, 0.9]},
    {'type': 'rain', 'density': [0.002, 0.012], 'length': [12, 35], 'width': [0.6, 1.3], 'intensity': [0.1, 0.4]},
)
_PAIRS = {
    ('haze', 'rain'): _RAINY_HAZE,
    ('lowlight', 'noise'): (
        {'type': 'lowlight', 'gamma': [1.4, 2.4], 'beta': [0.3, 1], 'sigma': 0},
        {'type': 'noise', 'sigma': [5, 25]},
    ),
    ('blur', 'noise'): ({'type': 'blur', 'sigma': [0.6, 2]}, {'type': 'noise', 'sigma': [5, 30]}),
    ('noise', 'jpeg'): ({'type': 'noise', 'sigma': [5, 30]}, {'type': 'jpeg', 'quality': [20, 60]}),
}


@dataclass(frozen=True)
class ImageSet:
    """A set of images.

    Attributes:
        name: In tables, of files, and for `--only`.
        folder: Below the folder of the data.
        troubles: What is wrong with every image, by the names of the router's classes, in the order in which it came
            about; empty: it is not known.
        degrade: Options of `build_degradation`, for clean images that are degraded here; or 'kernels'.
        grey: The images are grey, and measured so.
        paired: There is a ground truth.
    """

    name: str
    folder: str
    troubles: tuple[str, ...] = ()
    degrade: Any = None
    grey: bool = False
    paired: bool = True

    @property
    def sigma(self) -> float | None:
        """The level of the Gaussian noise (0 to 255), where all images have the same and nothing else."""
        noise = self.degrade if isinstance(self.degrade, Mapping) and self.degrade['type'] == 'noise' else {}
        return noise['sigma'] if isinstance(noise.get('sigma'), (int, float)) else None


class Sample(NamedTuple):
    """One image: RGB, uint8 [H, W, 3]; `gt` is None where there is no ground truth."""

    name: str
    lq: np.ndarray
    gt: np.ndarray | None


def all_sets() -> dict[str, ImageSet]:
    """Gives all sets by name."""
    noise = [_made(f'cbsd68_{s}', 'denoise/CBSD68', 'noise', {'type': 'noise', 'sigma': s}) for s in (15, 25, 50)]
    jpeg = [
        _made(f'{name}_{q}', f'jpeg/{folder}', 'jpeg', {'type': 'jpeg', 'quality': q}, name == 'classic5')
        for name, folder in (('live1', 'LIVE1_sample'), ('classic5', 'classic5'))
        for q in (10, 20, 40)
    ]
    val = [_made(f'val_{trouble}', 'clean/val', trouble, degrade) for trouble, degrade in _VAL.items()]
    val += [_made(name, 'clean/val', 'blur', degrade) for name, degrade in _STILL.items()]
    pairs = [ImageSet(f'val_{"+".join(names)}', 'clean/val', names, degrade) for names, degrade in _PAIRS.items()]
    sets = (
        *noise,
        ImageSet('polyu', 'denoise/PolyU_real', ('noise',)),
        ImageSet('rain100h', 'derain/Rain100H', ('rain',)),
        ImageSet('rain100l', 'derain/Rain100L', ('rain',)),
        ImageSet('outdoor_rain', 'derain_dehaze/OutdoorRain', ('haze', 'rain')),
        ImageSet('sots_indoor', 'dehaze/SOTS_indoor', ('haze',)),
        ImageSet('sots_outdoor', 'dehaze/SOTS_outdoor', ('haze',)),
        ImageSet('fivek', 'lowlight/FiveK_sample', ('lowlight',)),
        *jpeg,
        _made('cbsd68_shaken', 'denoise/CBSD68', 'blur', 'kernels'),
        *val,
        *pairs,
        ImageSet('lol_low', 'unpaired/LOLv1_eval15_low', ('lowlight',), paired=False),
        ImageSet('real_mix', 'unpaired/daclip_real_mix', paired=False),
    )
    return {image_set.name: image_set for image_set in sets}


def validation_sets() -> dict[str, ImageSet]:
    """Gives the sets of validation photographs with one degradation each, as in the recipe's validation."""
    return {name: s for name, s in all_sets().items() if name.startswith('val_') and len(s.troubles) == 1}


def sets_of(names: Iterable[str]) -> dict[str, ImageSet]:
    """Gives the sets of these names.

    Raises:
        OptionsError: There is none of a name.
    """
    sets = all_sets()
    for name in names:
        if name not in sets:
            raise OptionsError(f'--only: there is no set {name!r}{did_you_mean(name, sets)}')
    return {name: sets[name] for name in names}


def check_data(root: Path, limit: int | None) -> None:
    """Raises a DataError where the folder of the data is none, an OptionsError where no image would be measured."""
    if limit is not None and limit < 1:
        raise OptionsError(f'--limit is {limit}, but at least one image must be measured')
    if not root.is_dir():
        raise DataError(f"--data: '{root}' is no folder; {LAYOUT}")


class OpenSet:
    """The images of a set on disk, one at a time.

    Args:
        image_set: What to open.
        root: The folder of the data.
        limit: At most so many images, evenly spread over the set; None: all.

    Raises:
        DataError: Its folders or images are missing or do not fit, or what reads them is not installed.
    """

    def __init__(self, image_set: ImageSet, root: Path, limit: int | None = None) -> None:
        self.set = image_set
        folder = root / image_set.folder
        self._lq = open_store(str(folder / ('lq' if image_set.degrade is None else 'gt')))
        self._gt = open_store(str(folder / 'gt')) if image_set.paired else None
        keys = pair_keys(self._lq, self._gt) if self._gt else [(key, None) for key in self._lq.keys]
        numbers = np.linspace(0, len(keys), min(limit or len(keys), len(keys)), endpoint=False).astype(int)
        self._keys = [(number, *keys[number]) for number in numbers.tolist()]
        self._degrade = self._degradation(root)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        number, lq_key, gt_key = self._keys[index]
        if self._gt is None:
            return Sample(lq_key, _to_8_bits(self._lq.load(lq_key)), None)
        lq, gt = map(_to_8_bits, load_pair(self._lq, lq_key, self._gt, gt_key))
        if self._degrade:
            rng = np.random.default_rng([SEED, zlib.crc32(self.set.name.encode()), number])
            lq = np.rint(self._degrade(to_float(gt), rng) * 255).astype(np.uint8)
        return Sample(lq_key, lq, gt)

    def _degradation(self, root: Path) -> Callable | None:
        if self.set.degrade != 'kernels':
            return self.set.degrade and build_degradation(self.set.degrade, self.set.name)
        kernels = _kernels(root / 'deblur/kernels/Levin09.mat')

        def shake(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            kernel = kernels[rng.integers(len(kernels))]
            return np.clip(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT), 0, 1)

        return shake


@cache
def _kernels(file: Path) -> list[np.ndarray]:
    """Reads kernels of MATLAB: float32 [k, k], each of sum 1."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{file} is an HDF5 file: install h5py, as with pip install -e '.[benchmark]'") from error
    try:
        with h5py.File(file) as content:
            kernels = [np.asarray(content[reference]).T for reference in content['kernels'][:].ravel()]
    except (OSError, KeyError) as error:
        raise DataError(f"cannot read kernels from '{file}': {error}") from error
    return [(kernel / kernel.sum()).astype(np.float32) for kernel in kernels]


def opened(sets: Mapping[str, ImageSet], root: Path, limit: int | None = None) -> Iterator[tuple[str, OpenSet]]:
    """Opens one set after the other; those that are not there are skipped and said.

    Raises:
        DataError: None of them is there.
    """
    found = False
    for name, image_set in sets.items():
        try:
            images = OpenSet(image_set, root, limit)
        except DataError as error:
            tqdm.write(f'skipped {name}: {error}', file=sys.stderr)
            continue
        found = True
        yield name, images
    if not found:
        raise DataError(f"--data: none of the sets is in '{root}'; {LAYOUT}")


def _made(name: str, folder: str, trouble: str, degrade: Any, grey: bool = False) -> ImageSet:
    return ImageSet(name, folder, (trouble,), degrade, grey)


def _to_8_bits(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else in_8_bits(image)
