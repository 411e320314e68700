"""`lorair restore`: one image file, or all images in a folder and its subfolders."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from tqdm import tqdm

from lorair_arch.data.images.reading import read_photo
from lorair_arch.data.images.writing import encode_photo, left_out
from lorair_arch.errors import DataError, Mistake, OutputError, quoted
from lorair_arch.files import exists, write_file
from lorair_arch.restoring.plan import LONGEST_SIDES, Job, Plan, mark, plan
from lorair_arch.restoring.restorer import AUTO, Restorer
from lorair_arch.weights.pretrained import Paths

logger = logging.getLogger('lorair_arch')


def restore_paths(
    input: str | Path,
    output: str | Path,
    weights: Paths,
    tile: int | None = None,
    device: str | None = None,
    degradation: str = AUTO,
    overwrite: bool = False,
) -> None:
    """Restores one image file, or all images in a folder and its subfolders.

    A result that exists counts as done: a run that was stopped goes on where it was.

    Args:
        input: An image or a folder.
        output: A folder, made if missing: images keep their names within the input, as PNG; where two of them would get
            the same name, with their own suffix before it. For one image also the name of a file; its suffix says the
            format.
        weights: See `Restorer.from_pretrained`.
        tile, device, degradation: See `Restorer`.
        overwrite: Whether results replace files that exist. An image of the input is never replaced.

    Raises:
        CheckpointError: The weights cannot be used.
        DataError: There are no images, or some could not be restored; in a folder all others have been. As an
            OutputError: a result would replace an image of the input, or cannot be written; nothing more is restored.
        OptionsError: `degradation`, `tile` or `device` is wrong.
    """
    # First of all: a mistake in the paths need not wait for the weights.
    planned = plan(_path(input, 'input'), _path(output, 'output'), overwrite, str(output).endswith(('/', os.sep)))
    _announce(planned)
    failures, restored, alone = list(planned.refused), 0, len(planned.jobs) == 1 and not planned.refused
    if planned.jobs:
        restorer = Restorer.from_pretrained(weights, device)
        restorer.check(degradation, tile)
    for job in tqdm(planned.jobs, desc='Restoring', unit='image', disable=len(planned.jobs) < 2):
        try:
            restored += _restore(job, restorer, degradation, tile, overwrite)
        except OutputError as error:  # the output cannot be written: no other image could be
            left = f'; {restored} of {len(planned.jobs)} images are restored, the same command goes on from there'
            raise OutputError(f'{error}{"" if alone else left}') from error
        except DataError as error:
            if alone:
                raise
            failures.append(str(error))
    if failures:
        count = len(planned.jobs) + len(planned.refused)
        raise DataError(f'{len(failures)} of {count} images could not be restored:\n' + '\n'.join(failures))
    if planned.jobs:
        logger.info(f'Restored {_images(restored)}: {planned.jobs[0].target if alone else output}')


def _path(path: str | Path, what: str) -> Path:
    if not str(path):
        raise DataError(f'{what} is empty: name a file or a folder')
    return Path(os.path.expanduser(path))


def _announce(planned: Plan) -> None:
    """Says what is not done as one might expect."""
    for what, paths in {
        'skipped, as the result exists (--overwrite replaces it)': [job.target for job in planned.done],
        'not restored again, as results of an earlier run': planned.results,
        'named like their images, suffix and all, as they would share a name': [job.target for job in planned.renamed],
    }.items():
        if paths:
            logger.info(Mistake(f'{_images(len(paths))} {what}: ', quoted(paths), '').sentence())


def _images(count: int) -> str:
    return f'{count} image{"s" if count != 1 else ""}'


def _restore(job: Job, restorer: Restorer, degradation: str, tile: int | None, overwrite: bool) -> bool:
    """Restores an image; tells whether it did, or another process has done so meanwhile."""
    if not overwrite and exists(job.target):  # asked again: the plan may be hours old
        return False
    photo, suffix = read_photo(job.source), job.target.suffix.lower()
    height, width = photo.pixels.shape[:2]
    # Before restoring: the encoder would say so after minutes of work.
    longest = LONGEST_SIDES.get(suffix)
    if longest and max(height, width) > longest:
        raise DataError(
            f"'{job.source}' has {width} x {height} pixels, but a {suffix} file at most {longest} a side: take .png or "
            '.tif for the output'
        )
    photo = photo._replace(pixels=restorer(photo.pixels, degradation, tile))
    content = encode_photo(photo, suffix)
    write_file(job.target, mark(content) if suffix == '.png' else content)
    for note in (*photo.notes, *left_out(photo, suffix)):
        logger.warning(f"'{job.source}': {note}")
    return True
