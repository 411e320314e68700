"""Keys at the top of an options file, and under `path`, `train`, `val` and `logger`."""

from __future__ import annotations

import importlib.util
from typing import Any

from lorair_arch.options.datasets import datasets
from lorair_arch.options.types import (
    LOSS,
    METRIC,
    OPTIMIZER,
    SCHEDULER,
    check_schedule,
    names_of,
    network,
    registered,
)  # fmt: skip
from lorair_arch.schema import (
    Items,
    Name,
    Report,
    Section,
    Spec,
    Value,
    anything,
    boolean,
    folder_name,
    integer,
    number,
    one_of,
    text,
)  # fmt: skip

_TOTAL = integer(1, 10**9, required=True)
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
    keys['degradations'] = Items(item=folder_name(), required=model_type == ROUTER)
    keys['network_router'] = network(required=model_type == ROUTER)
    if model_type != ROUTER:
        keys['network_g'] = network(required=True)
    keys['path'] = _path(model_type)
    keys['train'] = _train(model_type, is_train)
    return Section(keys=keys)


def _any_model(is_train: bool) -> Section:
    """Keys for a model class of BasicSR or of another package."""
    # steps are the model class's own affair: this package's accumulate, BasicSR's do not
    train = {'total_iter': _TOTAL, 'warmup_iter': integer(-1), 'accumulate': one_of(1)}
    keys = _common(is_train, own=False)
    keys['train'] = Section(keys=train, more=_Foreign(null=True), required=True) if is_train else anything()
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
        'name': folder_name(required=True),
        'model_type': Name(what='model class', names=lambda: names_of('model'), required=True),
        'num_gpu': Value(accepts=_is_gpu_count, expected="a number of GPUs, 0 or 'auto'"),
        'manual_seed': integer(0, 2**32 - 1, null=True),
        'scale': integer(1, 1000),
        'find_unused_parameters': boolean(),
        'dist_params': Section(keys={'backend': text(), 'port': integer(1, 65535)}, null=True),
        'datasets': datasets(is_train, own),
        'path': Section(keys={'resume_state': text(null=True)}, more=anything(), null=True),
        'val': _val(is_train, own),
        'logger': _logger(is_train),
    }


def _path(model_type: str) -> Section:
    labels = ('router',) if model_type == ROUTER else ('router', 'g')
    keys: dict[str, Spec] = {'resume_state': text(null=True)}
    for label in labels:
        keys[f'pretrain_network_{label}'] = text(null=True)
        keys[f'param_key_{label}'] = one_of('params', 'params_ema')
        keys[f'strict_load_{label}'] = one_of(True)  # weights that do not fit are an error, never a warning
    if model_type != ROUTER:
        keys['prior_cache'] = text(null=True)
    if model_type == FINETUNE:
        keys['pretrain_network_experts'] = text(null=True)
    return Section(keys=keys, null=True)


def _train(model_type: str, is_train: bool) -> Section:
    keys = {
        'total_iter': _TOTAL,
        'warmup_iter': integer(-1),
        'optim_router' if model_type == ROUTER else 'optim_g': OPTIMIZER,
        'scheduler': SCHEDULER,
        'ema_decay': number(0, 0.999999),
        'grad_clip_norm': number(above=0, null=True),
        'amp': one_of('bf16', 'fp16', null=True),
        'compile': boolean(),
        'accumulate': integer(1, 1000),
        'max_bad_steps': integer(1),
    }
    if model_type != ROUTER:
        keys['pixel_opt'] = LOSS
        keys['prior'] = one_of('router', 'cached')
    if model_type == FINETUNE:
        keys['trainable'] = one_of('lora', 'lora_bias', 'all')
    return Section(keys=keys, required=is_train, also=check_schedule)


def _val(is_train: bool, own: bool) -> Section:
    keys = {
        'val_freq': integer(1, required=is_train),
        'save_img': boolean(),
        'pbar': boolean(),
        'suffix': folder_name(null=True),
        'metrics': Section(keys={}, more=METRIC if own else registered('metric'), null=True),
    }
    if own:
        keys['num_tb_images'] = integer(0)
    return Section(keys=keys, more=None if own else anything(), null=True)


def _logger(is_train: bool) -> Section:
    keys = {
        'print_freq': integer(1, required=True),
        'save_checkpoint_freq': integer(1, required=True),
        'keep_last': integer(1, null=True),
        'use_tb_logger': boolean(),
        'wandb': Section(keys={'project': text(null=True), 'resume_id': text(null=True)}, null=True),
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
