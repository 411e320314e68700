"""Mappings with a `type`: networks and data sets, optimisers and schedules, losses and metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from basicsr.models import lr_scheduler
from basicsr.utils import registry
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY

from lorair_arch.schema import Items, Report, Section, Typed, boolean, call, integer, number, one_of, show, takes

# The names that BasicSR's `setup_schedulers` knows: it takes MultiStepLR for its own.
_SCHEDULERS = {
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}
# they need a closure, sparse gradients, and matrices in place of convolutions
_OTHER_OPTIMIZERS = ('LBFGS', 'SparseAdam', 'Muon')
_OTHER_PARAMETERS = ('params', 'capturable', 'differentiable', 'maximize')
# they need more than an image and its ground truth
_OTHER_LOSSES = ('PerceptualLoss', 'GANLoss', 'MultiScaleGANLoss')
# they are for tensors
_OTHER_METRICS = ('calculate_psnr_pt', 'calculate_ssim_pt')


def registered(
    kind: str, section: Callable[[str], Section | None] = lambda name: None, but: Collection[str] = (), **options: Any
) -> Typed:
    """A mapping whose type is in one of BasicSR's registries: 'arch', 'dataset', 'loss' or 'metric', `but` for some."""
    what = f'{"network" if kind == "arch" else kind} type'
    return Typed(what=what, types=lambda: [n for n in names_of(kind) if n not in but], section=section, **options)


def names_of(kind: str) -> list[str]:
    """All names in one of BasicSR's registries; some of its own have a suffix that options leave out."""
    return [name.removesuffix('_basicsr') for name, _ in getattr(registry, f'{kind.upper()}_REGISTRY')]


def network(**options: Any) -> Typed:
    """A network, with what its class takes."""
    return registered('arch', lambda name: takes(ARCH_REGISTRY.get(name)), **options)


def check_schedule(train: dict[str, Any], report: Report) -> None:
    """Compares the periods of `train.scheduler` with `total_iter` and with their weights."""
    scheduler, total = train['scheduler'], train['total_iter']
    parts, each = scheduler.get('periods'), 'period'
    if parts is None:
        parts, each = scheduler.get('restarts', [0]), 'of restarts'
    elif sum(parts) < total:
        report('scheduler.periods', f'found {show(parts)}, expected a sum of at least total_iter = {total}')
    weights = scheduler.get('restart_weights', [1])
    if len(weights) != len(parts):
        report('scheduler.restart_weights', f'found {show(weights)}, expected {len(parts)}, one for each {each}')


def _scheduler(name: str) -> Section:
    known = {key: Items(item=integer(1)) for key in ('periods', 'milestones')}
    known |= {'restarts': Items(item=integer(0)), 'restart_weights': Items(item=number(0))}
    known |= {'gamma': number(0), 'eta_min': number(0)}  # a negative rate would lead away from the minimum
    return call(_SCHEDULERS[name], skip=('optimizer', 'last_epoch'), known=known)


def _optimizer(name: str) -> Section:
    optimizer = getattr(torch.optim, name)

    def check(settings: dict[str, Any], report: Report) -> None:
        if settings.get('foreach') and settings.get('fused'):
            report('fused', 'found true beside foreach: true, expected one of them')
        try:
            # PyTorch checks values in its constructors alone: without parameters nothing is made.
            optimizer([], **settings)
        except (TypeError, ValueError) as error:  # that there are no parameters is the last thing that it notices
            if 'empty parameter list' not in str(error):
                report('', f'{name} refuses it: {error}')

    known = {'lr': number(above=0), 'weight_decay': number(0)}
    # PyTorch wants floats, and YAML's 0 is a whole number.
    known |= {'betas': Items(item=number(0, 1, convert=float), length=2)}
    known |= dict.fromkeys(('foreach', 'fused'), boolean(null=True))
    section = call(optimizer, _OTHER_PARAMETERS, known, also=check)
    return replace(section, keys={**section.keys, 'lr': replace(known['lr'], required=True)})


def _optimizers() -> list[str]:
    classes = inspect.getmembers(torch.optim, inspect.isclass)
    names = [name for name, cls in classes if torch.optim.Optimizer in cls.__mro__[1:]]
    return [name for name in names if name not in _OTHER_OPTIMIZERS]


def _loss(name: str) -> Section:
    return call(LOSS_REGISTRY.get(name), known={'reduction': one_of('mean', 'sum')})


def _metric(name: str) -> Section:
    known = {'crop_border': integer(0), 'input_order': one_of('HWC')}
    section = call(METRIC_REGISTRY.get(name), ('img', 'img2'), known)
    return replace(section, keys={**section.keys, 'better': one_of('higher', 'lower')})


OPTIMIZER = Typed(what='optimizer', types=_optimizers, section=_optimizer, required=True)
SCHEDULER = Typed(what='scheduler', types=lambda: _SCHEDULERS, section=_scheduler, required=True)
LOSS = registered('loss', _loss, _OTHER_LOSSES, required=True)
METRIC = registered('metric', _metric, _OTHER_METRICS)
