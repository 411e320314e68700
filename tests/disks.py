"""Small disks, to be filled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """Gives a folder a small disk of its own, where the system lets us."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder], capture_output=True)
    if mounted.returncode:
        pytest.skip('a disk of its own needs root')
    try:
        yield
    finally:
        subprocess.run(['umount', '-l', folder], check=True)


def fill(folder: str | Path = '.', leave: int = 0) -> None:
    """Leaves so many bytes of a disk."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    Path(folder, 'ballast').write_bytes(bytes(free - leave))
