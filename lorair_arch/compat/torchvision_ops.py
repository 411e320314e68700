"""A torchvision built for CUDA, as package registries have it, beside a build of PyTorch for the CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable

# torchvision's own schemas of the operators that its Python half registers fakes for on import.
_MISSING_OPS = (
    'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
)
_LIBRARIES = []  # what is defined lives as long as they do


def load_with_operators(load: Callable[[], None]) -> None:
    """Imports torchvision also where its operators cannot be loaded.

    Neither BasicSR nor open_clip nor this package uses the operators; their schemas are enough for the import.

    Args:
        load: Executes the module of torchvision.
    """
    try:
        load()
    except RuntimeError as error:
        if 'operator torchvision::' not in str(error):
            raise
        import torch

        for name in [name for name in sys.modules if name.startswith('torchvision.')]:
            del sys.modules[name]
        _LIBRARIES.append(torch.library.Library('torchvision', 'FRAGMENT'))
        for schema in _MISSING_OPS:
            _LIBRARIES[-1].define(schema)
        load()
