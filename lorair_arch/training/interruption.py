"""Ctrl-C and SIGTERM: a training ends after the step at hand, in all its processes at the same one."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from lorair_arch.errors import Interrupted, LoRAIRError

logger = logging.getLogger('lorair_arch')

# Seconds after SIGTERM; launchers give a training as many.
_GRACE = 30
# What gloo says when another process has ended.
_LOST = 'Connection closed by peer', 'Connection reset by peer'


class Signals:
    """Waits for SIGINT and SIGTERM while a training runs.

    Attributes:
        received: The signal that this process got; 0: none.
        agreed: The signal for which all processes stop; 0: none.
    """

    def __init__(self) -> None:
        self.received = self.agreed = 0
        self.group: dist.ProcessGroup | None = None
        self.question: tuple[dist.Work, torch.Tensor] | None = None
        self.before: dict[int, object] = {}

    def listen(self, distributed: bool) -> None:
        """Begins to wait. Until then the signals end the process as they end any other.

        Args:
            distributed: Whether processes stop together; all must call this.
        """
        if distributed:
            # gloo, on the CPU: it can be asked without waiting for the GPU, and is there beside NCCL.
            self.group = dist.new_group(backend='gloo')
        if threading.current_thread() is threading.main_thread():  # Python tells no other thread of signals
            self.before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop_listening(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once, wherever it is
            if os.environ.get('RANK', '0') == '0':
                # the logger, or a progress bar, may have been interrupted in the middle of a line
                os.write(2, b'\ninterrupted: saving after this step (Ctrl-C again ends at once)\n')

    def requested(self) -> bool:
        """Tells whether the training must stop now.

        All processes ask at the same places and get the same answer: whether any of them had got a signal when it
        asked the time before. The answer travels while they work, so that none waits for another.
        """
        if self.group is None:
            self.agreed = self.received
        elif self.question:
            work, flag = self.question
            work.wait()  # it was asked a step ago, and has long been answered
            self.agreed = int(flag)
        if self.group and not self.agreed:
            flag = torch.tensor([self.received])
            self.question = dist.all_reduce(flag, dist.ReduceOp.MAX, self.group, async_op=True), flag
        return self.agreed > 0


@contextlib.contextmanager
def signals() -> Iterator[Signals]:
    """Gives a run its `Signals`, and the process its own handlers back.

    Raises:
        Interrupted: A signal came, and another process ended before both could save.
        LoRAIRError: Another process has ended; what gloo then says is no help.
    """
    received = Signals()
    try:
        yield received
    except RuntimeError as error:
        if isinstance(error, LoRAIRError):
            raise
        if not received.received:
            if not any(text in str(error) for text in _LOST):
                raise
            message = f'process {dist.get_rank()} stops: another one has ended, and has said why unless it was killed'
            raise LoRAIRError(message) from error
        # the launcher sends the signal to those that are left when one process has ended, for which they wait
        name = signal.Signals(received.received).name
        reason = str(error).partition('\n')[0]
        message = f'{name}: stopped without saving ({reason})'
        logger.warning(message)
        raise Interrupted(message, 128 + received.received) from error
    finally:
        received.stop_listening()


def interrupted(number: int, iteration: int, path: Path | None) -> Interrupted:
    """Logs and gives the error that ends a training after an iteration, whose state, if it is a new one, is saved."""
    saved = f'saved as {os.path.relpath(path)}; --auto_resume continues' if path else 'nothing new to save'
    message = f'{signal.Signals(number).name} after iteration {iteration:,}: {saved}'
    logger.info(message)
    return Interrupted(message, 128 + number)


class Watched:
    """A loader of a validation that can be interrupted before any image.

    Args:
        loader: The loader.
        interrupt: Called before each of the first `images`.
        images: As many as every process has.
    """

    def __init__(self, loader: DataLoader, interrupt: Callable[[], None], images: int) -> None:
        self.loader, self.interrupt, self.images = loader, interrupt, images
        self.dataset = loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        for i, batch in enumerate(self.loader):
            # Processes may have one image more than others: all must ask equally often, or they wait for ever.
            if i < self.images:
                self.interrupt()
            yield batch


def outlive_signals(worker: int) -> None:
    """Lets a data worker, to whom the signals of a training are often sent too, work on until the training ends.

    Args:
        worker: Its number; part of PyTorch's interface.
    """
    # A terminal sends Ctrl-C to the whole group: a worker that died of it would end the training at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(number: int, frame: FrameType | None) -> None:
    """A worker ends by itself with its loader; one that hangs must end too."""
    signal.signal(number, signal.SIG_IGN)
    signal.alarm(_GRACE)  # the alarm's default ends a process, and needs no thread
