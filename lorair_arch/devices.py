"""Which device to use, and in which precision it is fast: the one place that asks."""

from __future__ import annotations

import torch


def gpu_count(distributed: bool = False) -> int:
    """Gives the number of GPUs of this machine; Apple's (`mps`) is one.

    Args:
        distributed: Of those that processes of a launcher can share their gradients with: CUDA's alone.
    """
    cuda = torch.cuda.device_count()
    return cuda or int(torch.backends.mps.is_available() and not distributed)


def device_name(gpus: int | None = None) -> str:
    """Gives the kind of device to use: 'cuda', 'mps' or 'cpu'.

    Args:
        gpus: How many GPUs are wanted, `num_gpu` of the options; None: as many as there are.
    """
    if gpus == 0:
        return 'cpu'
    if torch.cuda.is_available():
        return 'cuda'
    return 'mps' if torch.backends.mps.is_available() else 'cpu'


def synchronize() -> None:
    """Waits for what the GPU has been given, if there is one."""
    name = device_name()
    if name != 'cpu':
        getattr(torch, name).synchronize()


def has_bf16(kind: str) -> bool:
    """Tells whether a kind of device computes in bfloat16 by itself; emulation takes many times as long as float32."""
    if kind == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == 'mps':
        return torch.backends.mps.is_macos_or_newer(14, 0)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
