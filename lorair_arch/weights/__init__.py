"""Weights: recognising, loading, converting; and those that have a name.

The zoo are those that come with the package, each a folder in `zoo/`: `scripts/train_zoo.sh` makes them. Releases are
others' weights, at their authors' place on a hub.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from lorair_arch.errors import CheckpointError, did_you_mean
from lorair_arch.weights.hub import SINGLE, Repository, fetch

DEFAULT = 'lorair-tiny'
_ROOT = Path(__file__).parent / 'zoo'


class Release(NamedTuple):
    """Weights that others have released.

    Attributes:
        repository: Where they are.
        degradations: What they were trained for, in the order of the classes, where the files do not say it.
        licence: By its authors' word.
        size: Roughly, before they are here.
    """

    repository: Repository
    degradations: list[str]
    licence: str
    size: str


RELEASES = {
    'setting1': Release(
        Repository('shallowdream204/LoRA-IR', files=('setting1_router.pth', 'setting1_ir.pth'), title="'setting1'"),
        ['snow', 'rain', 'raindrop'],
        'Apache-2.0',
        'about 0.9 GB',
    )
}


def shipped() -> list[str]:
    """Gives the names of the weights in the zoo."""
    return sorted(file.parent.name for file in _ROOT.glob(f'*/{SINGLE}'))


def names() -> list[str]:
    """Gives the names of weights that can be asked for: those of the zoo, and of releases."""
    return sorted({*shipped(), *RELEASES})


def located(name_or_path: str | os.PathLike) -> list[Path]:
    """Gives the files that a name of weights stands for, or their folder; any other path as it is.

    A path that exists goes before a name. Weights of a hub, releases or 'user/repo' or 'user/repo@revision', are
    downloaded if they are not here (see `hub.fetch`).

    Raises:
        CheckpointError: It looks like a name, but is none of those that are known; or as `hub.fetch`.
    """
    path = Path(name_or_path).expanduser()
    name = os.fspath(name_or_path)
    if path.exists():
        return [path]
    if name in shipped():
        return [_ROOT / name]
    repository = RELEASES[name].repository if name in RELEASES else Repository.parsed(name)
    if repository:
        return fetch(repository)
    # A path that does not exist is reported as a missing file, not as an unknown name.
    if path.suffix or len(path.parts) > 1:
        return [path]
    raise CheckpointError(
        f'{name!r} is neither a file nor a folder, nor the name of weights{did_you_mean(name, names())}'
    )


def degradations(name: str | os.PathLike) -> list[str] | None:
    """Gives the degradations that weights by this name were trained for, if their files do not say it."""
    release = RELEASES.get(os.fspath(name))
    return release.degradations if release and not Path(name).exists() else None


def __getattr__(name: str):
    if name in ('convert_official', 'convert_to_official'):  # which need PyTorch
        return getattr(import_module(f'{__name__}.official'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
