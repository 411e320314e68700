"""Keys at the top of an options file, and under `path`, `train`, `val` and `logger`."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import LOSS_REGISTRY, METRIC_REGISTRY

from lorair_arch.utils.option_schema.datasets import datasets
from lorair_arch.utils.option_schema.networks import network
from lorair_arch.utils.option_schema.specs import (
    Items,
    Name,
    Report,
    Section,
    Spec,
    Typed,
    Value,
    anything,
    boolean,
    call,
    folder_name,
    integer,
    names_of,
    number,
    one_of,
    registered,
    text,
)

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
    keys['degradations'] = Items(item=text(), required=model_type == ROUTER)
    keys['network_router'] = network(required=model_type == ROUTER)
    if model_type != ROUTER:
        keys['network_g'] = network(required=True)
    keys['path'] = _path(model_type)
    keys['train'] = _train(model_type, is_train)
    return Section(keys=keys)


def _any_model(is_train: bool) -> Section:
    """Keys for a model class of BasicSR or of another package."""
    train = {'total_iter': integer(1, required=True), 'warmup_iter': integer(-1)}
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
        'scale': integer(1),
        'find_unused_parameters': boolean(),
        'dist_params': Section(keys={'backend': text(), 'port': integer(1, 65535)}, null=True),
        'datasets': datasets(is_train, own),
        'path': anything(),
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
        'total_iter': integer(1, required=True),
        'warmup_iter': integer(-1),
        'optim_router' if model_type == ROUTER else 'optim_g': _OPTIMIZER,
        'scheduler': _SCHEDULER,
        'ema_decay': number(0, 0.999999),
        'grad_clip_norm': number(above=0, null=True),
        'amp': one_of('bf16', null=True),
    }
    if model_type != ROUTER:
        keys['pixel_opt'] = _LOSS
        keys['prior'] = one_of('router', 'cached')
    if model_type == FINETUNE:
        keys['trainable'] = one_of('lora', 'lora_bias', 'all')
    return Section(keys=keys, required=is_train, also=(_check_schedule,))


def _check_schedule(train: dict[str, Any], where: str, report: Report) -> None:
    scheduler, total = train['scheduler'], train['total_iter']
    if 'periods' not in scheduler:
        return
    periods = scheduler['periods']
    if sum(periods) < total:
        report(f'{where}.scheduler.periods', f'found {periods}, expected a sum of at least total_iter = {total}')
    weights = scheduler.get('restart_weights', [1])
    if not isinstance(weights, list) or len(weights) != len(periods):
        report(f'{where}.scheduler.restart_weights', f'found {weights}, expected {len(periods)}, one for each period')


def _val(is_train: bool, own: bool) -> Section:
    keys = {
        'val_freq': integer(1, required=is_train),
        'save_img': boolean(),
        'pbar': boolean(),
        'suffix': text(null=True),
        'metrics': Section(keys={}, more=_METRIC if own else registered('metric'), null=True),
    }
    if own:
        keys['num_tb_images'] = integer(0)
    return Section(keys=keys, more=None if own else anything(), null=True)


def _logger(is_train: bool) -> Section:
    keys = {
        'print_freq': integer(1, required=True),
        'save_checkpoint_freq': integer(1, required=True),
        'use_tb_logger': boolean(),
        'wandb': Section(keys={'project': text(null=True), 'resume_id': text(null=True)}, null=True),
    }
    return Section(keys=keys, more=None, required=is_train)


def _is_gpu_count(value: Any) -> bool:
    return value == 'auto' or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


_SCHEDULERS = {
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}


def _scheduler(name: str) -> Section:
    steps = {'periods' if 'Cosine' in name else 'milestones': Items(item=integer(1), required=True)}
    return call(_SCHEDULERS[name], skip=('optimizer', 'last_epoch'), **steps)


def _optimizer(name: str) -> Section:
    betas = Items(item=number(0, 1), length=2)
    rate = number(above=0, required=True)
    return call(getattr(torch.optim, name), skip=('params',), lr=rate, weight_decay=number(0), betas=betas)


def _optimizers() -> list[str]:
    classes = inspect.getmembers(torch.optim, inspect.isclass)
    return [name for name, cls in classes if torch.optim.Optimizer in cls.__mro__[1:]]


_OPTIMIZER = Typed(what='optimizer', types=_optimizers, section=_optimizer, required=True)
_SCHEDULER = Typed(what='scheduler', types=lambda: _SCHEDULERS, section=_scheduler, required=True)
_LOSS = registered('loss', lambda name: call(LOSS_REGISTRY.get(name)), required=True)
_METRIC = registered(
    'metric',
    lambda name: call(METRIC_REGISTRY.get(name), skip=('img', 'img2'), better=one_of('higher', 'lower')),
)
