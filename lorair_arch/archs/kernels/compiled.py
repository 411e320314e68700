"""A network in training through torch.compile, and without it where that fails; `train.compile` switches it on."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from torch._functorch import config

logger = logging.getLogger('lorair_arch')


def compile_training(net: nn.Module) -> None:
    """Compiles what a network computes in training mode, once for each size of crops.

    The network stays the object that it was, with the same names of weights; in evaluation mode it runs as before, for
    validation images have many sizes. Should the compiler fail in any step, that step and all others run without it,
    and one warning says why.

    Args:
        net: The network, as it is or wrapped by DDP; it must not be copied afterwards. DataParallel copies it for every
            step: it is left alone, with a warning.
    """
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

    net.forward = forward


def _give_up(reason: str) -> None:
    logger.warning(f'train.compile: training goes on without it ({reason})')
