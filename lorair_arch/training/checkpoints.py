"""The checkpoints of an experiment: where they are, and which of them are kept."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorair_arch.files import remove_unfinished

logger = logging.getLogger('lorair_arch')


def state_path(opt: dict[str, Any], iteration: int) -> Path:
    """Gives the place of the training state of an iteration."""
    return Path(opt['path']['training_states'], f'{iteration}.state')


def last_checkpoint(opt: dict[str, Any]) -> str:
    """Says for a message where a training that has stopped can be continued."""
    newest = max((number for number, _ in numbered(opt['path']['training_states'])), default=None)
    # An experiment that goes on from another one's state has none of its own yet.
    path = opt['path'].get('resume_state') if newest is None else state_path(opt, newest)
    if path is None:
        return 'there is no checkpoint yet'
    return f'the last good checkpoint is {os.path.relpath(path)} (--auto_resume continues from it)'


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
    places = numbered(opt['path']['training_states']), numbered(opt['path']['models'], 'net_*_*.pth')
    files = [entry for place in places for entry in place if entry[0] <= current_iter]
    numbers = sorted({number for number, path in files if path.suffix == '.state'})
    kept = kept.union(numbers[-opt['logger']['keep_last'] :])
    for number, path in files:  # states first: a kill between the two must not leave a state without its weights
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


def numbered(folder: str, pattern: str = '*.state') -> Iterator[tuple[int, Path]]:
    """Gives the files of a folder with the iterations of which they are."""
    for path in Path(folder).glob(pattern):
        with contextlib.suppress(ValueError):  # net_g_latest.pth
            yield int(path.stem.rpartition('_')[2]), path
