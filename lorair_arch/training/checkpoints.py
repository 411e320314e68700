"""The checkpoints of an experiment: how any model class writes them, and which of them are kept."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from lorair_arch.errors import LoRAIRError
from lorair_arch.files import WRITE_ERRORS, cannot_write, remove_unfinished
from lorair_arch.weights.files import save_file

logger = logging.getLogger('lorair_arch')


def save_network(
    model, net: nn.Module | list[nn.Module], net_label: str, current_iter: int, param_key: str | list[str] = 'params'
) -> None:
    """Saves networks of a model of BasicSR, by the rules of its `BaseModel.save_network`, whole or not at all.

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


def save_training_state(model, epoch: int, current_iter: int) -> None:
    """Saves all that resuming needs beside the weights, as `BaseModel.save_training_state`, whole or not at all.

    Raises:
        CheckpointError: The file cannot be written.
    """
    if current_iter == -1:
        return
    state = {
        'epoch': epoch,
        'iter': current_iter,
        'optimizers': [optimizer.state_dict() for optimizer in model.optimizers],
        'schedulers': [scheduler.state_dict() for scheduler in model.schedulers],
        'progress': model.opt.get('progress'),
        'options': model.opt.get('options'),
    }
    if hasattr(model, 'best_metric_results'):  # of BasicSR's model classes, which would forget it
        state['best_metric_results'] = {
            dataset: {metric: {**record, 'val': float(record['val'])} for metric, record in metrics.items()}
            for dataset, metrics in model.best_metric_results.items()
        }
    if hasattr(model, 'extra_state'):
        state |= model.extra_state()
    save_file(state, state_path(model.opt, current_iter))


def state_path(opt: dict[str, Any], iteration: int) -> Path:
    """Gives the place of the training state of an iteration."""
    return Path(opt['path']['training_states'], f'{iteration}.state')


def last_checkpoint(opt: dict[str, Any]) -> str:
    """Says for a message where a training that has stopped can be continued."""
    newest = max((number for number, _ in _states(opt)), default=None)
    path = opt['path'].get('resume_state') if newest is None else state_path(opt, newest)
    if path is None:
        return 'there is no checkpoint yet'
    return f'the last good checkpoint is {os.path.relpath(path)} (--auto_resume continues from it)'


@contextlib.contextmanager
def disk_errors(opt: dict[str, Any]) -> Iterator[None]:
    """Turns what a full disk or a read-only folder does to any other file of a run into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in WRITE_ERRORS:
            raise
        root = opt['path'].get('experiments_root') or opt['path']['results_root']
        last = f'; {last_checkpoint(opt)}' if opt['is_train'] else ''
        raise LoRAIRError(cannot_write(os.path.relpath(error.filename or root), error) + last) from error


def clean(opt: dict[str, Any]) -> None:
    """Removes what was left half-written in the folder of an experiment when its process was killed."""
    for folder in ('models', 'training_states'):
        remove_unfinished(opt['path'][folder])


def prune(opt: dict[str, Any], current_iter: int, kept: set[int]) -> None:
    """Removes the numbered checkpoints, weights and state together, that are older than the newest `logger.keep_last`.

    Checkpoints of later iterations, of which a training that went back to an earlier one still has some, do not count
    and stay.

    Args:
        opt: The options.
        current_iter: Of the newest checkpoint, which must be on the disk.
        kept: Iterations to keep in any case.
    """
    files = [entry for entry in (*_states(opt), *_networks(opt)) if entry[0] <= current_iter]
    numbers = sorted({number for number, path in files if path.suffix == '.state'})
    kept = kept.union(numbers[-opt['logger']['keep_last'] :])
    for number, path in files:  # states first: weights without a state are never continued from
        if number not in kept:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning(f'{os.path.relpath(path)} cannot be removed: {error.strerror}')


def best_iterations(model) -> set[int]:
    """Gives the iterations whose validation gave the best value of any metric."""
    own = (best for metrics in getattr(model, 'best', {}).values() for _, best in metrics.values())
    theirs = getattr(model, 'best_metric_results', {}).values()  # as the model classes of BasicSR have it
    return {*own, *(record['iter'] for metrics in theirs for record in metrics.values())}


def _states(opt: dict[str, Any]) -> Iterator[tuple[int, Path]]:
    return _numbered(Path(opt['path']['training_states']), '*.state')


def _networks(opt: dict[str, Any]) -> Iterator[tuple[int, Path]]:
    return _numbered(Path(opt['path']['models']), 'net_*_*.pth')


def _numbered(folder: Path, pattern: str) -> Iterator[tuple[int, Path]]:
    for path in folder.glob(pattern):
        with contextlib.suppress(ValueError):  # net_g_latest.pth
            yield int(path.stem.rpartition('_')[2]), path
