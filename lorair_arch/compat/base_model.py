"""BasicSR's `BaseModel`, mended: any device, processes without GPUs, files that are whole, trainings that go on.

Each function takes the place of a method, or stands around it; model classes of BasicSR and of others inherit them.
"""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils.dist_util import master_only
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lorair_arch.devices import device_name
from lorair_arch.errors import CheckpointError
from lorair_arch.weights.files import save_file

# As BasicSR has them: `mend` may run again, and must not wrap its own.
_init, _model_to_device = BaseModel.__init__, BaseModel.model_to_device


def mend() -> None:
    """Gives `BaseModel` the methods below; more than once does no harm."""
    BaseModel.__init__, BaseModel.model_to_device = init, model_to_device
    BaseModel.save_network, BaseModel.save_training_state = save_network, save_training_state
    BaseModel.resume_training = resume_training


@functools.wraps(_init)
def init(model: BaseModel, opt: dict[str, Any]) -> None:
    """BasicSR sets 'cuda' for every `num_gpu` but 0; Apple's GPU is 'mps'."""
    _init(model, opt)
    model.device = torch.device(device_name(opt['num_gpu']))


@functools.wraps(_model_to_device)
def model_to_device(model: BaseModel, net: nn.Module) -> nn.Module:
    """BasicSR builds DistributedDataParallel with the ids of CUDA devices, also where nothing is to be trained."""
    if not model.opt['dist']:
        return _model_to_device(model, net)
    # As in tests: DistributedDataParallel refuses a network without gradients.
    if not any(param.requires_grad for param in net.parameters()):
        return net.to(model.device)
    if model.device.type != 'cpu':
        return _model_to_device(model, net)
    unused = model.opt.get('find_unused_parameters', False)
    return DistributedDataParallel(net.to(model.device), find_unused_parameters=unused)


@master_only
def save_network(
    model: BaseModel,
    net: nn.Module | list[nn.Module],
    net_label: str,
    current_iter: int,
    param_key: str | list[str] = 'params',
) -> None:
    """Saves networks whole or not at all; BasicSR writes them in place, and goes on without a word if that fails.

    Raises:
        CheckpointError: The file cannot be written.
    """
    nets = net if isinstance(net, list) else [net]
    keys = param_key if isinstance(param_key, list) else [param_key]
    content = {}
    for key, network in zip(keys, nets):
        state_dict = model.get_bare_model(network).state_dict()
        content[key] = {name.removeprefix('module.'): value.cpu() for name, value in state_dict.items()}
    label = 'latest' if current_iter == -1 else current_iter
    save_file(content, Path(model.opt['path']['models'], f'{net_label}_{label}.pth'))


@master_only
def save_training_state(model: BaseModel, epoch: int, current_iter: int) -> None:
    """Saves all that resuming needs beside the weights, whole or not at all; BasicSR leaves out the best values.

    Raises:
        CheckpointError: The file cannot be written.
    """
    if current_iter == -1:
        return
    state = {
        'epoch': epoch,  # the four keys of BasicSR, which its own loop reads too
        'iter': current_iter,
        'optimizers': [optimizer.state_dict() for optimizer in model.optimizers],
        'schedulers': [scheduler.state_dict() for scheduler in model.schedulers],
    }
    state |= {key: model.opt[key] for key in ('progress', 'options') if key in model.opt}  # not in BasicSR's loop
    if hasattr(model, 'best_metric_results'):  # of BasicSR's model classes
        state['best_metric_results'] = {
            # BasicSR's metrics give numbers of NumPy, whose pickles `weights_only` refuses.
            dataset: {metric: {**record, 'val': float(record['val'])} for metric, record in metrics.items()}
            for dataset, metrics in model.best_metric_results.items()
        }
    # Of this package's stages: best values, skipped steps, the scale of float16.
    if hasattr(model, 'extra_state'):
        state |= model.extra_state()
    save_file(state, Path(model.opt['path']['training_states'], f'{current_iter}.state'))


def resume_training(model: BaseModel, resume_state: dict[str, Any]) -> None:
    """Gives a model the moments of its optimisers, and schedules by its options, as if they had always been these.

    BasicSR also brings back the options of the time of the state, and forgets the best values.

    Args:
        model: Of any model class, with optimisers and schedulers as they are at the beginning.
        resume_state: The training state.

    Raises:
        CheckpointError: The state belongs to other parameters.
    """
    from lorair_arch.training.continuing import load_moments

    saved = resume_state['optimizers'], resume_state['schedulers']
    # Counted first: PyTorch compares groups one by one, and its error names no option.
    counts = [[_count(optimizer) for optimizer in optimizers] for optimizers in (saved[0], model.optimizers)]
    if counts[0] != counts[1] or len(model.schedulers) != len(saved[1]):
        before, now = (' and '.join(map(str, count)) for count in counts)
        raise CheckpointError(
            f'the training state of iteration {resume_state["iter"]} has moments of {before} parameters, but now '
            f'{now} learn: set back what has changed (as train.trainable), or begin a new training'
        )
    if 'best_metric_results' in resume_state:
        model.best_metric_results = _best_values(model, resume_state['best_metric_results'])
    before, now = (_of_training(options) for options in (resume_state.get('options'), model.opt.get('options')))
    if before and before == now:
        # The same options: everything as it was, to the last bit.
        for own, state in (*zip(model.optimizers, saved[0]), *zip(model.schedulers, saved[1])):
            own.load_state_dict(state)
        return
    _schedule_anew(model, resume_state['iter'])
    for optimizer, state in zip(model.optimizers, saved[0]):
        load_moments(optimizer, state)


def _count(optimizer: torch.optim.Optimizer | dict[str, Any]) -> int:
    groups = optimizer['param_groups'] if isinstance(optimizer, dict) else optimizer.param_groups
    return sum(len(group['params']) for group in groups)


def _best_values(model: BaseModel, saved: dict[str, dict]) -> dict[str, dict]:
    """Begins anew with metrics that are new; BasicSR would not find them."""
    metrics = (model.opt.get('val') or {}).get('metrics') or {}
    new = {
        name: {'better': better, 'val': float('-inf' if better == 'higher' else 'inf'), 'iter': -1}
        for name, better in ((name, metric.get('better', 'higher')) for name, metric in metrics.items())
    }
    return {dataset: new | records for dataset, records in saved.items()}


def _of_training(options: dict[str, Any] | None) -> dict[str, Any]:
    return {place: value for place, value in (options or {}).items() if place.startswith('train.')}


def _schedule_anew(model: BaseModel, iteration: int) -> None:
    """Takes the schedules, which have just been made, to an iteration."""
    warmup_iter = model.opt['train'].get('warmup_iter', -1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # that the optimiser takes no steps between
        # MultiStepRestartLR multiplies the last rate, and has no formula for a later one.
        for step in range(1, iteration + 1):
            model.update_learning_rate(step, warmup_iter=warmup_iter)
