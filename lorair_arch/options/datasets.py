"""Keys under `datasets`."""

from __future__ import annotations

import os
from typing import Any

import torch

from lorair_arch.data.degradations import build_degradation
from lorair_arch.data.sources import compile_match
from lorair_arch.errors import OptionsError
from lorair_arch.options.kinds import anything, boolean, folder_name, integer, number, one_of, registered, text
from lorair_arch.schema import Items, Report, Section, Spec


def datasets(is_train: bool, own: bool) -> Section:
    """Describes `datasets`.

    Args:
        is_train: For training; else for a test.
        own: The model class is one of this package's: every key of the data sets that it is made for is checked.
    """
    phases = ('train', 'val') if is_train else ('test', 'val')

    def check_phases(sets: dict[str, Any], where: str, report: Report) -> None:
        for key in sets:
            if str(key).split('_')[0] not in phases:
                report(f'{where}.{key}', f'unknown key, expected {" or ".join(phases)}, if need be with _1, _2 behind')
        names = [dataset['name'] for dataset in sets.values()]
        for name in sorted({name for name in names if names.count(name) > 1}):
            report(where, f'found several data sets of the name {name!r}, expected a different name for each')

    keys = {'train': _dataset(True, own)} if is_train else {}
    return Section(keys=keys, more=_dataset(False, own), required=True, also=(check_phases,))


def _dataset(train: bool, own: bool) -> Spec:
    types = _types(train) if own else {}

    def section(name: str) -> Section:
        known = types.get(name)
        return Section(keys=_loader(train) | (known or {}), more=None if known else anything(), also=(_check_loader,))

    return registered('dataset', section, required=train)


def _loader(train: bool) -> dict[str, Spec]:
    return {
        'name': folder_name(required=True),
        'batch_size_per_gpu': integer(1, 100_000, required=train),
        'num_worker_per_gpu': integer(0, 1000, required=train),
        'dataset_enlarge_ratio': number(above=0, high=10**6),
        'use_shuffle': boolean(),
        'pin_memory': boolean(),
        'persistent_workers': boolean(),
        'prefetch_mode': one_of('cpu', 'cuda', null=True),
        'num_prefetch_queue': integer(1, 1000),
    }


def _types(train: bool) -> dict[str, dict[str, Spec]]:
    return {
        'AllInOneDataset': {
            'sources': _Sources(item=_SOURCE, required=True),
            'gt_size': integer(1, 100_000, required=train, null=train),
            'pad_small': boolean(),
            'use_hflip': boolean(),
            'use_rot': boolean(),
            'seed': integer(0),
            'io_backend': anything(),
        },
        'PairedImageDataset': {
            'dataroot_lq': text(required=True),
            'dataroot_gt': text(required=True),
            'io_backend': Section(keys={'type': one_of('disk', 'lmdb', required=True)}, required=True),
            'meta_info_file': text(null=True),
            'filename_tmpl': text(),
            'gt_size': integer(1, 100_000, required=train),
            'use_hflip': boolean(required=train),
            'use_rot': boolean(required=train),
            'color': one_of('y', null=True),
            'mean': Items(item=number(), length=3, null=True),
            'std': Items(item=number(above=0), length=3, null=True),
        },
    }


def _check_loader(dataset: dict[str, Any], where: str, report: Report) -> None:
    if dataset.get('persistent_workers') and not dataset.get('num_worker_per_gpu'):
        report(f'{where}.persistent_workers', 'found true, expected false, as num_worker_per_gpu is 0')
    if dataset.get('prefetch_mode') == 'cuda' and not (torch.cuda.is_available() and dataset.get('pin_memory')):
        report(f'{where}.prefetch_mode', "found 'cuda', expected 'cpu' or null; it needs a GPU and pin_memory: true")


def _check_source(source: dict[str, Any], where: str, report: Report) -> None:
    if ('dataroot_lq' in source) == ('degrade' in source):
        found = 'both' if 'degrade' in source else 'neither'
        report(where, f'found {found}, expected either dataroot_lq (pairs) or degrade (clean images to degrade)')
    if 'match' in source and 'degrade' in source:
        report(f'{where}.match', 'found beside degrade, expected beside dataroot_lq: it pairs images of two folders')
    lq, gt = (os.path.realpath(os.path.expanduser(source.get(key, ''))) for key in ('dataroot_lq', 'dataroot_gt'))
    if lq == gt and 'dataroot_lq' in source:
        report(f'{where}.dataroot_lq', 'found the folder of dataroot_gt, expected that of the degraded images')
    try:
        compile_match(source.get('match'), f'{where}.match')
        if 'degrade' in source:
            build_degradation(source['degrade'], f'{where}.degrade')
    except OptionsError as error:
        place, _, what = str(error).partition(': ')
        report(place, what)
    if 'degradation' not in source and isinstance(source.get('degrade', []), list):  # a single one has its own name
        report(f'{where}.degradation', 'missing, expected the name of a degradation')


class _Sources(Items):
    """A list of sources, none of them twice, all of them with a weight or none."""

    def check(self, value: Any, where: str, report: Report) -> Any:
        value = super().check(value, where, report)
        if not isinstance(value, list):
            return value
        for i, source in enumerate(value):
            if source in value[:i]:
                report(f'{where}[{i}]', f'found the same as in {where}[{value.index(source)}], expected it once')
        weighted = [isinstance(source, dict) and source.get('weight') is not None for source in value]
        if any(weighted) and not all(weighted):
            report(f'{where}[{weighted.index(False)}].weight', 'missing, expected one for every source, or for none')
        return value


_SOURCE = Section(
    keys={
        'degradation': folder_name(),
        'dataroot_lq': text(),
        'dataroot_gt': text(required=True),
        'meta_info_file': text(null=True),
        'match': text(null=True),
        'degrade': anything(null=False),
        'weight': number(above=0, high=10**8, null=True),
    },
    also=(_check_source,),
)
