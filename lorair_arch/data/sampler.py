"""Sampling that is a function of (seed, epoch, index), whatever the number of workers and processes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from lorair_arch.errors import DataError


class EpochSampler(torch.utils.data.Sampler):
    """Shuffles a data set anew in each epoch and yields `(epoch, index)`, so that workers know the epoch.

    The order does not depend on the number of processes: rank r of n gets the places r, r + n, r + 2n, ... of it. What
    is left over when it does not divide evenly is dropped, so that an epoch of n processes with batches of b has
    exactly as many steps as one of a single process with batches of n * b.

    Args:
        dataset: anything with a length.
        num_replicas: number of processes.
        rank: of this process.
        ratio: how many times the data set an epoch goes through. Indices go up to len(dataset) * ratio, so that each
            time has random numbers of its own.
        seed: of the order.

    Attributes:
        start: number of samples to skip, of all ranks together, in the epoch that a resumed run continues. It stays in
            force until `set_epoch` moves on from that epoch.

    Raises:
        DataError: if there are fewer samples than processes.
    """

    def __init__(
        self, dataset: torch.utils.data.Dataset, num_replicas: int, rank: int, ratio: int = 1, seed: int = 0
    ) -> None:
        self.num_replicas, self.rank, self.seed = num_replicas, rank, seed
        self.total = int(len(dataset) * ratio)
        self.start = 0
        self.epoch: int | None = None
        if len(self) == 0:
            raise DataError(
                f'the training set has {self.total} samples for {num_replicas} processes; '
                'add images or raise dataset_enlarge_ratio'
            )

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch or 0
        order = np.random.default_rng([self.seed, epoch]).permutation(self.total)[self.start :]
        mine = order[self.rank :: self.num_replicas][: len(order) // self.num_replicas]
        return iter([(epoch, index) for index in mine.tolist()])

    def __len__(self) -> int:
        return self.total // self.num_replicas

    def set_epoch(self, epoch: int) -> None:
        # A loader with workers starts to read as soon as it is made, before the first call of set_epoch.
        if self.epoch is not None and epoch != self.epoch:
            self.start = 0
        self.epoch = epoch


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
        before = random.getstate(), np.random.get_state()
        # Only the CPU's generator: workers must not start up a GPU.
        with torch.random.fork_rng(devices=[]):
            seed = int(np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0])
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            try:
                return self.dataset[index % len(self.dataset)]
            finally:
                random.setstate(before[0])
                np.random.set_state(before[1])
