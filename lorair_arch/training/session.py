"""What surrounds a training and a test: processes, console, folders, seeds, and how mistakes end all processes."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from basicsr.utils import get_env_info, get_time_str, set_random_seed
from basicsr.utils.dist_util import get_dist_info, init_dist
from basicsr.utils.options import dict2str
from basicsr.utils.registry import DATASET_REGISTRY

from lorair_arch import console
from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.errors import LoRAIRError
from lorair_arch.files import WRITE_ERRORS, cannot_write
from lorair_arch.training.checkpoints import last_checkpoint
from lorair_arch.training.interruption import Signals, signals
from lorair_arch.training.loaders import killed_workers_named

logger = logging.getLogger('lorair_arch')
Result = TypeVar('Result')


def run_session(
    job: Callable[[Signals], Result], opt: dict[str, Any], launcher: str = 'none', level: int = logging.INFO
) -> Result:
    """Does a job in all its processes, and ends them together.

    Args:
        job: Done in each process; gets the signals that are to end it.
        opt: All options; `rank` and `world_size` are filled in, and `auto_resume` is set where processes were started
            again.
        launcher: 'none', 'pytorch' or 'slurm'.
        level: Messages from it on go to the console.

    Returns:
        What the job does.

    Raises:
        LoRAIRError: As the job; and for a full disk, a killed worker, another process that has ended.
    """
    if opt['dist'] and not dist.is_initialized():
        init_dist(launcher, 'nccl' if opt['num_gpu'] else 'gloo', port=(opt.get('dist_params') or {}).get('port'))
    # Crops have one size: the quickest convolutions are worth finding. BasicSR's pipelines set it too.
    torch.backends.cudnn.benchmark = True
    opt['rank'], opt['world_size'] = get_dist_info()
    restarted = opt['dist'] and started_again()
    # The command line of a restart is that of the start, without --auto_resume.
    opt['auto_resume'] |= restarted
    end = None
    with signals() as received:
        try:
            with console.session(opt['rank'], level), disk_errors(opt), killed_workers_named():
                if restarted:
                    logger.warning(
                        'the processes were started again: continuing from the newest state, if there is one'
                    )
                result = job(received)
        except LoRAIRError as error:
            # One process alone: it must not wait for others at the barrier, which do not come.
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
    return result


@contextlib.contextmanager
def disk_errors(opt: dict[str, Any]) -> Iterator[None]:
    """Turns what a full disk or a read-only folder does to any file but a checkpoint into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in WRITE_ERRORS:
            raise
        root = opt['path'].get('experiments_root') or opt['path']['results_root']
        last = f'; {last_checkpoint(opt)}' if opt['is_train'] else ''
        raise LoRAIRError(cannot_write(os.path.relpath(error.filename or root), error) + last) from error


def started_again() -> bool:
    """Tells whether torchrun or SLURM had to start any of the processes again.

    The launchers of other nodes than the one where a process failed do not count that.
    """
    mine = any(int(os.environ.get(name, 0)) for name in ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT'))
    all_of_them = [False] * dist.get_world_size()
    dist.all_gather_object(all_of_them, mine)
    return any(all_of_them)


def from_first(value: Any) -> Any:
    """Gives every process the value of the first one."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def set_seed(opt: dict[str, Any], default: int | None = None) -> None:
    """Seeds this process, and the data sets; where the options give no seed, all processes draw the same one."""
    if opt['manual_seed'] is None:
        # 1 to 10000 as in BasicSR.
        opt['manual_seed'] = from_first(random.randint(1, 10000) if default is None else default)
    set_random_seed(opt['manual_seed'] + opt['rank'])
    for dataset_opt in opt['datasets'].values():
        if issubclass(DATASET_REGISTRY.get(dataset_opt['type']), AllInOneDataset):
            dataset_opt.setdefault('seed', opt['manual_seed'])


def make_folders(opt: dict[str, Any], hint: str = '') -> None:
    """Makes the folders that results go to; an old one is kept under another name, which `hint` follows."""
    path = opt['path']
    if opt['rank'] == 0:
        root = path.get('experiments_root') or path['results_root']
        # Like BasicSR's `mkdir_and_rename`: nothing of an old experiment is replaced.
        kept = keep(root)
        if kept:
            logger.info(f'{os.path.relpath(root)} existed; it is kept as {os.path.relpath(kept)}{hint}')
        for key in {'log', 'visualization', 'models', 'training_states'} & path.keys():
            os.makedirs(path[key], exist_ok=True)
    if opt['dist']:
        dist.barrier()  # what another process saves sooner would be moved away with the old folder


def keep(path: str) -> str | None:
    """Gives a folder another name, if it exists; returns the name."""
    if not os.path.exists(path):
        return None
    archived = f'{path}_archived_{get_time_str()}'
    # The time has whole seconds, of which two short runs may share one.
    names = (archived, *(f'{archived}_{i}' for i in range(1, 1000)))
    kept = next(name for name in names if not os.path.exists(name))
    os.rename(path, kept)
    return kept


def start_log(opt: dict[str, Any]) -> None:
    """Starts the log file, which begins with all versions and options."""
    kind = 'train' if opt['is_train'] else 'test'
    console.open_log(os.path.join(opt['path']['log'], f'{kind}_{opt["name"]}_{get_time_str()}.log'))
    console.to_file(get_env_info())
    console.to_file(dict2str(opt))
