"""Losses, registered in BasicSR's `LOSS_REGISTRY`."""

from importlib import import_module
from pathlib import Path

from lorair_arch import compat

compat.apply()

for _file in sorted(Path(__file__).parent.glob('*_loss.py')):
    import_module(f'{__name__}.{_file.stem}')
