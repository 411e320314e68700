"""TensorBoard's curves, which a full disk must not turn into the end of a training."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger('lorair_arch')
_report_others = threading.excepthook


class Board(SummaryWriter):
    """A writer that says once that it cannot write, and then does nothing more.

    Args:
        log_dir: Its folder.
        resumed: The iteration from which the training continues: what was written for later ones is not shown.
    """

    def __init__(self, log_dir: str, resumed: int = 0) -> None:
        self.failed = False
        threading.excepthook = _report
        super().__init__(log_dir, purge_step=resumed + 1 if resumed else None)

    def add_scalar(self, *args, **kwargs) -> None:
        self._try(super().add_scalar, *args, **kwargs)

    def add_image(self, *args, **kwargs) -> None:
        self._try(super().add_image, *args, **kwargs)

    def flush(self) -> None:
        self._try(super().flush)

    def close(self) -> None:
        self._try(super().close)

    def _try(self, write: Callable[..., None], *args, **kwargs) -> None:
        if not self.failed:
            try:
                write(*args, **kwargs)
            except OSError as error:
                self.failed = True
                logger.warning(f'nothing more goes to {self.log_dir}, training goes on: {error.strerror or error}')


def _report(failure: threading.ExceptHookArgs) -> None:
    """Leaves out the traceback of TensorBoard's own thread: the next call of the writer raises the error again."""
    if not (isinstance(failure.thread, _AsyncWriterThread) and issubclass(failure.exc_type, OSError)):
        _report_others(failure)
