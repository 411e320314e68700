"""Finds and reads the state from which a training continues."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from lorair_arch.errors import CheckpointError, OptionsError
from lorair_arch.models.stage import is_stage
from lorair_arch.options.reading import load_each
from lorair_arch.training.checkpoints import numbered
from lorair_arch.training.continuing import changes, check_continuable, in_words, options_of
from lorair_arch.training.loaders import EpochSampler
from lorair_arch.training.session import from_first
from lorair_arch.weights.files import load_file

logger = logging.getLogger('lorair_arch')


@dataclass(frozen=True)
class Progress:
    """Settings that a training began with, or went on with, at some place of its data; `place` gives the later ones.

    Attributes:
        processes: Number of processes.
        batch: Images in a step of each process.
        images: Number of images in the training set.
        samples: Images in an epoch: `images` times dataset_enlarge_ratio.
        seed: The order of the epochs is a function of it.
        torch: Version of PyTorch.
        iteration: Steps that had been taken at the beginning.
        epoch: The epoch at the beginning.
        start: Images that all processes together had taken from that epoch.
    """

    processes: int
    batch: int
    images: int
    samples: int
    seed: int
    torch: str
    iteration: int = 0
    epoch: int = 0
    start: int = 0

    @property
    def step(self) -> int:
        """Images in a step of all processes."""
        return self.processes * self.batch

    def place(self, iteration: int) -> tuple[int, int]:
        """Gives the epoch after an iteration, and how many of its images were taken.

        What is left of an epoch when it does not fill a step is dropped, as the loaders do.
        """
        steps, first = iteration - self.iteration, (self.samples - self.start) // self.step
        if steps < first:
            return self.epoch, self.start + steps * self.step
        epochs, steps = divmod(steps - first, self.samples // self.step)
        return self.epoch + 1 + epochs, steps * self.step

    def last_epoch(self, iteration: int) -> int:
        """Gives the epoch in which an iteration is taken."""
        return self.place(iteration - 1)[0]

    def resumed(self, before: Progress, iteration: int) -> Progress:
        """Goes on with these settings at the image that an earlier training would have taken next.

        Where the order of the images has changed, that is a new epoch; else some would be repeated and some left out.
        """
        same_order = (self.images, self.samples, self.seed) == (before.images, before.samples, before.seed)
        if same_order and self.step == before.step:
            return replace(before, processes=self.processes, batch=self.batch, torch=self.torch)
        epoch, start = before.place(iteration)
        # Less than a step is left of the epoch, which the loaders would drop.
        if self.samples - start < self.step or (start and not same_order):
            epoch, start = epoch + 1, 0
        return replace(self, iteration=iteration, epoch=epoch, start=start)

    def changes(self, before: Progress) -> list[str]:
        """Says in words what is different from an earlier training."""
        values = {
            'number of processes': (before.processes, self.processes),
            'images in a step of each process': (before.batch, self.batch),
            'images in a step of all': (before.step, self.step),
            'images in the data set': (before.images, self.images),
            'images in an epoch': (before.samples, self.samples),
            'manual_seed': (before.seed, self.seed),
            'version of PyTorch': (before.torch, self.torch),
        }
        return [f'{name} {now} (was {was})' for name, (was, now) in values.items() if was != now]


def progress_of(
    loader: DataLoader, sampler: EpochSampler, opt: dict[str, Any], state: dict[str, Any] | None
) -> Progress:
    """Relates the settings to those of the training that is continued, if any; says what is not as it was."""
    sizes = opt['world_size'], loader.batch_size, len(loader.dataset), sampler.total
    now = Progress(*sizes, opt['manual_seed'], str(torch.__version__))
    if not state:
        return now
    # States of BasicSR's own loop have none: it is taken to have trained with these settings.
    before = Progress(**state['progress']) if state.get('progress') else now
    resumed, changed = now.resumed(before, state['iter']), now.changes(before)
    if changed:
        epoch, start = resumed.place(state['iter'])
        logger.warning(
            f'{os.path.relpath(opt["path"]["resume_state"])} was saved with other settings: {", ".join(changed)}; '
            f'going on after {start} images of epoch {epoch}'
        )
    return resumed


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Reads `path.resume_state`, or with `auto_resume` the newest sound state of the experiment.

    Tensors go to the CPU, nothing unsafe is unpickled, damaged files are passed over, and options that have changed are
    named or, where they cannot change, refused. The model classes of the stages load their networks themselves; the
    others by `path.pretrain_network_*`, which are turned to the networks that were saved along.

    Args:
        opt: The options; `path.resume_state` is set to the file that was found.

    Returns:
        The state, with the folder of the networks as `networks`, or None for a fresh start.

    Raises:
        CheckpointError: The file is no training state, or none of the experiment's states is sound.
        OptionsError: As `check_continuable`.
    """
    state = find_state(opt)
    if state is None:
        return None
    _tell_changes(opt, state)
    state['networks'], path = str(networks_folder(opt)), opt['path']
    # BasicSR's models take their weights at construction, from these options alone.
    for key in () if is_stage(opt) else [key for key in opt if key.startswith('network_')]:
        label = key.removeprefix('network_')
        if key not in (path.get('ignore_resume_networks') or ()):
            path[f'pretrain_{key}'] = os.path.join(state['networks'], f'net_{label}_{state["iter"]}.pth')
        if f'param_key_{label}' in path:  # of averaged weights both are loaded
            path[f'param_key_{label}'] = 'params'
    return state


