"""Keys at the top of an options file, and under `datasets`, `path`, `train`, `val` and `logger`."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from basicsr.utils.registry import DATASET_REGISTRY

from lorair_arch import schema
from lorair_arch.metrics.protocols import PROTOCOLS
from lorair_arch.options.types import LOSS, METRIC, OPTIMIZER, SCHEDULER, check_schedule, names_of, network, registered
from lorair_arch.schema import Items, Name, Report, Section, Spec, Value

_TOTAL = schema.integer(1, 10**9, required=True)
OWN_MODELS = ROUTER, PRETRAIN, FINETUNE = 'DegradationRouterModel', 'LoRAIRPretrainModel', 'LoRAIRFinetuneModel'


def datasets(is_train: bool, own: bool) -> Section:
    """Describes `datasets`.

    Args:
        is_train: For training; else for a test.
        own: The model class is one of this package's: every key of the data sets that it is made for is checked.
    """
    phases = ('train', 'val') if is_train else ('test', 'val')

    def check_phases(sets: dict[str, Any], report: Report) -> None:
        for key in sets:
            if str(key).split('_')[0] not in phases:  # BasicSR's rule: val, val_1, val_2 and so on
                report(key, f'unknown key, expected {" or ".join(phases)}, if need be with _1, _2 behind')
        names = [dataset['name'] for dataset in sets.values()]  # results go into folders of these names
        for name in sorted({name for name in names if names.count(name) > 1}):
            report('', f'found several data sets of the name {name!r}, expected a different name for each')

    keys = {'train': _dataset('train', own)} if is_train else {}
    return Section(keys=keys, more=_dataset('val', own), required=True, also=check_phases)


def loader(train: bool) -> dict[str, Spec]:
    """Describes what BasicSR's pipeline reads of any data set, beside its type."""
    return {
        'name': schema.folder_name(required=True),
        'batch_size_per_gpu': schema.integer(1, 100_000, required=train),
        'num_worker_per_gpu': schema.integer(0, 1000, required=train),
        'dataset_enlarge_ratio': schema.number(above=0, high=10**6),
        'use_shuffle': schema.boolean(),
        'pin_memory': schema.boolean(),
        'persistent_workers': schema.boolean(),
        'prefetch_mode': schema.one_of('cpu', 'cuda', null=True),
        'num_prefetch_queue': schema.integer(1, 1000),
    }


def _dataset(phase: str, own: bool) -> Spec:
    train = phase == 'train'

    def section(name: str) -> Section:
        own_keys = getattr(DATASET_REGISTRY.get(name), 'OPTIONS', None)
        known = own_keys.get(phase) if isinstance(own_keys, dict) else None
        # BasicSR's set of pairs says nothing of its options itself; other model classes may want more of it.
        if own and name == 'PairedImageDataset':
            known = _paired(train)
        return Section(
            keys=loader(train) | (known or {}), more=None if known else schema.anything(), also=_check_loader
        )

    return registered('dataset', section, required=train)


def _paired(train: bool) -> dict[str, Spec]:
    return {
        'dataroot_lq': schema.text(required=True),
        'dataroot_gt': schema.text(required=True),
        'io_backend': Section(keys={'type': schema.one_of('disk', 'lmdb', required=True)}, required=True),
        'meta_info_file': schema.text(null=True),
        'filename_tmpl': schema.text(),
        'gt_size': schema.integer(1, 100_000, required=train),
        'use_hflip': schema.boolean(required=train),
        'use_rot': schema.boolean(required=train),
        'color': schema.one_of('y', null=True),
        'mean': Items(item=schema.number(), length=3, null=True),
        'std': Items(item=schema.number(above=0), length=3, null=True),
    }


def _check_loader(dataset: dict[str, Any], report: Report) -> None:
    if dataset.get('persistent_workers') and not dataset.get('num_worker_per_gpu'):
        report('persistent_workers', 'found true, expected false, as num_worker_per_gpu is 0')
    if dataset.get('prefetch_mode') == 'cuda' and not (torch.cuda.is_available() and dataset.get('pin_memory')):
        report('prefetch_mode', "found 'cuda', expected 'cpu' or null; it needs a GPU and pin_memory: true")


def options(model_type: Any, is_train: bool) -> Section:
    """Describes a whole options file.

    Args:
        model_type: One of this package's model classes: every key is known. Of others only what BasicSR's pipeline
            itself reads, and that every `type` exists.
        is_train: For training; else for a test.
    """
    if model_type not in OWN_MODELS:
        return _any_model(is_train)
    keys = _common(is_train, own=True)
    keys['degradations'] = Items(item=schema.folder_name(), required=model_type == ROUTER)
    keys['network_router'] = network(required=model_type == ROUTER)
    if model_type != ROUTER:
        keys['network_g'] = network(required=True)
    keys['path'] = _path(model_type)
    keys['train'] = _train(model_type, is_train)
    return Section(keys=keys)


