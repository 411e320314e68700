"""Several runs in the processes of one torchrun, because processes take longer to start than these runs take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lorair_arch.models.lorair_model import RestorationModel
from lorair_arch.training import test as testing
from lorair_arch.training import train as training
from tests.miniature import REPO, run


def launch(folder: Path, count: int, jobs: list[dict[str, Any]]) -> subprocess.CompletedProcess:
    """Runs `do` for each job, one after another, in `count` processes on CPUs."""
    torchrun = ('-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={count}')
    return run(folder, json.dumps(jobs), python=(*torchrun, '-m', 'tests.processes'))


def start(folder: Path, script: str, *args: str, **env: str) -> subprocess.Popen:
    """Starts one of scripts/ in a folder."""
    env = os.environ | {'PYTHONPATH': str(REPO), 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'} | env
    command = ['bash', REPO / 'scripts' / script, *args]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen) -> subprocess.CompletedProcess:
    """Waits for a script; ends it if it hangs."""
    with process:
        try:
            out, err = process.communicate(timeout=300)
        finally:
            process.terminate()  # torchrun then ends its processes
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def do(command: str, file: str, one_expert_each: bool = False, **kwargs: Any) -> None:
    """Runs an options file; with `one_expert_each` a process uses one expert alone."""
    before = RestorationModel.guide
    if one_expert_each:
        RestorationModel.guide = _guide_by_place
    try:
        (training if command == 'train' else testing).run(file, **kwargs)
    finally:
        RestorationModel.guide = before


def _guide_by_place(self: RestorationModel, guide=RestorationModel.guide) -> None:
    """Sends the images that process r of 2 has, or would have, to expert r."""
    guide(self)
    rank, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    places = rank + processes * torch.arange(len(self.lq))
    self.logits = torch.nn.functional.one_hot(places % 2, 2).float()


def _refuse_to_write(event: str, args: tuple) -> None:
    """Audit hook: only the first process may write below the current folder (but the images that it has validated)."""
    if event == 'open' and args[2] & (os.O_WRONLY | os.O_RDWR) and not isinstance(args[0], int):
        path = os.path.abspath(os.fsdecode(args[0]))
        if path.startswith(os.getcwd()) and f'{os.sep}visualization{os.sep}' not in path:
            raise AssertionError(f'process {dist.get_rank()} writes {path}')


if __name__ == '__main__':
    if os.environ['RANK'] != '0':
        sys.addaudithook(_refuse_to_write)
    for job in json.loads(sys.argv[1]):
        do(launcher='pytorch', **job)
