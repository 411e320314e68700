"""Typed errors: each message is one sentence that says where, what was found and what to do."""

from __future__ import annotations

import re


class LoRAIRError(Exception):
    """A mistake that the user can mend; commands print it without a traceback."""


class OptionsError(LoRAIRError, ValueError):
    """An options file or a command-line option is wrong."""


class DataError(LoRAIRError, ValueError):
    """An image, a pair of images or an LMDB cannot be used."""


class CheckpointError(LoRAIRError, RuntimeError):
    """A file of weights cannot be read, written or does not fit the network."""


def sentence(error: BaseException) -> str:
    """Gives the plain message of an error, also when a data worker raised it.

    PyTorch re-raises a worker's error with the worker's whole traceback as its message; the user needs only the
    last line of it.
    """
    found = re.findall(r'^lorair_arch\.errors\.\w+: (.*)$', str(error), flags=re.MULTILINE)
    return found[-1] if found else str(error)
