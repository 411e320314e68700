"""Typed errors: each message is one sentence that says where, what was found and what to do."""

from __future__ import annotations

import re


class LoRAIRError(Exception):
    """A mistake that the user can mend; commands print it without a traceback.

    Attributes:
        everywhere: Whether every process of a distributed run raises it alike; then one of them says so.
    """

    everywhere = False


class OptionsError(LoRAIRError, ValueError):
    """An options file or a command-line option is wrong."""

    everywhere = True


class DataError(LoRAIRError, ValueError):
    """An image, a pair of images or an LMDB cannot be used."""


class OutputError(DataError):
    """A file must not be written where it is to go, or cannot."""


class CheckpointError(LoRAIRError, RuntimeError):
    """A file of weights cannot be read, written or does not fit the network."""


class NumericsError(LoRAIRError, ArithmeticError):
    """Losses or gradients are not finite, step after step."""

    everywhere = True


class Interrupted(LoRAIRError):
    """A signal has ended a training; it can be continued. The message has been logged.

    Args:
        message: What was saved and how to go on.
        code: Exit code of the command: 128 and the number of the signal.
    """

    everywhere = True

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def sentence(error: BaseException) -> str:
    """Gives the plain message of an error, also when a data worker raised it.

    PyTorch re-raises a worker's error with the worker's whole traceback as its message; the user needs only the
    last line of it.
    """
    found = re.findall(r'^lorair_arch\.errors\.\w+: (.*)$', str(error), flags=re.MULTILINE)
    return found[-1] if found else str(error)
