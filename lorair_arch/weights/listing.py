"""`lorair weights`: a table of the weights that have a name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lorair_arch import weights as zoo
from lorair_arch.weights import hub
from lorair_arch.weights.downloads import in_words


def table() -> str:
    """Gives a table of the zoo, of releases, and of those in the cache of the hub's client that are LoRA-IR's."""
    from tabulate import tabulate

    return tabulate(rows(), headers='keys')


def rows() -> Iterator[dict[str, str]]:
    """Gives name, size, licence, degradations and place of each."""
    for name in zoo.shipped():
        [folder] = zoo.located(name)
        files = sorted(folder.glob('*.safetensors'))
        yield _row(name, _size(files), 'Apache-2.0', _degradations(files), folder)
    for name, release in zoo.RELEASES.items():
        files = release.repository.local()
        where = files[0].parent if files else f'no; {release.repository.page}'
        yield _row(name, _size(files) if files else release.size, release.licence, release.degradations, where)
    others = {release.repository.name for release in zoo.RELEASES.values()}
    for repository in hub.cached():
        files = repository.local()
        trained = _degradations(files)
        if repository.name not in others and trained is not None:
            name = repository.name + ('' if repository.revision == 'main' else f'@{repository.revision}')
            yield _row(name, _size(files), 'see its page', trained, files[0].parent)


def _row(name: str, size: str, licence: str, degradations: Iterable[str] | None, where: Any) -> dict[str, str]:
    trained = ', '.join(degradations or ()) or '-'
    return {'name': name, 'size': size, 'licence': licence, 'trained for': trained, 'on this machine': str(where)}


def _size(files: list[Path]) -> str:
    return in_words(sum(file.stat().st_size for file in files)) if files else '-'


def _degradations(files: list[Path]) -> list[str] | None:
    """Gives what files were trained for, [] if they do not say it, or None if they are not LoRA-IR's."""
    if files and (config := hub.read_config(files[0].with_name(hub.CONFIG))):
        return config.get('degradations') or []
    from lorair_arch.weights.files import read_description  # needs PyTorch

    found = [description for file in files if (description := read_description(file))]
    return next((names for description in found if (names := description.get('degradations'))), []) if found else None
