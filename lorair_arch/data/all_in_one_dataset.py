"""The data set of all-in-one restoration: several degradations, each from any number of sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lorair_arch.data.images.reading import to_float
from lorair_arch.data.sources import Source, Sources
from lorair_arch.errors import DataError, too_small
from lorair_arch.schema import Section, Spec, anything, boolean, checked, integer


def _options(train: bool) -> dict[str, Spec]:
    return {
        'sources': Sources(item=Source.OPTIONS, required=True),
        'gt_size': integer(1, 100_000, required=train, null=train),
        'pad_small': boolean(),
        'use_hflip': boolean(),
        'use_rot': boolean(),
        'seed': integer(0),
        'io_backend': anything(),
    }


class AllInOneDataset(torch.utils.data.Dataset):
    """Pairs of several degradations, read from folders or LMDBs or made on the fly of clean images.

    In training an index draws a degradation (uniformly over the names, or sources by their weights), an image of it,
    a crop, a flip and a rotation. In validation and testing the indices run through all sources in order, whole
    images, with on-the-fly degradations fixed by the index. Every draw is a function of (seed, epoch, index) alone, so
    that the samples depend neither on the number of workers nor on what was read before.

    Args:
        opt: options with the keys
            sources: a list of mappings, see `sources.Source`.
            phase: 'train', or 'val' or 'test'.
            gt_size: side of the training crops in pixels; None: whole images, see `collate_whole`.
            pad_small: extend training images that are smaller than the crops by reflection; off by default: an error.
            use_hflip, use_rot: flip, and rotate by quarter turns, in training; off by default.
            seed: a whole number; 0 by default.

    Attributes:
        epoch: the epoch of an index that comes without one.
        priors: where samples get the `prior` and the `logits` of their whole lq from; None: they have neither.

    Raises:
        OptionsError: for a wrong option.
        DataError: for missing or unpaired files; while reading, for damaged or mismatched ones.
    """

    OPTIONS = {phase: _options(phase == 'train') for phase in ('train', 'val', 'test')}

    def __init__(self, opt: Mapping[str, Any]) -> None:
        from lorair_arch.options.keys import loader  # BasicSR, which imports this file

        self.opt = opt
        self.epoch = 0
        self.priors: Any = None  # a `PriorCache`
        self._train = opt['phase'] == 'train'
        # `type`, `phase` and `scale` are BasicSR's, which adds them to the options of every data set.
        keys = loader(False) | self.OPTIONS[opt['phase']] | dict.fromkeys(('type', 'phase', 'scale'), anything())
        prefix = f"data set '{opt.get('name', 'AllInOneDataset')}': "
        options = checked(Section(keys=keys), {'name': 'AllInOneDataset', **opt}, prefix=prefix)
        self._gt_size, self._seed = options.get('gt_size'), options.get('seed', 0)
        self.sources = [Source(source, f'{prefix}sources[{i}]') for i, source in enumerate(options['sources'])]
        self._folders = _folders([source.degradation for source in self.sources])
        self._ends = np.cumsum([len(source) for source in self.sources])
        self._odds = _odds(self.sources)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        """Reads one sample.

        Args:
            index: a whole number, or (epoch, number). With an epoch, a training index may exceed the length.

        Returns:
            lq, gt: RGB, float32 [3, H, W] in [0, 1]; degradation, lq_path, gt_path: str; in validation and testing also
            name, which no two images of the data set share: the degradation, the number of the source if there are
            several for it, folders and stem; if `priors` is set also prior [P] and logits [E].
        """
        if isinstance(index, tuple):
            epoch, index = index
        elif 0 <= index < len(self):
            epoch = self.epoch
        else:
            raise IndexError(f'index {index} of a data set of {len(self)} images')
        # Validations of all epochs see the same images.
        rng = np.random.default_rng([self._seed, epoch if self._train else 0, index])
        source, number = self._draw(rng) if self._train else self._locate(index)
        lq_path, gt_path = source.paths(number)
        guide = {} if self._train else {'name': f'{self._folders[self.sources.index(source)]}/{source.key(number)}'}
        look = (lambda content: guide.update(self.priors.of(content, lq_path))) if self.priors else None
        lq, gt = source.load(number, look)
        crops = self._train and self._gt_size
        if crops and not source.of_scenes:  # before it is degraded: a fraction of the pixels
            lq, gt = self._crop(lq, gt, gt_path, rng)
        if source.degrade:
            # What is made on the fly is rounded to 8 bits, as if it came from a file.
            lq = np.rint(source.degrade(to_float(gt), rng) * 255) / 255
        if crops and source.of_scenes:
            lq, gt = self._crop(lq, gt, gt_path, rng)
        if self._train:
            lq, gt = self._turn(lq, gt, rng)
        return guide | {
            'lq': _to_tensor(lq),
            'gt': _to_tensor(gt),
            'degradation': source.degradation,
            'lq_path': lq_path,
            'gt_path': gt_path,
        }

    def _draw(self, rng: np.random.Generator) -> tuple[Source, int]:
        # The index itself is not used: an epoch has as many draws as images, each of any image.
        source = self.sources[rng.choice(len(self.sources), p=self._odds)]
        return source, int(rng.integers(len(source)))

    def _locate(self, index: int) -> tuple[Source, int]:
        i = int(np.searchsorted(self._ends, index, side='right'))
        return self.sources[i], index - int(self._ends[i]) + len(self.sources[i])

    def _crop(self, lq: np.ndarray, gt: np.ndarray, path: str, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        size, (height, width) = self._gt_size, gt.shape[:2]
        if height < size or width < size:
            if not self.opt.get('pad_small', False):
                raise DataError(too_small(path, (width, height), size))
            more = (0, max(size - height, 0)), (0, max(size - width, 0)), (0, 0)
            lq, gt = (np.pad(image, more, mode='symmetric') for image in (lq, gt))
            height, width = gt.shape[:2]
        top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
        return tuple(image[top : top + size, left : left + size] for image in (lq, gt))

    def _turn(self, lq: np.ndarray, gt: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        flip = self.opt.get('use_hflip', False) and rng.random() < 0.5
        quarters = int(rng.integers(4)) if self.opt.get('use_rot', False) else 0
        return tuple(np.rot90(image[:, ::-1] if flip else image, quarters) for image in (lq, gt))


def _folders(degradations: list[str]) -> list[str]:
    """Gives each source a folder of its own: its degradation or, where several have the same, 'rain/1', 'rain/2'."""
    count, folders = Counter(), []
    for name in degradations:
        count[name] += 1
        folders.append(f'{name}/{count[name]}')
    return [name if count[name] == 1 else folder for name, folder in zip(degradations, folders)]


def collate_whole(samples: list[dict[str, Any]]) -> dict[str, list]:
    """Makes a batch of whole images, which may differ in size: a list for each key."""
    return {key: [sample[key] for sample in samples] for key in samples[0]}


def _odds(sources: list[Source]) -> np.ndarray:
    """Gives each source its probability: by weight, or the same for all names and, within one, for all images."""
    weights = [source.weight for source in sources]
    if None in weights:
        images = Counter()
        for source in sources:
            # Degradations have equal shares (the paper's sampling), however unequal their numbers of images.
            images[source.degradation] += len(source)
        weights = [len(source) / images[source.degradation] for source in sources]
    return np.array(weights) / sum(weights)


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    """Turns an image [H, W, 3], 8 or 16 bits or float32, into float32 [3, H, W] in [0, 1]."""
    planes = image.transpose(2, 0, 1)
    # a copy in any case: turned, a single pixel counts as contiguous, and has negative strides
    return torch.from_numpy(planes.copy() if image.dtype == np.float32 else to_float(planes))
