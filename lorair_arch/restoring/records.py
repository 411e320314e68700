"""The log of `lorair restore`: a line of JSON for each image, added to by every run."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from lorair_arch.errors import OutputError
from lorair_arch.files import cannot_write, exists
from lorair_arch.restoring.run import Outcome

_FIRST = '{"input": '  # how each line begins
_LONGEST = 2**20  # bytes, of a line


class Records:
    """A file of JSON lines.

    Args:
        path: The file, made if missing.

    Raises:
        OutputError: It is something else than a log of this kind, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if exists(path):
                self._check()
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: each line is one call of the system, whole also when several processes write.
            self._file = path.open('a+b', buffering=0)
            self._mend()
        except OSError as error:
            raise OutputError(cannot_write(path, error)) from error

    def add(self, outcome: Outcome) -> None:
        """Writes a line; raises an OutputError if it cannot."""
        try:
            self._file.write(record(outcome).encode())
        except OSError as error:
            raise OutputError(cannot_write(self.path, error)) from error

    def close(self) -> None:
        self._file.close()

    def _check(self) -> None:
        with self.path.open('rb') as file:
            head = file.read(len(_FIRST))
        if not _FIRST.encode().startswith(head):
            raise OutputError(f"--log: '{self.path}' exists and is no log of lorair restore: choose another name")

    def _mend(self) -> None:
        """Removes what a power cut or a full disk has left of a line."""
        try:
            import fcntl
        except ImportError:  # Windows
            return
        with contextlib.suppress(OSError):  # another run has it open, and may be in the middle of a line
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = self._file.seek(0, os.SEEK_END)
            start = self._file.seek(max(0, size - _LONGEST))
            tail = self._file.read()
            if not tail.endswith(b'\n'):
                self._file.truncate(start + tail.rfind(b'\n') + 1)
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(self._file, fcntl.LOCK_SH)  # until it is closed


def record(outcome: Outcome) -> str:
    """Gives the line of an image."""
    width, height = outcome.size or (None, None)
    content: dict[str, Any] = {
        'input': str(outcome.job.source),
        'output': outcome.job.target and str(outcome.job.target),
        'status': outcome.status,
        'error': outcome.error,
        'seconds': None if outcome.seconds is None else round(outcome.seconds, 3),
        'width': width,
        'height': height,
        'tile': outcome.tile,
        'degradations': outcome.degradations,
    }
    return json.dumps(content) + '\n'
