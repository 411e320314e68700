"""TensorBoard's curves, which a full disk must not turn into the end of a training, and their copy by wandb."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from basicsr.utils import init_wandb_logger
from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread
from torch.utils.tensorboard import SummaryWriter

from lorair_arch.training.session import keep

logger = logging.getLogger('lorair_arch')
# As it was when this module was imported: `Board` may be made many times, and hooks must not pile up.
_report_others = threading.excepthook


def open_board(opt: dict[str, Any], resumed: int) -> Board | None:
    """Opens the curves of a training, in its first process and if the options want any; see `Board`."""
    folder = _folder(opt)
    if folder is None:
        return None
    if (opt['logger'].get('wandb') or {}).get('project') is not None:
        init_wandb_logger(opt)  # before the writer, to which it listens
    return Board(folder, resumed)


def keep_board(opt: dict[str, Any]) -> None:
    """Gives the curves of an old experiment another name, as they move along with it."""
    folder = _folder(opt)
    if folder is not None:
        keep(folder)


def _folder(opt: dict[str, Any]) -> str | None:
    # As BasicSR: no curves in debug mode, which its MessageLogger does not write either.
    wanted = opt['rank'] == 0 and opt['logger'].get('use_tb_logger') and 'debug' not in opt['name']
    return os.path.join(opt['root_path'], 'tb_logger', opt['name']) if wanted else None


class Board(SummaryWriter):
    """A writer that says once that it cannot write, and then does nothing more.

    Args:
        log_dir: Its folder.
        resumed: The iteration from which the training continues: what was written for later ones is not shown.
    """

    def __init__(self, log_dir: str, resumed: int = 0) -> None:
        self.failed = False
        # TensorBoard writes in a thread of its own: where that fails, Python prints a traceback.
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
