"""The work on a list of images: while one is restored, the next is read and the last one is written."""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeVar

from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import read_photo
from lorair_arch.data.images.writing import encode_photo, left_out
from lorair_arch.errors import DataError, OutputError
from lorair_arch.files import exists, write_file
from lorair_arch.restoring.comparing import compare, thumbnail
from lorair_arch.restoring.marks import mark
from lorair_arch.restoring.plan import LONGEST_SIDES, Job
from lorair_arch.restoring.settings import Settings

T = TypeVar('T')
RESTORED, SKIPPED, FAILED = 'restored', 'skipped', 'failed'


@dataclass
class Outcome:
    """What became of an image.

    Attributes:
        job: The image.
        status: RESTORED; SKIPPED, as the result exists; or FAILED.
        error: A sentence, if it failed.
        seconds: That restoring took, without reading and writing.
        size: (width, height).
        tile: Side of the tiles in pixels; None: in one piece.
        degradations: Their probabilities, as the router saw the image.
        notes: What was left out or changed, a clause each.
        pictures: Thumbnails of before and after, where a page wants them.
    """

    job: Job
    status: str = RESTORED
    error: str | None = None
    seconds: float | None = None
    size: tuple[int, int] | None = None
    tile: int | None = None
    degradations: dict[str, float] | None = None
    notes: list[str] = field(default_factory=list)
    pictures: tuple[bytes, bytes] | None = None

    def fail(self, error: str) -> None:
        self.status, self.error = FAILED, error


@dataclass
class _Work:
    """An image on its way, with as much of it as the next step needs."""

    outcome: Outcome
    before: Photo | None = None
    after: Photo | None = None


class Steps:
    """The three steps, each with an image that may have failed before, or need no work.

    Args:
        restorer: A `Restorer`; None if all images are done.
        settings: How to restore and to write.
        pictures: Whether outcomes get thumbnails.
    """

    def __init__(self, restorer, settings: Settings, pictures: bool = False) -> None:
        self.restorer, self.settings, self.pictures = restorer, settings, pictures

    def read(self, job: Job) -> _Work:
        work = _Work(Outcome(job))
        try:
            if self._is_done(job):
                work.outcome.status = SKIPPED
                if self.pictures or self._lacks_comparison(job):
                    work.before, work.after = read_photo(job.source), read_photo(job.target)
            else:
                work.before = read_photo(job.source)
                _check_fits(job, work.before)
        except OutputError:
            raise
        except DataError as error:
            if work.outcome.status == SKIPPED:
                work.outcome.notes.append(f'its result is not compared: {error}')
                work.before = work.after = None
            else:
                work.outcome.fail(str(error))
        if work.before:
            work.outcome.size = work.before.pixels.shape[1::-1]
        return work

    def restore(self, work: _Work) -> _Work:
        outcome, start = work.outcome, time.perf_counter()
        # Asked again, as at each step: the plan may be hours old, and another process at work on the same images.
        if outcome.status == RESTORED and self._is_done(outcome.job):
            return _Work(Outcome(outcome.job, SKIPPED))
        if outcome.status == RESTORED:
            settings = self.settings
            try:
                found = self.restorer.restore(
                    work.before.pixels, settings.degradation, settings.strength, settings.tile
                )
            except DataError as error:
                outcome.fail(f"'{outcome.job.source}': {error}")
                return _Work(outcome)
            outcome.seconds = time.perf_counter() - start
            outcome.tile, outcome.degradations = found.tile, found.degradations
            work.after = work.before._replace(pixels=found.image)
        return work

    def write(self, work: _Work) -> Outcome:
        outcome, suffix = work.outcome, work.outcome.job.target.suffix.lower()
        if outcome.status == RESTORED:
            try:
                content = mark(encode_photo(work.after, suffix, self.settings.quality), suffix)
            except DataError as error:
                outcome.fail(f"'{outcome.job.source}': {error}")
                return outcome
            if self._is_done(outcome.job):
                return Outcome(outcome.job, SKIPPED)
            write_file(outcome.job.target, content)
            outcome.notes += [*work.after.notes, *left_out(work.after, suffix)]
        if work.before and work.after:
            # An older picture would show an older result.
            if self._lacks_comparison(outcome.job) or (self.settings.compare and self.settings.overwrite):
                write_file(outcome.job.comparison, compare(work.before, work.after))
            if self.pictures:
                outcome.pictures = thumbnail(work.before), thumbnail(work.after)
        return outcome

    def _is_done(self, job: Job) -> bool:
        return not self.settings.overwrite and exists(job.target)

    def _lacks_comparison(self, job: Job) -> bool:
        return self.settings.compare and not exists(job.comparison)


def _check_fits(job: Job, photo: Photo) -> None:
    """Raises a DataError if the format cannot hold so many pixels: the encoder would say so after minutes of work."""
    height, width = photo.pixels.shape[:2]
    suffix = job.target.suffix.lower()
    longest = LONGEST_SIDES.get(suffix)
    if longest and max(height, width) > longest:
        raise DataError(
            f"'{job.source}' has {width} x {height} pixels, but a {suffix} file at most {longest} a side: take .png or "
            '.tif for the output'
        )


def run(jobs: Sequence[Job], steps: Steps, stop: Stop) -> Iterator[Outcome]:
    """Does the work; no more than one image is read ahead, and one is being written.

    Yields:
        What became of each image, in order, when its files are on the disk; fewer, if `stop` gets a signal.

    Raises:
        OutputError: A file cannot be written. No other could be.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead: list[Future[_Work]] = []
        writing: Future[Outcome] | None = None

        def restored(following: Job | None) -> _Work:
            work = ahead.pop().result()
            if following:
                ahead.append(reader.submit(steps.read, following))
            return steps.restore(work)

        for job, following in zip(jobs, (*jobs[1:], None)):
            if not ahead:
                ahead.append(reader.submit(steps.read, job))
            work = stop.at_once(functools.partial(restored, following))
            if work is None:
                break
            if writing:
                yield writing.result()
            writing = writer.submit(steps.write, work)
            del work  # it is the writer's now, and goes when it is written
        if writing:
            yield writing.result()


class Stop:
    """Waits for Ctrl-C and SIGTERM while images are restored: what is being written is finished, the rest is left.

    Attributes:
        received: The signal; 0: none.
    """

    def __init__(self) -> None:
        self.received, self._exposed = 0, False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Python tells no other thread of signals
            self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        self._give_back()

    def at_once(self, do: Callable[[], T]) -> T | None:
        """Calls a function that a signal may end wherever it is; None: it has, or one had come before."""
        try:
            self._exposed = True
            if self.received:
                return None
            result = do()
            self._exposed = False
            return result
        except _Stopped:
            return None
        finally:
            self._exposed = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._give_back()  # a second one ends the process as it ends any other
        if self._exposed:
            raise _Stopped

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Stopped(BaseException):  # no Exception: nobody else is to catch it
    pass
