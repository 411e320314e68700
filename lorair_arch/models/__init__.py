"""Model classes, registered in BasicSR's `MODEL_REGISTRY`."""

from importlib import import_module
from pathlib import Path

from lorair_arch import compat

compat.apply()

for _file in sorted(Path(__file__).parent.glob('*_model.py')):
    import_module(f'{__name__}.{_file.stem}')
