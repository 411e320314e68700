"""Weights of a hub (huggingface.co, or HF_ENDPOINT): in the cache of its client, or downloaded there and checked.

huggingface_hub asks, and keeps the cache (HF_HOME). The bytes are fetched here, as its version 2 begins a download that
was stopped from its start: they go to `blobs/SHA.lorair.incomplete` of the cache, where the next start goes on, and
which becomes `blobs/SHA` once it has the size and the checksum that the hub names; there the client finds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lorair_arch.errors import CheckpointError
from lorair_arch.files import WRITE_ERRORS

logger = logging.getLogger('lorair_arch')

SINGLE, CONFIG = 'model.safetensors', 'config.json'
_PARTIAL = '.lorair.incomplete'  # not the client's own: Xet leaves holes in those
_SUFFIXES = ('.safetensors', '.pth')
_REPO = re.compile(r'(?P<repo>\w[\w.-]*/\w[\w.-]*?)(@(?P<revision>\w[\w./-]*))?')
_LOGIN = '`hf auth login`, or set HF_TOKEN'
_HASHES = {64: 'sha256', 40: 'sha1'}  # by the length of the hub's ETag: large files, and those that git keeps


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


def _newest(repository: Repository) -> list[Path]:
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    name, revision = repository.name, repository.revision
    with _talking(repository):
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        info = HfApi().model_info(name, revision=revision, timeout=timeout)
        commit, there = str(info.sha), [file.rfilename for file in info.siblings or ()]
    files = repository.files or needed(there)
    lacking = [file for file in files if file not in there]
    if lacking or not files:
        what = f'has no file {lacking[0]}' if lacking else f'has no file that ends in {" or ".join(_SUFFIXES)}'
        raise CheckpointError(f'{repository.page} {what} ({revision}): it holds no weights of LoRA-IR, see its page')
    missing = [file for file in files if not isinstance(try_to_load_from_cache(name, file, revision=commit), str)]
    if missing:
        _download(repository, commit, missing)
    _remember(repository, commit)
    snapshot = repository.folder / 'snapshots' / commit
    return [snapshot / file for file in files if file != CONFIG]


def _download(repository: Repository, commit: str, files: list[str]) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    with _talking(repository):
        urls = {file: hf_hub_url(repository.name, file, revision=commit) for file in files}
        known = {file: get_hf_file_metadata(url) for file, url in urls.items()}
        if any(meta.etag is None or meta.size is None for meta in known.values()):
            raise ValueError  # no hub
    blobs = repository.folder / 'blobs'
    with _writing():
        blobs.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(blobs).free
    total = sum(meta.size for meta in known.values())
    here = sum(_size(blobs / name) for meta in known.values() for name in (meta.etag, meta.etag + _PARTIAL))
    if total - here > free:
        raise CheckpointError(
            f'{repository.page}: {in_words(total - here)} are to be downloaded, but the disk of {blobs} has '
            f'{in_words(free)} free; free some space, or set HF_HOME to a folder of another disk'
        )
    going_on = f', {in_words(here)} of them are here already' if here else ''
    logger.info(f'{repository.page}: {in_words(total)} are downloaded to {repository.folder}{going_on}')
    for file, meta in known.items():
        _fetch(repository, commit, file, urls[file], meta.etag, meta.size)


def _fetch(repository: Repository, commit: str, file: str, url: str, etag: str, size: int) -> None:
    """Downloads one file to where the client looks for it, and lets the client enter it in the cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    blob = repository.folder / 'blobs' / etag
    partial = blob.with_name(etag + _PARTIAL)
    lock = repository.folder.parent / '.locks' / repository.folder.name / f'{etag}.lock'
    with _writing():
        lock.parent.mkdir(parents=True, exist_ok=True)
    # Of several starts at once one downloads, the others wait.
    with _writing(), WeakFileLock(lock):
        if not blob.exists():
            if _size(partial) > size:
                partial.unlink()
            with _talking(repository, partial, size), partial.open('ab') as stream:
                here = {'resume_size': stream.tell(), 'expected_size': size}
                http_get(url, stream, headers=build_hf_headers(), displayed_filename=file, **here)
                stream.flush()
                os.fsync(stream.fileno())
            if not _is_whole(partial, etag, size):
                partial.unlink()
                raise CheckpointError(
                    f'{repository.page}: what came as {file} is not what the hub announced (its checksum differs) and '
                    'was removed; start again, and see to the network or the proxy if it happens twice'
                )
            os.replace(partial, blob)
    with _talking(repository):
        path = hf_hub_download(repository.name, file, revision=commit)
    if file == CONFIG:
        _check_config(repository, Path(path))


