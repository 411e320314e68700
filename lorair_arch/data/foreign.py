"""Data sets of BasicSR and of others, which draw as ours do and name the files that they cannot use."""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.data import build_dataset as build_of_basicsr

from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.errors import DataError, LoRAIRError

# What they raise when a file is missing, has no partner, or is no image.
MISTAKES = (AssertionError, AttributeError, TypeError, ValueError, OSError, cv2.error)


def build_dataset(dataset_opt: dict[str, Any]) -> torch.utils.data.Dataset:
    """Builds a data set of any package; what it refuses becomes a `DataError` that names the data set."""
    try:
        # BasicSR asserts where options or folders are wrong: a message without the data set.
        dataset = build_of_basicsr(dataset_opt)
    except LoRAIRError:
        raise
    except MISTAKES as error:
        raise DataError(f'data set {dataset_opt["name"]}: {error}') from error
    if len(dataset) == 0:
        raise DataError(f'data set {dataset_opt["name"]}: there are no images in it; check its paths')
    return dataset if isinstance(dataset, AllInOneDataset) else NamedDataset(dataset)


class NamedDataset(torch.utils.data.Dataset):
    """Any map-style data set; when a sample cannot be read, the error has the names of its files.

    Args:
        dataset: its attributes are this one's too; those read here are `opt` and, if it is there, BasicSR's `paths`.
    """

    def __init__(self, dataset: torch.utils.data.Dataset) -> None:
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # asked for while unpickling, when there is none yet
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except LoRAIRError:
            raise
        except MISTAKES as error:
            reason = f'{type(error).__name__}: {" ".join(str(error).split())}'
            raise DataError(
                f'data set {self.opt["name"]}: {self._files(index)} cannot be used ({reason}); check the files'
            ) from error

    def _files(self, index: int) -> str:
        paths = getattr(self.dataset, 'paths', None)
        if not isinstance(paths, list) or index >= len(paths):
            return f'sample {index}'
        return ' or '.join(paths[index].values()) if isinstance(paths[index], dict) else str(paths[index])


class SeededDataset(torch.utils.data.Dataset):
    """Makes the random draws of any map-style data set a function of (seed, epoch, index).

    BasicSR's data sets draw their crops from `random` and `numpy.random`, which its workers seed the same in every
    epoch. Here each sample is read with these generators, and PyTorch's, seeded for it; afterwards they are as before.

    Args:
        dataset: indexed by whole numbers.
        seed: a whole number from 0.

    Attributes:
        opt: the options of the data set, if it has any.
    """

    def __init__(self, dataset: torch.utils.data.Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.opt = getattr(dataset, 'opt', None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> Any:
        epoch, index = index if isinstance(index, tuple) else (0, index)
        # Without workers this is the training's own process, whose generators must not be moved.
        before = random.getstate(), np.random.get_state()
        # Only the CPU's generator: workers must not start up a GPU.
        with torch.random.fork_rng(devices=[]):
            seed = int(np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0])
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            try:
                # Indices go on beyond the end with dataset_enlarge_ratio, for draws of their own.
                return self.dataset[index % len(self.dataset)]
            finally:
                random.setstate(before[0])
                np.random.set_state(before[1])
