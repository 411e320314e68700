"""What a user reads while a command runs, and what goes to the log file alone."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import sys
from collections.abc import Iterator

_LOGGERS = ('basicsr', 'lorair_arch')
# Functions whose messages describe the program rather than its progress; all but the first are BasicSR's.
_FILE_ONLY = {
    *('to_file', 'build_dataset', 'build_dataloader', 'build_network', 'build_loss', 'build_model'),
    *('print_network', 'load_network', 'state_dict_of', 'init_training_settings'),
}


class ConsoleHandler(logging.Handler):
    """Writes lines to stderr without tearing a progress bar apart."""

    def __init__(self, level: int = logging.INFO) -> None:
        super().__init__(level)
        self.addFilter(_wanted)

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        message = record.getMessage().rstrip()
        prefix = '' if record.levelno <= logging.INFO else f'{record.levelname.lower()}: '
        # It moves bars out of the way; stdout is for what pipes are to get.
        tqdm.write(prefix + message, file=sys.stderr)


class LogFile(logging.FileHandler):
    """A log file that says once on the console that it cannot be written, as on a full disk."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.failed:
            self.failed = True
            # Straight to the console: through the logger it would come here again.
            text = f'{self.baseFilename} cannot be written, training goes on: {error.strerror}'
            level = {'levelno': logging.WARNING, 'levelname': 'WARNING'}
            ConsoleHandler().emit(logging.makeLogRecord({'msg': text, **level}))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what is still to be written
            super().close()


def _wanted(record: logging.LogRecord) -> bool:
    # BasicSR logs all at the same level: the function is all that tells its messages apart.
    return record.levelno > logging.INFO or record.funcName not in _FILE_ONLY


def to_console(level: int = logging.INFO) -> None:
    """Sends the messages of this package and of BasicSR to stderr, and nowhere else."""
    # OpenCV would write of damaged images too, without their paths; it reads this when it is imported.
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')
    for name in _LOGGERS:
        # No propagation: the root logger of a notebook would print each line again.
        _set(logging.getLogger(name), [ConsoleHandler(level)], level, propagate=False)


def _set(logger: logging.Logger, handlers: list[logging.Handler], level: int, propagate: bool) -> None:
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


def to_file(message: str) -> None:
    """Logs what is of use in the log file alone."""
    logging.getLogger('lorair_arch').info(message)


def open_log(path: str | os.PathLike[str]) -> None:
    """Starts the log file of the `session`, in its first process; what was logged before is in it too."""
    for memory in logging.getLogger('lorair_arch').handlers:
        if isinstance(memory, logging.handlers.MemoryHandler):
            # names that are no text in the locale are escaped
            memory.setTarget(LogFile(path, encoding='utf-8', errors='backslashreplace'))
            memory.target.setFormatter(logging.Formatter('%(asctime)s %(levelname)s: %(message)s'))
            memory.flushLevel = logging.NOTSET  # from here on every line is written at once


@contextlib.contextmanager
def session(rank: int = 0, level: int = logging.INFO) -> Iterator[None]:
    """Takes over the logging of one run, of BasicSR's parts too, and gives it back, so that runs do not mix.

    The console of the first process shows progress, that of the others errors alone. What is logged before the log
    file has a name (`open_log`) is kept for it; Python's warnings go there alone.

    Args:
        rank: Number of this process.
        level: What the console of the first process shows.
    """
    from basicsr.utils.logger import initialized_logger

    loggers = [logging.getLogger(name) for name in (*_LOGGERS, 'py.warnings')]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    to_console(level if rank == 0 else logging.ERROR)
    # CRITICAL + 1: no record flushes it of itself, as long as there is no file.
    memory = logging.handlers.MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
    loggers[-1].propagate = False
    for logger in loggers:
        logger.addHandler(memory if rank == 0 else logging.NullHandler())
    logging.captureWarnings(True)
    initialized_logger['basicsr'] = True  # BasicSR's own function then adds no handlers
    try:
        yield
    finally:
        initialized_logger.pop('basicsr')
        logging.captureWarnings(False)
        if memory.target:
            memory.target.close()
        for state in before:
            _set(*state)