def _is_whole(path: Path, etag: str, size: int) -> bool:
    """Compares a file with what the hub says of it; an ETag of another hub may be no checksum."""
    if _size(path) != size:
        return False
    if len(etag) not in _HASHES:
        return True
    digest = hashlib.new(_HASHES[len(etag)], b'' if len(etag) == 64 else b'blob %d\0' % size, usedforsecurity=False)
    with path.open('rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == etag


def _check_config(repository: Repository, path: Path) -> None:
    """Refuses the weights of something else before they are downloaded."""
    if not read_config(path):
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


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def in_words(size: int) -> str:
    """Gives a number of bytes as people say it."""
    unit, name = next((u for u in ((1e9, 'GB'), (1e6, 'MB')) if size >= u[0]), (1e3, 'kB'))
    return f'{size / unit:.1f} {name}'


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Says in a sentence what the disk has against the cache."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(_no_cache(error)) from error


@contextlib.contextmanager
def _talking(repository: Repository, partial: Path | None = None, size: int = 0) -> Iterator[None]:
    """Says in a sentence what went wrong between the client and the hub; the client itself is silent meanwhile.

    Args:
        repository: Asked for.
        partial: The file that is being downloaded, of `size` bytes.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import logging as client

    level = client.get_verbosity()
    client.set_verbosity_error()
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # what the HTTP library of the client's version raises, one of three
        if isinstance(error, OSError) and error.errno in WRITE_ERRORS:
            raise CheckpointError(_no_cache(error)) from error
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        title = repository.title or f"'{repository.name}'"
        if partial and getattr(cause, 'response', None) is None:
            raise CheckpointError(
                f'the download of {repository.page} broke off at {in_words(_size(partial))} of {in_words(size)} '
                f'({type(cause).__name__}): start again, it goes on from there'
            ) from error
        raise CheckpointError(f'{title} cannot be had from {constants.ENDPOINT}: {_why(cause, repository)}') from error
    finally:
        client.set_verbosity(level)


def _no_cache(error: OSError) -> str:
    from huggingface_hub import constants

    remedy = WRITE_ERRORS.get(error.errno, 'check the disk and the path')
    what = f'{error.strerror or error}{f" ({error.filename})" if error.filename else ""}'
    cache = constants.HF_HUB_CACHE
    return f"the hub's cache {cache} cannot be used: {what}; {remedy}, or set HF_HOME to another folder"


def _why(error: BaseException, repository: Repository) -> str:
    """Gives the reason why the hub did not do what it was asked, and what to do."""
    from huggingface_hub import constants, errors

    status = getattr(getattr(error, 'response', None), 'status_code', None)
    kind = type(error).__name__
    if isinstance(error, errors.OfflineModeIsEnabled):
        return 'HF_HUB_OFFLINE is set and it is not on this machine; unset it for one start'
    if isinstance(error, errors.GatedRepoError):
        return f'its authors want to be asked; do so on {repository.page}, then {_LOGIN}'
    if isinstance(error, errors.RepositoryNotFoundError):
        return f'there is no such repository, or it is private; check the name, or {_LOGIN}'
    if isinstance(error, errors.RevisionNotFoundError):
        return f'it has no revision {repository.revision!r}; its page lists them: {repository.page}/tree/main'
    if isinstance(error, errors.HFValidationError):
        return 'this is no name of a repository; names are user/repo'
    if status in (401, 403):
        return f'access is refused ({status}); {_LOGIN}'
    if status:
        remedy = 'try again later' if status == 429 or status >= 500 else f'see {repository.page}'
        return f'it answers with error {status}; {remedy}'
    if 'Timeout' in kind:
        return 'it does not answer in time; try again later, or set HF_HUB_ETAG_TIMEOUT to more seconds'
    if isinstance(error, (ValueError, TypeError, errors.FileMetadataError)):
        return 'what answers there is no hub; check HF_ENDPOINT, and the proxy'
    proxy = ' or the proxy' if constants.ENDPOINT.startswith('https') else ''
    return f'there is no connection ({kind}); check the network{proxy}, or name files that are on this machine'