def _any_model(is_train: bool) -> Section:
    """Keys for a model class of BasicSR or of another package."""
    # steps are the model class's own affair: this package's accumulate, BasicSR's do not
    train = {'total_iter': _TOTAL, 'warmup_iter': schema.integer(-1), 'accumulate': schema.one_of(1)}
    keys = _common(is_train, own=False)
    keys['train'] = Section(keys=train, more=_Foreign(null=True), required=True) if is_train else schema.anything()
    return Section(keys=keys, more=_Foreign(null=True))


class _Foreign(Spec):
    """A key of another package's model class: networks and losses, known by their names, must have a known type."""

    def check(self, value: Any, where: str, report: Report) -> Any:
        name = str(where.rpartition('.')[2])
        if isinstance(value, dict) and 'type' in value:
            if name.startswith('network_'):
                registered('arch').check(value, where, report)
            elif name.endswith('_opt'):
                registered('loss').check(value, where, report)
        return value


def _common(is_train: bool, own: bool) -> dict[str, Spec]:
    """Keys that BasicSR's pipelines read, whatever the model class."""
    return {
        'name': schema.folder_name(required=True),
        'model_type': Name(what='model class', names=lambda: names_of('model'), required=True),
        'num_gpu': Value(accepts=_is_gpu_count, expected="a number of GPUs, 0 or 'auto'"),
        'manual_seed': schema.integer(0, 2**32 - 1, null=True),  # NumPy's seeds have 32 bits
        'scale': schema.integer(1, 1000),
        'find_unused_parameters': schema.boolean(),
        'dist_params': Section(keys={'backend': schema.text(), 'port': schema.integer(1, 65535)}, null=True),
        'datasets': datasets(is_train, own),
        'path': Section(keys={'resume_state': schema.text(null=True)}, more=schema.anything(), null=True),
        'val': _val(is_train, own),
        'logger': _logger(is_train),
    }


def _path(model_type: str) -> Section:
    labels = ('router',) if model_type == ROUTER else ('router', 'g')
    keys: dict[str, Spec] = {'resume_state': schema.text(null=True)}
    for label in labels:
        keys[f'pretrain_network_{label}'] = schema.text(null=True)
        keys[f'param_key_{label}'] = schema.one_of('params', 'params_ema')
        keys[f'strict_load_{label}'] = schema.one_of(True)  # weights that do not fit are an error, never a warning
    if model_type != ROUTER:
        keys['prior_cache'] = schema.text(null=True)
    if model_type == FINETUNE:
        keys['pretrain_network_experts'] = schema.text(null=True)
    return Section(keys=keys, null=True)


def _train(model_type: str, is_train: bool) -> Section:
    keys = {
        'total_iter': _TOTAL,
        'warmup_iter': schema.integer(-1),
        'optim_router' if model_type == ROUTER else 'optim_g': OPTIMIZER,
        'scheduler': SCHEDULER,
        'ema_decay': schema.number(0, 0.999999),  # at 1 the average would stay what it was at the beginning
        'grad_clip_norm': schema.number(above=0, null=True),
        'amp': schema.one_of('bf16', 'fp16', null=True),
        'compile': schema.boolean(),
        'accumulate': schema.integer(1, 1000),
        'max_bad_steps': schema.integer(1),
    }
    if model_type != ROUTER:
        keys['pixel_opt'] = LOSS
        keys['prior'] = schema.one_of('router', 'cached')
    if model_type == FINETUNE:
        keys['trainable'] = schema.one_of('lora', 'lora_bias', 'all')
    return Section(keys=keys, required=is_train, also=check_schedule)


def _val(is_train: bool, own: bool) -> Section:
    keys = {
        'val_freq': schema.integer(1, required=is_train),
        'save_img': schema.boolean(),
        'pbar': schema.boolean(),
        'suffix': schema.folder_name(null=True),
        'protocol': schema.one_of(*PROTOCOLS, null=True),
        'metrics': Section(keys={}, more=METRIC if own else registered('metric'), null=True),
    }
    if own:
        keys['num_tb_images'] = schema.integer(0)
    return Section(keys=keys, more=None if own else schema.anything(), null=True)


def _logger(is_train: bool) -> Section:
    keys = {
        'print_freq': schema.integer(1, required=True),
        'save_checkpoint_freq': schema.integer(1, required=True),
        'keep_last': schema.integer(1, null=True),
        'use_tb_logger': schema.boolean(),
        'wandb': Section(keys={'project': schema.text(null=True), 'resume_id': schema.text(null=True)}, null=True),
    }
    return Section(keys=keys, required=is_train, also=_check_wandb)


def _check_wandb(logger: dict[str, Any], report: Report) -> None:
    if not (logger.get('wandb') or {}).get('project'):
        return
    if not logger.get('use_tb_logger'):
        report('wandb', 'found a project, expected null, as use_tb_logger is false: wandb copies its curves')
    elif importlib.util.find_spec('wandb') is None:
        report('wandb', 'found a project, expected null, as the package wandb is not installed')


def _is_gpu_count(value: Any) -> bool:
    return value == 'auto' or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)
