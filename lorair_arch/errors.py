"""Typed errors: each message is one sentence that says where, what was found and what to do."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple


class LoRAIRError(Exception):
    """A mistake that the user can mend; commands print it without a traceback.

    Attributes:
        everywhere: Whether every process of a distributed run raises it alike; then one of them says so.
        code: Exit code of the command.
    """

    everywhere = False
    code = 2


class OptionsError(LoRAIRError, ValueError):
    """An options file or a command-line option is wrong."""

    everywhere = True


class DataError(LoRAIRError, ValueError):
    """An image, a pair of images or an LMDB cannot be used."""


class OutputError(DataError):
    """A file must not be written where it is to go, or cannot."""


class UnrestoredError(DataError):
    """Some images could not be restored; all others have been."""

    code = 1


class UnmeasuredError(DataError):
    """Some images could not be measured; all others have been."""

    code = 1


class CheckpointError(LoRAIRError, RuntimeError):
    """A file of weights cannot be read, written or does not fit the network."""


class NumericsError(LoRAIRError, ArithmeticError):
    """Losses or gradients are not finite, step after step."""

    everywhere = True


class Interrupted(LoRAIRError):
    """A signal has ended a training, or the restoring of images; it can be continued. The message has been logged.

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


def unsafe_pickle(path: str | os.PathLike, error: Exception) -> CheckpointError:
    """Says that PyTorch refused to unpickle a file of weights, as `error` of `weights_only=True` tells."""
    # PyTorch names what the pickle calls for: it tells whether to trust the file.
    found = re.search(r'GLOBAL (\S+)', str(error))
    what = f' (it calls for {found[1]})' if found else ''
    return CheckpointError(
        f'{path} holds Python objects{what} instead of plain tensors, or is damaged; none of its code was run; '
        'if you trust it, save its state_dict() alone with torch.save'
    )


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """Ends a sentence about an unknown `name`: with the closest known name, or with all of them if they are few."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    more = f', ... ({len(known)} in all)' if len(known) > 30 else ''
    return f'; did you mean {close[0]!r}?' if close else f'; known are {", ".join(known[:30])}{more}'


class Mistake(NamedTuple):
    """The same mistake of one or more images: a sentence in whose middle they are named.

    Attributes:
        before: how the sentence begins.
        items: the images, as they are to be named, with quotes.
        after: how it ends.
    """

    before: str
    items: list[str]
    after: str

    def sentence(self) -> str:
        """Names the first three and counts the rest."""
        more = f' and {len(self.items) - 3} more' if len(self.items) > 3 else ''
        return self.before + ', '.join(self.items[:3]) + more + self.after

    def lines(self) -> list[str]:
        """Gives a sentence for each."""
        return [self.before + item + self.after for item in self.items]


def quoted(names: list[str]) -> list[str]:
    return [f"'{name}'" for name in names]


def too_small(path: str, size: tuple[int, int], gt_size: int, can_pad: bool = True) -> str:
    """Says that an image of the size (width, height) is smaller than the training crops."""
    remedy = 'remove it, lower gt_size or set pad_small' if can_pad else 'remove it or lower gt_size'
    return f"'{path}' ({size[0]} x {size[1]} pixels) is smaller than gt_size ({gt_size}); {remedy}"


def different_sizes(lq_path: str, lq: tuple[int, int], gt_path: str, gt: tuple[int, int], scale: int = 1) -> str:
    """Says that the images of a pair, of the sizes (width, height), cannot lie on top of each other."""
    rule = 'the images of a pair must have the same size' if scale == 1 else f'it must be {scale} times as large'
    return f"'{lq_path}' is {lq[0]} x {lq[1]} pixels but its ground truth '{gt_path}' is {gt[0]} x {gt[1]}; {rule}"
