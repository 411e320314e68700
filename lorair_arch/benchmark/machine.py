"""What a measurement must be read with: processor, cores, threads, versions."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

import lorair_arch


def describe_machine(device: str) -> dict:
    """Describes this machine and what runs on it; `device` is 'cpu' or 'cuda'."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    machine = {
        'device': device,
        'cpu': _cpu_name(),
        'cores': cores,
        'threads': torch.get_num_threads(),
        'lorair': lorair_arch.__version__,
        'torch': torch.__version__,
        'python': platform.python_version(),
        'system': platform.platform(),
    }
    if device == 'cuda':
        machine |= {
            'gpu': torch.cuda.get_device_name(),
            'cuda': torch.version.cuda,
            'cudnn': torch.backends.cudnn.version(),
            'tf32': torch.backends.cuda.matmul.allow_tf32,
        }
    return machine


def _cpu_name() -> str:
    info = Path('/proc/cpuinfo')
    if info.exists():
        for line in info.read_text(encoding='utf-8').splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()
