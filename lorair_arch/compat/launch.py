"""How a process joins the others that a launcher has started."""

from __future__ import annotations

import os
import subprocess
import time
import uuid

import torch
from torch.distributed import PrefixStore, Store, TCPStore
from torch.distributed.constants import default_pg_timeout

from lorair_arch.errors import OptionsError


def torchrun_store() -> PrefixStore | None:
    """Gives the processes a part of torchrun's store that holds nothing of earlier processes.

    torchrun keeps its store when it starts its processes again. They would read addresses in it of processes that
    have ended, and fail (github.com/pytorch/pytorch/issues/135712); TORCHELASTIC_RESTART_COUNT does not help, as each
    node counts for itself.

    Returns:
        The store, or None if there is none of torchrun's.
    """
    # Another launcher: the first process then makes a store, which ends with it.
    if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return None
    address = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    # A client: torchrun's agent has the store, and keeps it.
    store = TCPStore(*address, is_master=False, timeout=default_pg_timeout)
    return PrefixStore(_agree(store, int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])), store)


def _agree(store: Store, rank: int, processes: int) -> str:
    """Gives all processes that are alive the same new name: the first one's, once all have answered to it."""
    me = uuid.uuid4().hex
    if rank == 0:
        store.set('lorair/first', me)
        # `get` waits for a key until it is there.
        answers = [store.get(f'lorair/{me}/{other}').decode() for other in range(1, processes)]
        store.set(f'lorair/{me}/all', ' '.join(answers))
        return me
    while True:
        first = store.get('lorair/first').decode()  # maybe one that has ended: it has not heard of this process
        store.set(f'lorair/{first}/{rank}', me)
        complete = f'lorair/{first}/all'
        # Complete, and with this very process in it, not one of its rank that has ended.
        if store.check([complete]) and me in store.get(complete).decode():
            return first
        time.sleep(0.05)


def init_dist(launcher: str, backend: str = 'nccl', port: int | None = None, **kwargs) -> None:
    """Joins the processes of a launcher; takes the place of `basicsr.utils.dist_util.init_dist`.

    Processes get the GPU of their local rank (BasicSR's `rank % num_gpus` is wrong on nodes with unequal numbers of
    processes), or gloo where there is no GPU.

    Args:
        launcher: 'pytorch' (torchrun sets the environment) or 'slurm'.
        backend: Used where a GPU is available; 'gloo' keeps the processes on the CPU there too.
        port: Master port, SLURM only; default: MASTER_PORT of the environment, else 29500.

    Raises:
        OptionsError: If the launcher's environment is missing or there are more processes than GPUs.
    """
    if launcher == 'slurm':
        _environment_from_slurm(port)
    elif launcher != 'pytorch':
        raise OptionsError(f"--launcher: found {launcher!r}, expected 'pytorch' or 'slurm'")
    _check_environment(
        ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
        '--launcher pytorch',
        'start the processes with torchrun --nproc_per_node=N -m lorair_arch train -opt FILE --launcher pytorch',
    )
    if backend == 'nccl' and torch.cuda.is_available():
        local_rank, gpus = int(os.environ.get('LOCAL_RANK', 0)), torch.cuda.device_count()
        # BasicSR would give two processes the same GPU, which NCCL refuses.
        if local_rank >= gpus:
            raise OptionsError(
                f'--launcher {launcher}: process {local_rank} of this machine has no GPU of its own, only {gpus} are '
                f'available; start at most {gpus} processes here'
            )
        torch.cuda.set_device(local_rank)
        # NCCL is not safe with forked data workers (PyTorch's notes on DistributedDataParallel).
        if torch.multiprocessing.get_start_method(allow_none=True) is None:
            torch.multiprocessing.set_start_method('spawn')
    else:
        backend = 'gloo'
    store = torchrun_store() if launcher == 'pytorch' else None
    if store:
        # With a store PyTorch reads neither rank nor number from the environment.
        kwargs |= {'store': store, 'rank': int(os.environ['RANK']), 'world_size': int(os.environ['WORLD_SIZE'])}
    torch.distributed.init_process_group(backend=backend, **kwargs)


def _environment_from_slurm(port: int | None) -> None:
    """Sets torch.distributed's variables from those that SLURM gives to each task."""
    names = ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS', 'SLURM_NODELIST')
    _check_environment(names, '--launcher slurm', 'start the command with srun')
    # SLURM writes its nodes short, such as node[1-3,7].
    command = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
    try:
        hosts = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise OptionsError(
            f'--launcher slurm: {" ".join(command)} cannot be run ({error}); start the command with srun, on a node '
            'that has the tools of SLURM'
        ) from error
    os.environ['MASTER_ADDR'] = hosts.stdout.split()[0]
    if port is not None:
        os.environ['MASTER_PORT'] = str(port)
    os.environ.setdefault('MASTER_PORT', '29500')  # PyTorch's own default, as in BasicSR
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['LOCAL_RANK'] = os.environ['SLURM_LOCALID']


def _check_environment(names: tuple[str, ...], flag: str, remedy: str) -> None:
    for name in names:
        if name not in os.environ:
            raise OptionsError(f'{flag}: the variable {name} is not set; {remedy}')
