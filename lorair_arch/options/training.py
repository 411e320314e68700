"""Keys at the top of an options file, and under `path`, `train`, `val` and `logger`."""

from __future__ import annotations

import importlib.util
from typing import Any

from lorair_arch import schema as kinds
from lorair_arch.options.datasets import datasets
from lorair_arch.options.types import LOSS, METRIC, OPTIMIZER, SCHEDULER, check_schedule, names_of, network, registered
from lorair_arch.schema import Items, Name, Report, Section, Spec, Value

_TOTAL = kinds.integer(1, 10**9, required=True)
OWN_MODELS = ROUTER, PRETRAIN, FINETUNE = 'DegradationRouterModel', 'LoRAIRPretrainModel', 'LoRAIRFinetuneModel'


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
    keys['degradations'] = Items(item=kinds.folder_name(), required=model_type == ROUTER)
    keys['network_router'] = network(required=model_type == ROUTER)
    if model_type != ROUTER:
        keys['network_g'] = network(required=True)
    keys['path'] = _path(model_type)
    keys['train'] = _train(model_type, is_train)
    return Section(keys=keys)


def _any_model(is_train: bool) -> Section:
    """Keys for a model class of BasicSR or of another package."""
    # steps are the model class's own affair: this package's accumulate, BasicSR's do not
    train = {'total_iter': _TOTAL, 'warmup_iter': kinds.integer(-1), 'accumulate': kinds.one_of(1)}
    keys = _common(is_train, own=False)
    keys['train'] = Section(keys=train, more=_Foreign(null=True), required=True) if is_train else kinds.anything()
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
        'name': kinds.folder_name(required=True),
        'model_type': Name(what='model class', names=lambda: names_of('model'), required=True),
        'num_gpu': Value(accepts=_is_gpu_count, expected="a number of GPUs, 0 or 'auto'"),
        'manual_seed': kinds.integer(0, 2**32 - 1, null=True),
        'scale': kinds.integer(1, 1000),
        'find_unused_parameters': kinds.boolean(),
        'dist_params': Section(keys={'backend': kinds.text(), 'port': kinds.integer(1, 65535)}, null=True),
        'datasets': datasets(is_train, own),
        'path': Section(keys={'resume_state': kinds.text(null=True)}, more=kinds.anything(), null=True),
        'val': _val(is_train, own),
        'logger': _logger(is_train),
    }


def _path(model_type: str) -> Section:
    labels = ('router',) if model_type == ROUTER else ('router', 'g')
    keys: dict[str, Spec] = {'resume_state': kinds.text(null=True)}
    for label in labels:
        keys[f'pretrain_network_{label}'] = kinds.text(null=True)
        keys[f'param_key_{label}'] = kinds.one_of('params', 'params_ema')
        keys[f'strict_load_{label}'] = kinds.one_of(True)  # weights that do not fit are an error, never a warning
    if model_type != ROUTER:
        keys['prior_cache'] = kinds.text(null=True)
    if model_type == FINETUNE:
        keys['pretrain_network_experts'] = kinds.text(null=True)
    return Section(keys=keys, null=True)


def _train(model_type: str, is_train: bool) -> Section:
    keys = {
        'total_iter': _TOTAL,
        'warmup_iter': kinds.integer(-1),
        'optim_router' if model_type == ROUTER else 'optim_g': OPTIMIZER,
        'scheduler': SCHEDULER,
        'ema_decay': kinds.number(0, 0.999999),
        'grad_clip_norm': kinds.number(above=0, null=True),
        'amp': kinds.one_of('bf16', 'fp16', null=True),
        'compile': kinds.boolean(),
        'accumulate': kinds.integer(1, 1000),
        'max_bad_steps': kinds.integer(1),
    }
    if model_type != ROUTER:
        keys['pixel_opt'] = LOSS
        keys['prior'] = kinds.one_of('router', 'cached')
    if model_type == FINETUNE:
        keys['trainable'] = kinds.one_of('lora', 'lora_bias', 'all')
    return Section(keys=keys, required=is_train, also=check_schedule)


def _val(is_train: bool, own: bool) -> Section:
    keys = {
        'val_freq': kinds.integer(1, required=is_train),
        'save_img': kinds.boolean(),
        'pbar': kinds.boolean(),
        'suffix': kinds.folder_name(null=True),
        'metrics': Section(keys={}, more=METRIC if own else registered('metric'), null=True),
    }
    if own:
        keys['num_tb_images'] = kinds.integer(0)
    return Section(keys=keys, more=None if own else kinds.anything(), null=True)


def _logger(is_train: bool) -> Section:
    keys = {
        'print_freq': kinds.integer(1, required=True),
        'save_checkpoint_freq': kinds.integer(1, required=True),
        'keep_last': kinds.integer(1, null=True),
        'use_tb_logger': kinds.boolean(),
        'wandb': Section(keys={'project': kinds.text(null=True), 'resume_id': kinds.text(null=True)}, null=True),
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
