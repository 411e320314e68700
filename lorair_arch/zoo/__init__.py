"""The zoo: trained weights that come with the package, each a folder beside this file, named like its weights.

`scripts/train_zoo.sh` makes them; MODEL_CARD.md says of what, how, and how good they are.
"""

from __future__ import annotations

import os
from pathlib import Path

from lorair_arch.errors import CheckpointError

DEFAULT = 'lorair-tiny'
_ROOT = Path(__file__).parent


def names() -> list[str]:
    """Gives the names of the weights in the zoo."""
    return sorted(file.parent.name for file in _ROOT.glob('*/router.safetensors'))


def located(name_or_path: str | os.PathLike) -> Path:
    """Gives the folder of weights of the zoo, or any other path as it is. A path that exists goes before a name.

    Raises:
        CheckpointError: It looks like a name, but is none in the zoo.
    """
    path = Path(name_or_path).expanduser()
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    if str(path) not in names():
        known = ', '.join(names()) or 'none has been trained yet (scripts/train_zoo.sh), name your own'
        raise CheckpointError(f'{str(path)!r} is neither a file nor a folder, nor the name of weights: {known}')
    return _ROOT / path
