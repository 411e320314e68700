"""Downloads from a hub that go on where they stopped, and what may be wrong with them, a sentence each.

huggingface_hub asks, and keeps the cache (HF_HOME). The bytes are fetched here, as its version 2 begins a download that
was stopped from its start: they go to `blobs/SHA.lorair.incomplete` of the cache, where the next start goes on, and
which becomes `blobs/SHA` once it has the size and the checksum that the hub names; there the client finds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lorair_arch.errors import CheckpointError
from lorair_arch.files import WRITE_ERRORS

if TYPE_CHECKING:
    from lorair_arch.weights.hub import Repository

logger = logging.getLogger('lorair_arch')

_PARTIAL = '.lorair.incomplete'  # not the client's own: Xet leaves holes in those
_LOGIN = '`hf auth login`, or set HF_TOKEN'
_HASHES = {64: 'sha256', 40: 'sha1'}  # by the length of the hub's ETag: large files, and those that git keeps


def download(repository: Repository, commit: str, files: list[str], check: Callable[[Path], None]) -> None:
    """Downloads files of a commit into the client's cache, one after another, with progress bars.

    Args:
        repository: Where they are.
        commit: Its id.
        files: Their names.
        check: Looks at each file, and raises what is wrong with it, before the next one is downloaded.

    Raises:
        CheckpointError: The hub cannot be reached, refuses, or sends something else than it says; or the disk is full
            or cannot be written. What has come is kept for the next start.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    with talking(repository):
        urls = {file: hf_hub_url(repository.name, file, revision=commit) for file in files}
        known = {file: get_hf_file_metadata(url) for file, url in urls.items()}
        if not all(re.fullmatch(r'[\w-]+', meta.etag or '') and meta.size is not None for meta in known.values()):
            raise ValueError('an ETag becomes the name of a file')
    blobs = repository.folder / 'blobs'
    with writing_cache():
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
        check(_fetch(repository, commit, file, urls[file], meta.etag, meta.size))


def _fetch(repository: Repository, commit: str, file: str, url: str, etag: str, size: int) -> Path:
    """Downloads one file to where the client looks for it, and lets the client enter it in the cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    blob = repository.folder / 'blobs' / etag
    partial = blob.with_name(etag + _PARTIAL)
    lock = repository.folder.parent / '.locks' / repository.folder.name / f'{etag}.lock'
    with writing_cache():
        lock.parent.mkdir(parents=True, exist_ok=True)
    # Of several starts at once one downloads, the others wait.
    with writing_cache(), WeakFileLock(lock):
        if not blob.exists():
            if _size(partial) > size:
                partial.unlink()
            with talking(repository, partial, size), partial.open('ab') as stream:
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
    with talking(repository):
        return Path(hf_hub_download(repository.name, file, revision=commit))


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


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def in_words(size: int) -> str:
    """Gives a number of bytes as people say it."""
    unit, name = next((u for u in ((1e9, 'GB'), (1e6, 'MB')) if size >= u[0]), (1e3, 'kB'))
    return f'{size / unit:.1f} {name}'


@contextlib.contextmanager
def writing_cache() -> Iterator[None]:
    """Says in a sentence what the disk has against the cache."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(_no_cache(error)) from error


@contextlib.contextmanager
def talking(repository: Repository, partial: Path | None = None, size: int = 0) -> Iterator[None]:
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
