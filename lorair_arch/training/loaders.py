"""Data loaders for BasicSR's loop: exact epochs, randomness that repeats, validation split over the processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from basicsr.data import build_dataloader as build_basicsr_dataloader
from basicsr.data import build_dataset as build_basicsr_dataset
from basicsr.data.prefetch_dataloader import CUDAPrefetcher as BasicSRCUDAPrefetcher
from torch.utils.data import DataLoader, Dataset

from lorair_arch.data.all_in_one_dataset import AllInOneDataset, collate_whole
from lorair_arch.data.foreign import MISTAKES, NamedDataset
from lorair_arch.data.prior_cache import PriorCache
from lorair_arch.data.sampler import EpochSampler, SeededDataset
from lorair_arch.errors import DataError, LoRAIRError
from lorair_arch.training.interruption import outlive_signals


def build_dataset(dataset_opt: dict[str, Any]) -> Dataset:
    """Builds a data set; what BasicSR's own data sets refuse becomes a `DataError` that names the data set."""
    try:
        dataset = build_basicsr_dataset(dataset_opt)
    except LoRAIRError:
        raise
    except MISTAKES as error:
        raise DataError(f'data set {dataset_opt["name"]}: {error}') from error
    if len(dataset) == 0:
        raise DataError(f'data set {dataset_opt["name"]}: there are no images in it; check its paths')
    return dataset if isinstance(dataset, AllInOneDataset) else NamedDataset(dataset)


def build_train_loader(opt: dict[str, Any], dataset_opt: dict[str, Any]) -> tuple[DataLoader, EpochSampler]:
    """Builds the loader of the training set.

    Every sample is a function of (manual_seed, epoch, index), whatever the number of workers and however often the
    training was resumed. `len(loader)` is the number of iterations of an epoch.

    Args:
        opt: All options, `manual_seed`, `world_size`, `rank`, `num_gpu` and `dist` filled in.
        dataset_opt: Those of the training set.

    Returns:
        The loader and its sampler, with which BasicSR's loop sets the epoch.

    Raises:
        DataError: The data set cannot be built or does not fill one batch.
        CheckpointError: The cache of priors was made with another router.
    """
    dataset = build_dataset(dataset_opt)
    if not isinstance(dataset, AllInOneDataset):
        dataset = SeededDataset(dataset, opt['manual_seed'])
    elif opt['train'].get('prior') == 'cached':
        dataset.priors = PriorCache(opt['path']['prior_cache'])
        dataset.priors.check(opt)
    sampler = EpochSampler(
        dataset, opt['world_size'], opt['rank'], dataset_opt.get('dataset_enlarge_ratio', 1), seed=opt['manual_seed']
    )
    # what a step accumulates is read as one batch, so that a step is an iteration everywhere
    images = dataset_opt['batch_size_per_gpu'] * opt['train'].get('accumulate', 1)
    loader = build_basicsr_dataloader(
        dataset,
        {**dataset_opt, 'batch_size_per_gpu': images},
        num_gpu=opt['num_gpu'],
        dist=opt['dist'],
        sampler=sampler,
        seed=opt['manual_seed'],
    )
    loader.worker_init_fn = outlive_signals  # in place of seeding: each sample has a seed of its own
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


def build_val_loader(dataset: Dataset, opt: dict[str, Any], split: bool) -> DataLoader:
    """Builds the loader of a validation or test set: one image a batch, in order.

    Args:
        dataset: The set.
        opt: All options.
        split: Gives this process its share alone (every `world_size`-th image, nothing twice) for model classes that
            gather the results; others want the whole set.
    """
    indices = range(opt['rank'], len(dataset), opt['world_size']) if split else range(len(dataset))
    pin_memory = dataset.opt.get('pin_memory', False)
    return DataLoader(dataset, batch_size=1, sampler=indices, pin_memory=pin_memory, generator=torch.Generator())


class CPUPrefetcher:
    """Takes batches from a loader; unlike BasicSR's it starts the workers once an epoch, after the epoch is set."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def reset(self) -> None:
        self.batches = iter(self.loader)

    def next(self) -> dict[str, Any] | None:
        return next(self.batches, None)

    def close(self) -> None:
        """Ends the workers now; the garbage collector would wait for each of them for seconds."""
        _end_workers(getattr(self, 'batches', None))
        self.batches = iter(())


class CUDAPrefetcher(BasicSRCUDAPrefetcher):
    """Copies the next batch to the GPU ahead of time; like `CPUPrefetcher` it starts with `reset`."""

    def __init__(self, loader: DataLoader, opt: dict[str, Any]) -> None:
        self.ori_loader, self.opt = loader, opt
        self.stream = torch.cuda.Stream()
        self.device = torch.device('cuda')

    def close(self) -> None:
        """As that of `CPUPrefetcher`."""
        _end_workers(getattr(self, 'loader', None))
        self.loader = iter(())


def _end_workers(batches: Any) -> None:
    # An error that a worker reports holds on to them, in its traceback, until the process ends.
    if hasattr(batches, '_shutdown_workers'):
        batches._shutdown_workers()


@contextlib.contextmanager
def killed_workers_named() -> Iterator[None]:
    """Says in a sentence that a data worker was killed; PyTorch raises that wherever the training is at the moment."""
    try:
        yield
    except (RuntimeError, ConnectionResetError, ConnectionRefusedError, EOFError) as error:
        # the other three come where it died in the middle of a batch
        if isinstance(error, RuntimeError) and not str(error).startswith('DataLoader worker'):
            raise
        raise DataError(
            'a data worker was killed, most often because the memory is used up; lower num_worker_per_gpu or '
            'batch_size_per_gpu'
        ) from error
