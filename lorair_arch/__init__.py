"""LoRA-IR for BasicSR: all-in-one image restoration with low-rank experts (arXiv 2410.15385).

Importing the package registers its networks, models, data sets, losses and metrics with BasicSR.
"""

import sys
from importlib import import_module
from pathlib import Path

__version__ = '0.1.0'
__all__ = ['Restorer', 'register']


def register() -> None:
    """Registers everything with BasicSR; more than once does no harm."""
    for part in ('archs', 'data', 'losses', 'metrics', 'models'):
        import_module(f'{__name__}.{part}')


def __getattr__(name: str):
    if name == 'Restorer':
        return import_module(f'{__name__}.restorer').Restorer
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


# The commands register when they know what to do: their --help must not wait for PyTorch.
if Path(sys.argv[0]).stem not in ('basicsr', 'lorair', '-m'):
    register()
