"""Keys under `datasets`."""

from __future__ import annotations

from typing import Any

import torch
from basicsr.utils.registry import DATASET_REGISTRY

from lorair_arch import schema as kinds
from lorair_arch.options.types import registered
from lorair_arch.schema import Items, Report, Section, Spec


def datasets(is_train: bool, own: bool) -> Section:
    """Describes `datasets`.

    Args:
        is_train: For training; else for a test.
        own: The model class is one of this package's: every key of the data sets that it is made for is checked.
    """
    phases = ('train', 'val') if is_train else ('test', 'val')

    def check_phases(sets: dict[str, Any], report: Report) -> None:
        for key in sets:
            if str(key).split('_')[0] not in phases:
                report(key, f'unknown key, expected {" or ".join(phases)}, if need be with _1, _2 behind')
        names = [dataset['name'] for dataset in sets.values()]
        for name in sorted({name for name in names if names.count(name) > 1}):
            report('', f'found several data sets of the name {name!r}, expected a different name for each')

    keys = {'train': _dataset('train', own)} if is_train else {}
    return Section(keys=keys, more=_dataset('val', own), required=True, also=check_phases)


def loader(train: bool) -> dict[str, Spec]:
    """Describes what BasicSR's pipeline reads of any data set, beside its type."""
    return {
        'name': kinds.folder_name(required=True),
        'batch_size_per_gpu': kinds.integer(1, 100_000, required=train),
        'num_worker_per_gpu': kinds.integer(0, 1000, required=train),
        'dataset_enlarge_ratio': kinds.number(above=0, high=10**6),
        'use_shuffle': kinds.boolean(),
        'pin_memory': kinds.boolean(),
        'persistent_workers': kinds.boolean(),
        'prefetch_mode': kinds.one_of('cpu', 'cuda', null=True),
        'num_prefetch_queue': kinds.integer(1, 1000),
    }


def _dataset(phase: str, own: bool) -> Spec:
    train = phase == 'train'

    def section(name: str) -> Section:
        own_keys = getattr(DATASET_REGISTRY.get(name), 'OPTIONS', None)
        known = own_keys.get(phase) if isinstance(own_keys, dict) else None
        if own and name == 'PairedImageDataset':
            known = _paired(train)
        return Section(keys=loader(train) | (known or {}), more=None if known else kinds.anything(), also=_check_loader)

    return registered('dataset', section, required=train)


def _paired(train: bool) -> dict[str, Spec]:
    return {
        'dataroot_lq': kinds.text(required=True),
        'dataroot_gt': kinds.text(required=True),
        'io_backend': Section(keys={'type': kinds.one_of('disk', 'lmdb', required=True)}, required=True),
        'meta_info_file': kinds.text(null=True),
        'filename_tmpl': kinds.text(),
        'gt_size': kinds.integer(1, 100_000, required=train),
        'use_hflip': kinds.boolean(required=train),
        'use_rot': kinds.boolean(required=train),
        'color': kinds.one_of('y', null=True),
        'mean': Items(item=kinds.number(), length=3, null=True),
        'std': Items(item=kinds.number(above=0), length=3, null=True),
    }


def _check_loader(dataset: dict[str, Any], report: Report) -> None:
    if dataset.get('persistent_workers') and not dataset.get('num_worker_per_gpu'):
        report('persistent_workers', 'found true, expected false, as num_worker_per_gpu is 0')
    if dataset.get('prefetch_mode') == 'cuda' and not (torch.cuda.is_available() and dataset.get('pin_memory')):
        report('prefetch_mode', "found 'cuda', expected 'cpu' or null; it needs a GPU and pin_memory: true")
