"""Weights: recognising, loading, converting; and the zoo, those that come with the package, each a folder in `zoo/`.

`scripts/train_zoo.sh` makes the weights of the zoo; none are shipped yet.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from lorair_arch.errors import CheckpointError

DEFAULT = 'lorair-tiny'
_ROOT = Path(__file__).parent / 'zoo'


def names() -> list[str]:
    """Gives the names of the weights in the zoo."""
    return sorted(file.parent.name for file in _ROOT.glob('*/router.safetensors'))


def located(name_or_path: str | os.PathLike) -> Path:
    """Gives the folder of weights of the zoo, or any other path as it is. A path that exists goes before a name.

    Raises:
        CheckpointError: It looks like a name, but is none in the zoo.
    """
    path = Path(name_or_path).expanduser()
    # A path that does not exist is reported as a missing file, not as an unknown name.
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    if str(path) not in names():
        known = ', '.join(names()) or 'none has been trained yet (scripts/train_zoo.sh), name your own'
        raise CheckpointError(f'{str(path)!r} is neither a file nor a folder, nor the name of weights: {known}')
    return _ROOT / path


def __getattr__(name: str):
    if name in ('convert_official', 'convert_to_official'):  # which need PyTorch
        return getattr(import_module(f'{__name__}.official'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
