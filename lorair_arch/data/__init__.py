"""Data sets, registered in BasicSR's `DATASET_REGISTRY`, and what they are made of."""

from importlib import import_module
from pathlib import Path

from lorair_arch import compat

compat.apply()

for _file in sorted(Path(__file__).parent.glob('*_dataset.py')):
    import_module(f'{__name__}.{_file.stem}')
