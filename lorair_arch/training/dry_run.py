"""`basicsr train|test --dry-run`: tries everything that a run needs, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import logging
import re
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lorair_arch.devices import synchronize
from lorair_arch.errors import LoRAIRError, OptionsError
from lorair_arch.options.keys import OWN_MODELS
from lorair_arch.options.reading import load_each
from lorair_arch.training.interruption import Signals
from lorair_arch.training.resume import check_states
from lorair_arch.training.session import run_session
from lorair_arch.training.test import measure
from lorair_arch.training.train import Training

logger = logging.getLogger('lorair_arch')


def dry_run(
    command: str,
    files: Sequence[str],
    force_yml: Sequence[str] = (),
    *,
    launcher: str = 'none',
    auto_resume: bool = False,
    debug: bool = False,
) -> None:
    """Checks options files, opens their data, loads their weights, takes a step and validates or tests an image.

    All that is written goes to a temporary folder. Weights that an earlier one of the files is to train are taken from
    its one step. A training that would be continued begins anew, once it is clear that it could be.

    Args:
        command: 'train' or 'test'.
        files: The options files, in the order in which they are to run.
        force_yml, launcher, auto_resume, debug: See `train.run`.

    Raises:
        LoRAIRError: As `train.run`.
    """
    # In the real folders, before all that follows goes to the temporary one.
    check_states(command, files, force_yml, launcher=launcher, auto_resume=auto_resume, debug=debug)
    with tempfile.TemporaryDirectory(prefix='lorair_dry_run_') as root:
        opts = load_each(files, command == 'train', root, force_yml, launcher=launcher, debug=debug)
        for i, (file, opt) in enumerate(zip(files, opts)):
            _shorten(opt, root)
            _use_trained(opt, file, root, {opt['name'] for opt in opts[:i]})
            job = partial(_one_step, opt, file, i + 1 < len(files)) if command == 'train' else partial(_one_image, opt)
            with _peak_memory() as memory, _enough_memory(file):
                done = run_session(job, opt, launcher, logging.WARNING)
            if opt['rank'] == 0:
                logger.info(f'{file}: sound; {done}, {memory()}')


class _OneStep(Training):
    """A training that notes what a step is made of and how long it takes, and validates an image."""

    most_validated = 1
    keep = False

    def step(self, batch: dict[str, Any], iteration: int) -> None:
        start = time.perf_counter()
        super().step(batch, iteration)
        # PyTorch returns when the GPU has been given the step, not when it has taken it.
        synchronize()
        self.done = f'one step{_describe(batch.get("lq"))}{_each(self.opt)} took {time.perf_counter() - start:.2f} s'

    def save(self, epoch: int, iteration: int) -> None:
        if self.keep:
            super().save(epoch, iteration)


def _one_step(opt: dict[str, Any], file: str, keep: bool, signals: Signals) -> str:
    """Takes a step; `keep`: what it has trained is needed afterwards."""
    training = _OneStep(opt, file, signals)
    training.keep = keep
    training.run()
    return training.done


def _one_image(opt: dict[str, Any], signals: Signals) -> str:
    start, sets = time.perf_counter(), len(opt['datasets'])
    measure(opt, most=1)
    took = f'took {time.perf_counter() - start:.1f} s'
    return f'an image of {sets} data set{"s" if sets > 1 else ""}{_each(opt)} {took}'


def _each(opt: dict[str, Any]) -> str:
    return f' in each of {opt["world_size"]} processes' if opt['world_size'] > 1 else ''


def _describe(lq: torch.Tensor | list | None) -> str:
    if isinstance(lq, torch.Tensor) and lq.dim() == 4:
        return f' of {len(lq)} images of {lq.shape[3]} x {lq.shape[2]} pixels'
    return f' of {len(lq)} images' if isinstance(lq, (torch.Tensor, list)) else ''


def _shorten(opt: dict[str, Any], root: str) -> None:
    """Leaves one step of a training, with a validation behind it; one bad step ends it."""
    opt['path']['resume_state'], opt['root_path'] = None, root
    if not opt['is_train']:
        return
    opt['train']['total_iter'] = 1
    if opt['model_type'] in OWN_MODELS:  # BasicSR's model classes skip no steps, and know no such key
        opt['train']['max_bad_steps'] = 1
    # 2 is never reached: the weights at the end are all that the next file may need.
    opt['logger'] |= {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False, 'wandb': None}
    if opt.get('val') is not None:
        opt['val']['val_freq'] = 1


def _use_trained(opt: dict[str, Any], file: str, root: str, names: set[str]) -> None:
    """Turns paths to weights that trainings of these names are to write to those that their dry runs wrote."""
    for key, value in opt['path'].items():
        found = re.fullmatch(r'experiments/([^/]+)/models/(net_\w+)_(\d+|latest)\.pth', str(value))
        if not found or found[1] not in names:
            continue
        trained = Path(root, 'experiments', found[1], 'models', f'{found[2]}_latest.pth')
        if trained.exists():
            opt['path'][key] = str(trained)
        elif not Path(value).exists():
            raise OptionsError(f'{file}: path.{key}: found {value!r}, which the training {found[1]} does not write')


@contextlib.contextmanager
def _peak_memory():
    """Gives a function that tells the most memory in use since then."""
    gpu = torch.cuda.is_available()
    # What an earlier file's trial has left must not count as this one's.
    gc.collect()
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path('/proc/self/clear_refs').write_text('5')  # Linux forgets the peak that was

    def tell() -> str:
        if gpu:
            # Reserved, not allocated: with what lies between tensors it must fit onto the card.
            return f'peak memory {torch.cuda.max_memory_reserved() / 2**30:.2f} GiB of the GPU'
        unit = 2**30 if sys.platform == 'darwin' else 2**20  # bytes there, else KiB
        return f'peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.2f} GiB'

    yield tell


@contextlib.contextmanager
def _enough_memory(file: str):
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise LoRAIRError(
            f'{file}: one step does not fit into the memory of the GPU; lower batch_size_per_gpu or gt_size, or use '
            'amp: bf16'
        ) from error
