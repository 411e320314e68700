"""Metrics, registered in BasicSR's `METRIC_REGISTRY`."""

from importlib import import_module
from pathlib import Path

from lorair_arch import compat

compat.apply()

for _file in sorted(Path(__file__).parent.glob('*_metric.py')):
    import_module(f'{__name__}.{_file.stem}')
