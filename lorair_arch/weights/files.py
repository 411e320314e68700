"""Files of weights on disk: nothing unsafe is unpickled, nothing is left half-written."""

from __future__ import annotations

import errno
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from lorair_arch.errors import CheckpointError, unsafe_pickle
from lorair_arch.files import cannot_write, writing

_MAGIC = {
    b'\x89PNG': 'a PNG image',
    b'\xff\xd8\xff': 'a JPEG image',
    b'GIF8': 'a GIF image',
    b'BM': 'a BMP image',
    b'RIFF': 'a WebP image or a RIFF file',
    b'II*\0': 'a TIFF image',
    b'MM\0*': 'a TIFF image',
    b'\x1f\x8b': 'a gzip archive',
    b'\x89HDF': 'an HDF5 file',
    b'version https://git-lfs': 'a Git LFS pointer (run `git lfs pull`)',
}
_SAFETENSORS = b'\0\0\0{'  # the end of 8 bytes of length, little-endian, then a JSON header
_ZIP, _PICKLE = b'PK', b'\x80'  # PyTorch's files since 1.6 are zip archives, before they were pickles of protocol 2
_WANTED = 'weights saved by torch.save or safetensors are needed'


def load_file(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a file of weights or a training state; code in the file never runs.

    Args:
        path: A PyTorch file or a safetensors file; the content decides, not the suffix.

    Returns:
        The dict of the file. A safetensors file gives {'params': state dict}, with 'lorair' if it has our metadata.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe or something else; the message says what it seems to be.
    """
    path = Path(path)
    try:
        with path.open('rb') as file:
            head = file.read(512)
    except FileNotFoundError as error:
        raise CheckpointError(f'{path} does not exist: check the path of the weights') from error
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read: {error.strerror}') from error
    if not head:
        raise CheckpointError(f'{path} is empty (0 bytes): copy or download it again')
    if not may_be_weights(head):
        raise CheckpointError(f'{path} seems to be {guess(head)}, {_WANTED}')
    if head[5:9] == _SAFETENSORS:
        return _load_safetensors(path)
    if head.startswith(_ZIP):
        _check_zip(path)
    loaded = _load_pickle(path)
    if not isinstance(loaded, dict):
        raise CheckpointError(f'{path} holds a {type(loaded).__name__} instead of a dict of tensors, {_WANTED}')
    return loaded


def may_be_weights(head: bytes) -> bool:
    """Tells by the first bytes of a file whether `load_file` may read it."""
    return head[5:9] == _SAFETENSORS or head.startswith((_ZIP, _PICKLE))


def read_description(path: str | os.PathLike) -> dict[str, Any]:
    """Reads what a file of weights of this project says of itself, in no time, and not the weights.

    Returns:
        Its kind, network and degradations; nothing where a file is silent about it, or no sound file of weights at all:
        `load_file` says that.
    """
    path = Path(path)
    try:
        with path.open('rb') as file:
            head = file.read(9)
        # Mapped, so that the tensors of a PyTorch file are not read.
        loaded = _load_safetensors(path, weights=False) if head[5:] == _SAFETENSORS else _load_pickle(path, mmap=True)
    except (OSError, CheckpointError):
        return {}
    description = loaded.get('lorair') if isinstance(loaded, dict) else None
    return description if isinstance(description, dict) else {}


def save_file(obj: dict[str, Any], path: str | os.PathLike) -> None:
    """Writes a file whole or not at all, and reads it back before it takes the place of an old one.

    Args:
        obj: What to save. For the suffix `.safetensors`: {'params': state dict, 'lorair': dict that JSON can hold}.
        path: Where to. Missing folders are made.

    Raises:
        CheckpointError: The disk is full, the folder cannot be written, ... An old file of this name is intact.
    """
    content = _safetensors_bytes(obj) if Path(path).suffix == '.safetensors' else None

    def read_back(temporary: Path) -> None:
        # From the disk, as `writing` has dropped what the system kept in memory.
        if not (_can_be_loaded(temporary) if content is None else temporary.read_bytes() == content):
            raise OSError(errno.EIO, 'what was read back is not what was written')

    try:
        with writing(path, read_back) as file:
            if content is None:
                torch.save(obj, file)
            else:
                file.write(content)
    except (OSError, RuntimeError) as error:  # RuntimeError: PyTorch's writer on a full disk
        raise CheckpointError(cannot_write(path, error)) from error


def _load_safetensors(path: Path, weights: bool = True) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, framework='pt') as file:
            keys = file.keys() if weights else ()
            loaded = {'params': {key: file.get_tensor(key) for key in keys}}
            meta = (file.metadata() or {}).get('lorair')
        if meta is not None:
            loaded['lorair'] = json.loads(meta)
    except (safetensors.SafetensorError, ValueError) as error:
        raise CheckpointError(
            f'{path} seems to be a damaged or truncated safetensors file ({error}): copy or download it again'
        ) from error
    return loaded


def _safetensors_bytes(obj: dict[str, Any]) -> bytes:
    # a clone of its own for each tensor: safetensors refuses views of shared memory and channels_last
    params = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in obj['params'].items()}
    # What other readers of safetensors, such as transformers, look for.
    metadata = {'format': 'pt'}
    if 'lorair' in obj:
        metadata['lorair'] = json.dumps(obj['lorair'])
    return safetensors.torch.save(params, metadata)


def _check_zip(path: Path) -> None:
    """Compares every byte with the checksums of a zip archive, which PyTorch's reader does not look at."""
    try:
        with zipfile.ZipFile(path) as file:
            for entry in file.infolist():
                if entry.CRC:  # 0: saved without (torch.serialization.set_crc32_options)
                    with file.open(entry) as content:
                        while content.read(1 << 20):
                            pass
            names = file.namelist()
    except Exception as error:  # damaged bytes can raise nearly anything
        what = f'a truncated or damaged PyTorch file ({path.stat().st_size} bytes)'
        raise CheckpointError(f'{path} seems to be {what}: copy or download it again') from error
    if any('/code/' in name for name in names):
        raise CheckpointError(f'{path} is a TorchScript program, {_WANTED}')
    if not any(name.endswith('/data.pkl') for name in names):
        raise CheckpointError(f'{path} seems to be a zip archive of other files ({", ".join(names[:3])}), {_WANTED}')


def _can_be_loaded(path: Path) -> bool:
    try:
        _check_zip(path)
        _load_pickle(path, mmap=True)
    except CheckpointError:
        return False
    return True


def _load_pickle(path: Path, mmap: bool = False) -> Any:
    try:
        # A file that was saved on a GPU must open without one; a pickle can run any code, hence weights alone.
        return torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise unsafe_pickle(path, error) from error
    except Exception as error:  # damaged bytes can raise nearly anything in an unpickler
        raise CheckpointError(
            f'{path} seems to be a damaged PyTorch file ({type(error).__name__}): copy or download it again'
        ) from error


def guess(head: bytes) -> str:
    """Says what a file is by its first bytes."""
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if head.lstrip()[:9].lower().startswith((b'<!doctype', b'<html')):
        return 'a web page (the download gave a page instead of the file)'
    if head[:1] == b'\x08' and b'pytorch' in head[:16]:  # a number of version, then who made it
        return 'an ONNX graph'
    text = all(byte >= 32 or byte in b'\t\n\r' for byte in head)
    return 'a text file' if text else 'neither a PyTorch nor a safetensors file'
