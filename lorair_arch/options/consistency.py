"""Checks of an options file that need several of its keys, the files they name, or the machine."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import open_clip

from lorair_arch.devices import gpu_count
from lorair_arch.options.keys import FINETUNE, PRETRAIN, ROUTER
from lorair_arch.schema import Report, show
from lorair_arch.weights.files import read_description
from lorair_arch.weights.loading import other_classes


def check_machine(opt: dict[str, Any], launcher: str, report: Report) -> None:
    """Compares `num_gpu` and `train.amp` with this machine (in distributed runs each process takes one GPU)."""
    wanted, there = opt.get('num_gpu', 'auto'), gpu_count(launcher != 'none')
    if wanted != 'auto' and wanted > there and (launcher == 'none' or there == 0):
        report('num_gpu', f'found {wanted}, expected at most {there}, as many as this machine has, or auto')
    train = opt.get('train')
    if isinstance(train, dict) and train.get('amp') == 'fp16' and (there if wanted == 'auto' else wanted) == 0:
        report('train.amp', "found 'fp16', expected 'bf16' or null: without a GPU float16 is slow")


def check_files(opt: dict[str, Any], made_before: Collection[str], report: Report) -> None:
    """Looks for every file and folder that the options name, but for weights of trainings in `made_before`."""
    for where, path in _named_files(opt):
        place = Path(os.path.expanduser(path))
        if where.startswith('path.') and trained_by(path) in made_before:
            continue
        if not os.path.exists(place):
            report(where, f'found {show(path)}, which does not exist (looked for from {os.getcwd()})')
        elif 'dataroot' in where and not place.is_dir():
            report(where, f'found {show(path)}, which is a file, expected a folder of images or an LMDB')
        elif 'dataroot' not in where and place.is_dir():
            report(where, f'found {show(path)}, which is a folder, expected a file')


def trained_by(path: str) -> str | None:
    """Gives the name of the training in whose folder a file is."""
    parts = Path(path).parts
    return parts[1] if len(parts) > 1 and parts[0] == 'experiments' else None


def check_classes(opt: dict[str, Any], is_train: bool, made_before: Collection[str], report: Report) -> None:
    """Compares `degradations` with what the files of weights were trained for; see `check_files`.

    A training may begin with a network for others, see `StageModel.load_network`.
    """
    path = opt.get('path') or {}
    begins = 'pretrain_network_router' if opt['model_type'] == ROUTER else 'pretrain_network_g'
    for key in ('pretrain_network_router', 'pretrain_network_g', 'pretrain_network_experts'):
        if not path.get(key) or trained_by(path[key]) in made_before:
            continue
        description = read_description(os.path.expanduser(path[key]))
        whole = description.get('kind') != 'experts'
        what = other_classes(description, opt.get('degradations'))
        if what and not (is_train and key == begins and whole):
            report(f'path.{key}', f'found {show(path[key])}, which {what}')


def _named_files(opt: dict[str, Any]) -> Iterator[tuple[str, str]]:
    names = ('resume_state', 'prior_cache') if _is_cached(opt) else ('resume_state',)
    for key, value in (opt.get('path') or {}).items():
        if (key.startswith('pretrain_network') or key in names) and isinstance(value, str):
            yield f'path.{key}', value
    for phase, dataset in opt['datasets'].items():
        places = {f'datasets.{phase}': dataset}
        for i, source in enumerate(dataset.get('sources') or []):
            places[f'datasets.{phase}.sources[{i}]'] = source
        for where, mapping in places.items():
            for key, value in mapping.items():
                if str(key).startswith(('dataroot', 'meta_info_file')) and isinstance(value, str):
                    yield f'{where}.{key}', value


def check_stage(opt: dict[str, Any], is_train: bool, report: Report) -> None:
    """Checks what the networks, the weights, the data and the degradations of a stage have to do with each other."""
    stage, path = opt['model_type'], opt.get('path') or {}
    restorer, router = opt.get('network_g') or {}, opt.get('network_router') or {}
    cached = is_train and _is_cached(opt)
    # a training with cached priors asks the router about validation images alone
    validates = bool(opt.get('val')) and len(opt['datasets']) > 1
    needed = {'router': not is_train or (stage != ROUTER and router and (validates or not cached))}
    needed['g'] = stage != ROUTER and (not is_train or stage == FINETUNE)
    for label, need in needed.items():
        if need and not path.get(f'pretrain_network_{label}'):
            report(f'path.pretrain_network_{label}', 'missing, expected a file of trained weights')
    if stage == PRETRAIN and restorer.get('lora'):
        report('network_g.lora', f'found a mapping, expected null: experts are for {FINETUNE}')
    if stage == FINETUNE and not restorer.get('lora'):
        report('network_g.lora', f'missing, expected a mapping with rank and num_experts (else use {PRETRAIN})')
    if restorer.get('img_channel', 3) != 3 and restorer['type'] == 'LoRAIR':
        report('network_g.img_channel', f'found {restorer["img_channel"]}, expected 3: images are read in colour')
    train = opt['datasets'].get('train', {})
    if stage != ROUTER and train.get('type') == 'AllInOneDataset' and train['gt_size'] is None:
        report('datasets.train.gt_size', 'found null, expected pixels: only the router is trained on whole images')
    if cached:
        if not path.get('prior_cache'):
            report('path.prior_cache', 'missing, expected a file that lorair data cache-priors wrote')
        if validates and not router:
            report('network_router', 'missing, expected the router of the cached priors: validation asks it')
        check_cacheable(opt, report)
    _check_prior(restorer, router, report)
    _check_degradations(opt, restorer.get('lora') or {}, router, report)


def check_cacheable(opt: dict[str, Any], report: Report) -> None:
    """Checks that priors of the training images can be kept: an image must be the same each time it is read."""
    train = opt['datasets']['train']
    if train['type'] != 'AllInOneDataset':
        report('datasets.train.type', f'found {train["type"]}, expected AllInOneDataset: of it alone priors are cached')
    for i, source in enumerate(train.get('sources') or []):
        if 'degrade' in source:
            what = 'found images degraded on the fly, expected dataroot_lq: new ones each time have no prior to cache'
            report(f'datasets.train.sources[{i}].degrade', what)


def _is_cached(opt: dict[str, Any]) -> bool:
    train = opt.get('train')
    return isinstance(train, dict) and train.get('prior') == 'cached'


def _check_prior(restorer: dict[str, Any], router: dict[str, Any], report: Report) -> None:
    clip = router.get('clip_model')
    config = open_clip.get_model_config(clip) if isinstance(clip, str) else clip
    if restorer.get('type') == 'LoRAIR' and config:
        size, found = config['embed_dim'] // 2, restorer.get('prior_dim', 384)
        if found != size:
            report('network_g.prior_dim', f'found {found}, expected {size}, half the embed_dim of the router')


def _check_degradations(opt: dict[str, Any], lora: dict[str, Any], router: dict[str, Any], report: Report) -> None:
    names = opt.get('degradations') or []
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        report('degradations', f'found {", ".join(repeated)} more than once, expected each name once')
        return
    counts = {'degradations': len(names) or None}
    counts['network_router.num_degradations'] = router.get('num_degradations')
    counts['network_g.lora.num_experts'] = lora.get('num_experts')
    counts = {where: count for where, count in counts.items() if count}
    for where, count in list(counts.items())[1:]:
        first, expected = next(iter(counts.items()))
        if count != expected:
            report(where, f'found {count}, expected {expected}, as many as {first}')
    sources = {
        f'datasets.{phase}.sources[{i}].degradation': source.get('degradation')
        for phase, dataset in opt['datasets'].items()
        for i, source in enumerate(dataset.get('sources') or [] if names else [])
    }
    unknown = [where for where, name in sources.items() if name not in names]
    for where in unknown:
        report(where, f'found {show(sources[where])}, expected one of degradations: {", ".join(names)}')
    trained = [name for where, name in sources.items() if where.startswith('datasets.train.')]
    # An expert without images never learns, and a class that is never seen is never told.
    absent = [name for name in names if trained and name not in trained]
    if absent and not unknown and len(set(counts.values())) == 1:
        what = f'found none of {", ".join(absent)}, expected one or more of each of degradations'
        report('datasets.train.sources', what)
