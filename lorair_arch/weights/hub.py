"""Repositories of weights on a hub (huggingface.co, or HF_ENDPOINT), and what of them is in the cache of its client."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lorair_arch.errors import CheckpointError
from lorair_arch.weights.downloads import download, talking, writing_cache

logger = logging.getLogger('lorair_arch')

SINGLE, CONFIG = 'model.safetensors', 'config.json'
_SUFFIXES = ('.safetensors', '.pth')
_REPO = re.compile(r'(?P<repo>\w[\w.-]*/\w[\w.-]*?)(@(?P<revision>\w[\w./-]*))?')


class Repository(NamedTuple):
    """A repository of a hub.

    Attributes:
        name: 'user/repo'.
        revision: A branch, a tag or a commit.
        files: Those that are wanted; None: what `needed` says.
        title: What to call it in messages.
    """

    name: str
    revision: str = 'main'
    files: tuple[str, ...] | None = None
    title: str = ''

    @classmethod
    def parsed(cls, name: str) -> Repository | None:
        """Reads 'user/repo' or 'user/repo@revision'; None: it is something else, such as the path of a file."""
        found = _REPO.fullmatch(name)
        if not found or found['repo'].endswith(('.pt', *_SUFFIXES)) or '..' in name:
            return None
        return cls(found['repo'], found['revision'] or 'main', title=f'{name!r}, no file or folder here,')

    @property
    def page(self) -> str:
        from huggingface_hub import constants

        return f'{constants.ENDPOINT}/{self.name}'

    @property
    def folder(self) -> Path:
        """Its folder in the client's cache."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=self.name, repo_type='model'))

    def pinned(self) -> bool:
        """Tells whether what is here never gets old: a commit, or files that a release of this package names."""
        return self.files is not None or bool(re.fullmatch('[0-9a-f]{40}', self.revision))

    def local(self) -> list[Path]:
        """Gives the files of weights that are on this machine, all or none; asks nobody."""
        commit = self.revision
        with contextlib.suppress(OSError):
            commit = (self.folder / 'refs' / self.revision).read_text().strip()
        snapshot = self.folder / 'snapshots' / commit
        if not snapshot.is_dir():
            return []
        found = self.files or needed(path.name for path in snapshot.iterdir())
        paths = [snapshot / file for file in found if file != CONFIG]
        return paths if all(path.exists() for path in paths) else []


def needed(files: Iterable[str]) -> list[str]:
    """Chooses from the files of a repository those that restoring needs: the single file, else all of one kind."""
    files = sorted(file for file in files if '/' not in file)
    if SINGLE in files:
        # First what is small: it tells whether the large one is worth the while.
        return [file for file in (CONFIG, SINGLE) if file in files]
    return next((found for suffix in _SUFFIXES if (found := [f for f in files if f.endswith(suffix)])), [])


def cached() -> Iterator[Repository]:
    """Gives the repositories in the client's cache that hold files of weights, anybody's."""
    from huggingface_hub import constants

    for ref in sorted(Path(constants.HF_HUB_CACHE).glob('models--*--*/refs/**/*')):
        if ref.is_file():
            folder = next(path for path in ref.parents if path.name.startswith('models--'))
            name = folder.name.removeprefix('models--').replace('--', '/', 1)
            repository = Repository(name, ref.relative_to(folder / 'refs').as_posix())
            if repository.local():
                yield repository


def fetch(repository: Repository) -> list[Path]:
    """Gives the files of weights of a repository, and downloads what is not on this machine, with a progress bar.

    What is pinned (see `Repository`) and here is not asked for again. Of the others the hub is asked for the newest
    commit, in one request; if that fails, what is here is used, with a warning.

    Raises:
        CheckpointError: The hub cannot be reached, refuses, lacks the files, or sends others than it says; or they
            cannot be written. What has come is kept for the next start.
    """
    from huggingface_hub import constants

    with writing_cache():
        local = repository.local()
    if local and (repository.pinned() or constants.HF_HUB_OFFLINE):
        return local
    try:
        return _newest(repository)
    except CheckpointError as error:
        if not local:
            raise
        logger.warning(f'{error}; meanwhile the copy on this machine is used')
        return local


def check_name(name: str) -> None:
    """Raises a CheckpointError if a repository cannot have this name."""
    found = Repository.parsed(name)
    if not found or found.name != name:  # also of one with a revision
        raise CheckpointError(f'{name!r} is no name of a repository: names are user/repo')


def push(folder: Path, name: str, private: bool = False) -> str:
    """Uploads a folder of weights (`bundle.save_folder`) as one commit; a model card that is there stays as it is.

    Args:
        folder: The folder.
        name: 'user/repo'; made if there is none.
        private: Whether a repository that is made is only seen by its owner.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: The hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    with talking(Repository(name)):
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        card = 'README.md'
        written = [card] if api.file_exists(name, card) else None
        return api.upload_folder(
            repo_id=name, folder_path=folder, commit_message='Weights of LoRA-IR', ignore_patterns=written
        ).commit_url


def _newest(repository: Repository) -> list[Path]:
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    name, revision = repository.name, repository.revision
    with talking(repository):
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        info = HfApi().model_info(name, revision=revision, timeout=timeout)
        if not info.sha:
            raise ValueError('no hub')
        commit, there = info.sha, [file.rfilename for file in info.siblings or ()]
    files = repository.files or needed(there)
    lacking = [file for file in files if file not in there]
    if lacking or not files:
        what = f'has no file {lacking[0]}' if lacking else f'has no file that ends in {" or ".join(_SUFFIXES)}'
        raise CheckpointError(f'{repository.page} {what} ({revision}): it holds no weights of LoRA-IR, see its page')
    missing = [file for file in files if not isinstance(try_to_load_from_cache(name, file, revision=commit), str)]
    if missing:
        download(repository, commit, missing, check=lambda path: _check(repository, path))
    _remember(repository, commit)
    snapshot = repository.folder / 'snapshots' / commit
    return [snapshot / file for file in files if file != CONFIG]


def _check(repository: Repository, path: Path) -> None:
    """Refuses the weights of something else by their config.json, before they are downloaded."""
    if path.name == CONFIG and not read_config(path):
        raise CheckpointError(
            f'{repository.page} holds the weights of something else: its {CONFIG} describes no router and restorer of '
            'LoRA-IR; choose another repository'
        )


def read_config(path: Path) -> dict[str, Any]:
    """Reads config.json beside a single file of weights; gives nothing if it is not one of LoRA-IR's."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and content.keys() >= {'router', 'restorer'} else {}


def _remember(repository: Repository, commit: str) -> None:
    """Notes the commit of a branch, when all of its files are here: it is what a start without network finds."""
    ref = repository.folder / 'refs' / repository.revision
    if commit == repository.revision or (ref.is_file() and ref.read_text() == commit):
        return
    with contextlib.suppress(OSError):  # a cache that can only be read serves as well
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)