def find_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Finds, reads and checks the state to continue from; see `load_resume_state`."""
    if opt['auto_resume']:
        # One process looks, so that all go on from the same.
        newest = from_first(_newest_sound_state(opt) if opt.get('rank', 0) == 0 else None)
        opt['path']['resume_state'] = newest or opt['path'].get('resume_state')
    path = opt['path'].get('resume_state')
    if path is None:
        return None
    state = _load_state(path)
    check_continuable(opt, state, os.path.relpath(path), networks_folder(opt))
    return state


def check_states(
    command: str, files: Sequence[str], force_yml: Sequence[str] = (), *, auto_resume: bool = False, **kwargs: Any
) -> None:
    """Checks options files that run one after another, and whether their trainings can be continued.

    Args:
        command: 'train' or 'test'.
        files, force_yml, auto_resume: As in `train.run`.
        **kwargs: Those of `load_each`.

    Raises:
        OptionsError: As `load_each`, and as `load_resume_state`.
        CheckpointError: As `load_resume_state`.
    """
    for file, opt in zip(files, load_each(files, command == 'train', os.getcwd(), force_yml, **kwargs)):
        named = opt['path'].get('resume_state')
        if command == 'test' or (named and not os.path.exists(named)):  # an earlier one of the files is to write it
            continue
        try:
            find_state(opt | {'auto_resume': auto_resume})
        except OptionsError as error:
            raise OptionsError(f'{file}: {error}') from error


def networks_folder(opt: dict[str, Any]) -> Path:
    """Gives the folder of the weights that belong to `path.resume_state`, which may be another experiment's."""
    beside = Path(opt['path']['resume_state']).absolute().parent.with_name('models')
    return Path(os.path.relpath(beside)) if beside.is_dir() else Path(opt['path']['models'])


def _tell_changes(opt: dict[str, Any], state: dict[str, Any]) -> None:
    path = os.path.relpath(opt['path']['resume_state'])
    if 'options' not in state:
        logger.info(f'{path} is of an older version, which did not save its options: those of the file hold')
        return
    changed = changes(state['options'], options_of(opt))
    if changed:
        logger.warning(
            f'{path} was trained with other options, the new ones hold from iteration {state["iter"] + 1:,}: '
            f'{in_words(changed)}'
        )


def _newest_sound_state(opt: dict[str, Any]) -> str | None:
    states = sorted(numbered(opt['path']['training_states']), reverse=True)
    for iteration, path in states:
        try:
            _load_state(path)
            # A state is of use with sound weights alone; both are read whole before either is chosen.
            networks = list(Path(opt['path']['models']).glob(f'net_*_{iteration}.pth'))
            for network in networks:
                load_file(network)
        except CheckpointError as error:
            logger.warning(f'{error}; trying the state before it')
            continue
        if networks:
            return str(path)
        logger.warning(f'{path} has no networks in {opt["path"]["models"]}; trying the state before it')
    if states:
        raise CheckpointError(
            f'none of the states in {opt["path"]["training_states"]} can be used; leave out --auto_resume to start '
            'anew (the old folder is kept under another name)'
        )
    return None


def _load_state(path: str | Path) -> dict[str, Any]:
    state = load_file(path)
    missing = {'epoch', 'iter', 'optimizers', 'schedulers'} - state.keys()
    if missing:
        raise CheckpointError(f'{path} is not a training state: it has no {", ".join(sorted(missing))}')
    return state
