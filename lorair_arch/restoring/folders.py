"""`lorair restore`: images, folders of images and patterns of them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from lorair_arch.errors import DataError, Interrupted, Mistake, OutputError, UnrestoredError, quoted
from lorair_arch.files import remove_abandoned
from lorair_arch.restoring.plan import Job, Plan, plan
from lorair_arch.restoring.records import Records
from lorair_arch.restoring.report import Report, check_report
from lorair_arch.restoring.restorer import Restorer
from lorair_arch.restoring.run import FAILED, RESTORED, SKIPPED, Outcome, Steps, Stop, run
from lorair_arch.restoring.settings import Settings
from lorair_arch.weights.pretrained import Paths

logger = logging.getLogger('lorair_arch')

_BAR = '{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{rate_noinv_fmt}, {remaining} left]'


def restore_paths(
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    weights: Paths,
    device: str | None = None,
    precision: str | None = None,
    report: str | Path | None = None,
    log: str | Path | None = None,
    ray: str | None = None,
    **settings,
) -> None:
    """Restores images, folders with their subfolders, and patterns such as 'photos/**/*.jpg'.

    A result that exists counts as done: a run that was stopped goes on where it was. Ctrl-C and SIGTERM stop a run;
    what is there then is whole.

    Args:
        inputs: One or more.
        output: A folder, made if missing: images keep their names within the input, as PNG or in the `format`; where
            two of them would get the same name, with their own suffix before it. For one image also the name of a file;
            its suffix says the format.
        weights, device, precision: See `Restorer.from_pretrained`.
        report: A file for a page of all images, before and after; see `Report`.
        log: A file for a line of JSON for each image, added to what is in it; see `Records`.
        ray: Address of a cluster of Ray, '' for one of this machine alone; None: this process does the work.
        settings: See `Settings`.

    Raises:
        CheckpointError: The weights cannot be used.
        DataError: There are no images. As an UnrestoredError: some could not be restored; all others have been. As an
            OutputError: a result would replace an image of the input, or cannot be written; nothing more is restored.
        Interrupted: A signal has stopped the run.
        OptionsError: A setting or `device` is wrong.
    """
    wanted = Settings(**settings)
    inputs = [inputs] if isinstance(inputs, (str, Path)) else inputs
    # First of all: a mistake in the paths need not wait for the weights.
    is_folder = str(output).endswith(('/', os.sep))
    planned = plan([_path(input, 'input') for input in inputs], _path(output, 'output'), wanted, is_folder)
    page, lines = (path and _path(path, what) for path, what in ((report, '--report'), (log, '--log')))
    _check_apart(planned, page, lines)
    if page:
        check_report(page, wanted.overwrite)
    _announce(planned, wanted)
    for folder in {job.target.parent for job in planned.jobs}:
        remove_abandoned(folder)
    with contextlib.ExitStack() as stack:
        records = stack.enter_context(contextlib.closing(Records(lines))) if lines else None
        restorer = None
        if not all(job.done for job in planned.jobs):
            # With Ray for the checks alone: this machine may have no GPU.
            restorer = Restorer.from_pretrained(weights, *((device, precision) if ray is None else ('cpu',)))
            restorer.check(wanted.degradation, wanted.strength, wanted.tile)
        told = stack.enter_context(Report(page, weights, wanted, restorer)) if page else None
        steps = Steps(restorer, wanted, bool(page))

        def work(stop: Stop) -> Iterator[Outcome]:
            if ray is None or not restorer:
                return run(planned.jobs, steps, stop)
            from lorair_arch.restoring.on_ray import run_on_ray

            pending = [job for job in planned.jobs if not job.done]
            elsewhere = run_on_ray(pending, weights, wanted, device, precision, bool(page), ray, stop)
            return itertools.chain(run([job for job in planned.jobs if job.done], steps, stop), elsewhere)

        _run(planned, output, work, records, told)


def _path(path: str | Path, what: str) -> Path:
    if not str(path):
        raise DataError(f'{what} is empty: name a file or a folder')
    return Path(os.path.expanduser(path))


def _check_apart(planned: Plan, page: Path | None, lines: Path | None) -> None:
    """Raises an OutputError if a log would be written to a file that has another purpose."""
    images = (file for job in planned.jobs for file in (job.source, job.target, job.comparison))
    alike = (file for file in images if lines and file.name.lower() == lines.name.lower())
    if any(os.path.realpath(file) == os.path.realpath(lines) for file in alike):
        raise OutputError(f"--log: '{lines}' is the name of an image: choose another")
    if page and lines and os.path.realpath(page) == os.path.realpath(lines):
        raise OutputError(f"--report and --log: '{page}' is the name of both: choose another")


def _announce(planned: Plan, settings: Settings) -> None:
    """Says what is not done as one might expect."""
    for what, paths in {
        'skipped, as the result exists (--overwrite replaces it)': [job.target for job in planned.jobs if job.done],
        'not restored again, as results of an earlier run': planned.results,
        'restored once, though several inputs lead there': planned.repeated,
        'named like their images, suffix and all, as they would share a name': [job.target for job in planned.renamed],
    }.items():
        if paths:
            logger.info(Mistake(f'{_images(len(paths))} {what}: ', quoted(paths), '').sentence())
    if not planned.jobs and not planned.refused:
        logger.info(f'No image for shard {settings.shard[0]}/{settings.shard[1]}')


def _images(count: int) -> str:
    return f'{count} image{"s" if count != 1 else ""}'


def _run(
    planned: Plan,
    output: str | Path,
    work: Callable[[Stop], Iterator[Outcome]],
    records: Records | None,
    page: Report | None,
) -> None:
    jobs, total = planned.jobs, len(planned.jobs) + len(planned.refused)
    failures: list[str] = []
    count = dict.fromkeys((RESTORED, SKIPPED, FAILED), 0)
    refused = [Outcome(Job(image.source, None, image.name), FAILED, image.refused) for image in planned.refused]
    pending = sum(not job.done for job in jobs)
    # Those of an earlier run take no time: they would make the rate a lie. No smoothing: a rate of all images.
    bar = tqdm(
        desc='Restoring',
        unit=' images',
        total=len(jobs),
        initial=len(jobs) - pending,
        disable=pending < 2,
        bar_format=_BAR,
        smoothing=0,
    )
    with Stop() as stop, bar:
        try:
            for outcome in itertools.chain(refused, work(stop)):
                count[outcome.status] += 1
                if outcome.error:
                    failures.append(outcome.error)
                for note in outcome.notes:
                    logger.warning(f"'{outcome.job.source}': {note}")
                if records:
                    records.add(outcome)
                if page:
                    page.add(outcome)
                bar.update(bool(outcome.job.target) and not outcome.job.done)
        except OutputError as error:  # the output cannot be written: no other image could be
            raise OutputError(str(error) if total == 1 else f'{error}; {_progress(count, len(jobs))}') from error
    if page:
        page.finish()
    left = total - sum(count.values())
    if stop.received and left:
        message = f'interrupted: {_progress(count, len(jobs))}'
        logger.info(message)
        raise Interrupted(message, 128 + stop.received)
    if failures:
        if total == 1:
            raise UnrestoredError(failures[0])
        raise UnrestoredError(f'{len(failures)} of {total} images could not be restored:\n' + '\n'.join(failures))
    if pending:
        logger.info(f'Restored {_images(count[RESTORED])}: {jobs[0].target if total == 1 else output}')


def _progress(count: dict[str, int], total: int) -> str:
    done = count[RESTORED] + count[SKIPPED]
    return f'{done} of {total} images are restored, the same command goes on from there'
