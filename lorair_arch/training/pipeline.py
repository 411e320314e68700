"""Runs BasicSR's training and test pipelines with this package's options, loaders, resuming and console."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import basicsr.test
import basicsr.train
import basicsr.utils.misc
import torch.distributed as dist
from basicsr.utils.dist_util import get_dist_info, init_dist

from lorair_arch import console
from lorair_arch.errors import LoRAIRError
from lorair_arch.options.reading import load_options
from lorair_arch.training import checkpoints, loaders
from lorair_arch.training.interruption import Signals, signals
from lorair_arch.training.jobs import Test, Training
from lorair_arch.training.resume import started_again

logger = logging.getLogger('lorair_arch')


def run(
    command: str,
    file: str | os.PathLike,
    *,
    launcher: str = 'none',
    auto_resume: bool = False,
    debug: bool = False,
    force_yml: Sequence[str] = (),
) -> None:
    """Trains or tests what an options file describes; results go under the current folder.

    Args:
        command: 'train' or 'test'.
        file: The options file (YAML).
        launcher: 'none', 'pytorch' (the process was started by torchrun) or 'slurm'.
        auto_resume: Continue the experiment from its newest state, if there is one.
        debug: BasicSR's debug mode: short intervals, the name starts with 'debug_'.
        force_yml: Changes to the options, such as 'train:total_iter=1000'.

    Raises:
        LoRAIRError: The options, the data or the files of weights are wrong; nothing of an old experiment is lost.
    """
    root = os.getcwd()
    opt = load_options(
        file, command == 'train', root, force_yml, debug=debug, auto_resume=auto_resume, launcher=launcher
    )
    run_options(command, opt, file, root, launcher)


def run_options(
    command: str,
    opt: dict[str, Any],
    file: str | os.PathLike,
    root: str,
    launcher: str = 'none',
    level: int = logging.INFO,
) -> None:
    """Runs options that are complete; results go under `root`, messages from `level` on to the console. See `run`."""
    if opt['dist'] and not dist.is_initialized():
        backend = 'nccl' if opt['num_gpu'] else 'gloo'
        init_dist(launcher, backend, port=(opt.get('dist_params') or {}).get('port'))
    opt['rank'], opt['world_size'] = get_dist_info()
    restarted = opt['dist'] and started_again()
    opt['auto_resume'] |= restarted
    end = None
    with signals() as received:
        try:
            with (
                console.session(opt['rank'], level) as get_root_logger,
                checkpoints.disk_errors(opt),
                loaders.killed_workers_named(),
            ):
                if restarted:
                    logger.warning(
                        'the processes were started again: continuing from the newest state, if there is one'
                    )
                _run(command, opt, file, root, received, get_root_logger)
        except LoRAIRError as error:
            if not error.everywhere:
                raise
            end = error.with_traceback(None)  # which would hold on to the networks
            end.__context__ = None
        if opt['dist']:
            # The first process validates and saves for longer: one that left before it, or while a network still holds
            # the group, could be aborted by threads of the group that had not ended.
            dist.barrier()
            gc.collect()
            dist.destroy_process_group()
    if end:
        raise end


def _run(
    command: str, opt: dict[str, Any], file: str | os.PathLike, root: str, received: Signals, get_root_logger: Callable
) -> None:
    job = (Training if command == 'train' else Test)(opt, file, received)
    module = basicsr.train if command == 'train' else basicsr.test
    names = job.replacements() | {'get_root_logger': get_root_logger}
    renewed = {'mkdir_and_rename': job.renew_folder}
    with contextlib.closing(job), replaced(module, names), replaced(basicsr.utils.misc, renewed):
        getattr(module, f'{command}_pipeline')(root)
    if command == 'test':
        logger.info(f'results in {os.path.relpath(opt["path"]["results_root"])}')


@contextlib.contextmanager
def replaced(module: ModuleType, names: dict[str, Any]) -> Iterator[None]:
    """Gives names of a module other values for a while."""
    before = {name: getattr(module, name) for name in names}
    vars(module).update(names)
    try:
        yield
    finally:
        vars(module).update(before)
