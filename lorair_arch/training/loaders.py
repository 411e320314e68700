"""The loop's data: exact epochs, randomness that repeats, validation sets split over the processes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from basicsr.data import build_dataloader
from basicsr.data.prefetch_dataloader import CUDAPrefetcher
from torch.utils.data import DataLoader

from lorair_arch.data.all_in_one_dataset import AllInOneDataset, collate_whole
from lorair_arch.data.foreign import SeededDataset, build_dataset
from lorair_arch.data.prior_cache import PriorCache
from lorair_arch.errors import DataError
from lorair_arch.models.stage import is_stage
from lorair_arch.training.interruption import outlive_signals


def build_train_loader(opt: dict[str, Any], dataset_opt: dict[str, Any]) -> tuple[DataLoader, EpochSampler]:
    """Builds the loader of the training set.

    Every sample is a function of (manual_seed, epoch, index), whatever the number of workers and however often the
    training was resumed. `len(loader)` is the number of iterations of an epoch.

    Args:
        opt: All options, `manual_seed`, `world_size`, `rank`, `num_gpu` and `dist` filled in.
        dataset_opt: Those of the training set.

    Returns:
        The loader and its sampler, with which the loop sets the epoch.

    Raises:
        DataError: The data set cannot be built or does not fill one batch.
        CheckpointError: The cache of priors was made with another router.
    """
    dataset = build_dataset(dataset_opt)
    if not isinstance(dataset, AllInOneDataset):
        dataset = SeededDataset(dataset, opt['manual_seed'])
    elif opt['train'].get('prior') == 'cached':
        dataset.priors = PriorCache(opt['path']['prior_cache'])
        # Priors of another router would train without a word, towards something else.
        dataset.priors.check(opt)
    sampler = EpochSampler(
        dataset, opt['world_size'], opt['rank'], dataset_opt.get('dataset_enlarge_ratio', 1), seed=opt['manual_seed']
    )
    # what a step accumulates is read as one batch, so that a step is an iteration everywhere
    images = dataset_opt['batch_size_per_gpu'] * opt['train'].get('accumulate', 1)
    settings = {**dataset_opt, 'batch_size_per_gpu': images}
    loader = build_dataloader(dataset, settings, num_gpu=opt['num_gpu'], dist=opt['dist'], sampler=sampler)
    loader.worker_init_fn = outlive_signals  # they need no seed: each sample has one of its own
    if len(loader) == 0:
        raise DataError(
            f'data set {dataset_opt["name"]}: {len(dataset)} images do not fill one batch of '
            f'{loader.batch_size} in each of {opt["world_size"]} process(es); lower batch_size_per_gpu or raise '
            'dataset_enlarge_ratio'
        )
    loader.generator = torch.Generator()  # else every epoch draws a number from the training's random state
    if isinstance(dataset, AllInOneDataset) and dataset_opt.get('gt_size', 0) is None:
        loader.collate_fn = collate_whole
    return loader, sampler


def build_val_loader(opt: dict[str, Any], dataset_opt: dict[str, Any], most: int | None = None) -> DataLoader:
    """Builds the loader of a validation or test set: one image a batch, in order.

    Args:
        opt, dataset_opt: All options, and those of the set.
        most: Images that this process reads at most; None: all that it is to read.
    """
    dataset = build_dataset(dataset_opt)
    # PyTorch's DistributedSampler would count some images twice. BasicSR's models validate in the first process alone.
    first, step = (opt['rank'], opt['world_size']) if is_stage(opt) else (0, 1)
    indices = range(first, len(dataset), step)[:most]
    pin_memory = dataset_opt.get('pin_memory', False)
    # A generator of its own: else each validation would draw from the training's random state.
    return DataLoader(dataset, batch_size=1, sampler=indices, pin_memory=pin_memory, generator=torch.Generator())


class Batches:
    """All batches of a training, epoch after epoch without an end; iterating gives the epoch and a batch.

    Args:
        loader: The loader of the training set; its workers start once an epoch, after the epoch is set.
        sampler: Its sampler.
        epoch: The first one.
        opt: All options; `prefetch_mode: cuda` copies a batch to the GPU while the one before is being worked on.
    """

    def __init__(self, loader: DataLoader, sampler: EpochSampler, epoch: int, opt: dict[str, Any]) -> None:
        self.loader, self.sampler, self.epoch, self.opt = loader, sampler, epoch, opt
        self.batches: Any = None

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for epoch in itertools.count(self.epoch):
            self.sampler.set_epoch(epoch)
            if self.opt['datasets']['train'].get('prefetch_mode') == 'cuda':
                prefetcher = CUDAPrefetcher(self.loader, self.opt)
                # BasicSR's prefetcher is no iterator: its `next` gives None at the end.
                self.batches, batches = prefetcher.loader, iter(prefetcher.next, None)
            else:
                self.batches = batches = iter(self.loader)
            for batch in batches:
                yield epoch, batch

    def close(self) -> None:
        """Ends the workers now; the garbage collector would wait for each of them for seconds.

        An error that a worker reports even holds on to them, in its traceback, until the process ends.
        """
        if hasattr(self.batches, '_shutdown_workers'):
            self.batches._shutdown_workers()


@contextlib.contextmanager
def killed_workers_named() -> Iterator[None]:
    """Says in a sentence that a data worker was killed; PyTorch raises that wherever the training is at the moment."""
    try:
        yield
    except (RuntimeError, ConnectionResetError, ConnectionRefusedError, EOFError) as error:
        # the other three come where it died in the middle of a batch
        # PyTorch has no type for it, only these words.
        if isinstance(error, RuntimeError) and not str(error).startswith('DataLoader worker'):
            raise
        raise DataError(
            'a data worker was killed, most often because the memory is used up; lower num_worker_per_gpu or '
            'batch_size_per_gpu'
        ) from error


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
