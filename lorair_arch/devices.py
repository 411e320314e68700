"""Which device to use, in which precision it is fast, and compiling for it: the one place that asks."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from lorair_arch.errors import OptionsError, did_you_mean

logger = logging.getLogger('lorair_arch')

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


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
        # PyTorch counts emulation as support unless it is told not to.
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == 'mps':
        return torch.backends.mps.is_macos_or_newer(14, 0)
    # On a CPU with AVX2 alone, a step in bf16 took 14 to 18 times as long as one in float32.
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def choose_precision(wanted: str | None, kind: str) -> str:
    """Chooses the precision of restoring on a kind of device, one of `PRECISIONS`, or checks what is wanted.

    Raises:
        OptionsError: There is no such precision, or it is slow there.
    """
    if wanted is None:
        return 'bf16' if kind == 'cuda' and has_bf16(kind) else 'fp32'
    if wanted not in PRECISIONS:
        raise OptionsError(f'precision is {wanted!r}{did_you_mean(wanted, PRECISIONS)}')
    if (wanted == 'bf16' and not has_bf16(kind)) or (wanted == 'fp16' and kind == 'cpu'):
        raise OptionsError(f'precision {wanted} would take many times as long as fp32 on this {kind.upper()}: use fp32')
    return wanted


def compile_training(net: nn.Module) -> None:
    """Compiles what a network computes in training mode, once for each size of crops.

    The network stays the object that it was, with the same names of weights; in evaluation mode it runs as before, for
    validation images have many sizes. Should the compiler fail in any step, that step and all others run without it,
    and one warning says why.

    Args:
        net: The network, as it is or wrapped by DDP; it must not be copied afterwards. DataParallel copies it for every
            step: it is left alone, with a warning.
    """
    from torch._functorch import config  # not before it is needed: it takes a while

    if isinstance(net, nn.DataParallel):
        _give_up('several GPUs need a process each, started by torchrun')
        return
    if not hasattr(config, 'force_non_lazy_backward_lowering'):
        _give_up(f'PyTorch {torch.__version__} compiles the backward pass too late to do without it; update PyTorch')
        return
    net = getattr(net, 'module', net)
    # with the forward pass, so that a failure does not come in the middle of a step
    config.force_non_lazy_backward_lowering = True
    plain = net.forward
    # Crops have one size, for which the code is made; else a second size makes code for any.
    compiled = torch.compile(plain, dynamic=False)

    def forward(*args: Any) -> Any:
        nonlocal compiled
        if compiled is None or not net.training:
            return plain(*args)
        try:
            return compiled(*args)
        except Exception as error:  # a compiler can raise anything; a mistake of the network's own comes again below
            compiled = None
            error = getattr(error, 'inner_exception', error)
            _give_up(f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}')
        return plain(*args)

    # On the instance: `torch.compile(net)` would put _orig_mod before the names of all weights.
    net.forward = forward


def _give_up(reason: str) -> None:
    logger.warning(f'train.compile: training goes on without it ({reason})')
