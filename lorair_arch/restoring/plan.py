"""Where the results of restoring go: planned as a whole before the first is written, so that no picture is lost."""

from __future__ import annotations

import functools
import os
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lorair_arch.data.images.kinds import IMAGE_SUFFIXES
from lorair_arch.data.images.writing import WRITABLE
from lorair_arch.data.stores import normal
from lorair_arch.errors import OptionsError, OutputError
from lorair_arch.files import check_folder, exists, fitting
from lorair_arch.restoring.finding import COMPARISON, Found, find, identity, is_folder, is_pattern
from lorair_arch.restoring.settings import Settings

# The longest side in pixels, where there is a limit. JPEG itself ends at 65,535, but its encoders do before.
LONGEST_SIDES = {'.jpg': 65500, '.jpeg': 65500, '.webp': 16383}


class Job(NamedTuple):
    """An image and the file that its restored version goes to.

    Attributes:
        source, target: The two files; no target if the image cannot be read.
        name: Of the image, within its input.
        done: The target exists, and is to stay.
    """

    source: Path
    target: Path | None
    name: str
    done: bool = False

    @property
    def comparison(self) -> Path:
        """The file of the picture of before and after."""
        return Path(_comparison(str(self.target)))


class Plan(NamedTuple):
    """What a run does with each image of its input.

    Attributes:
        jobs: The images, in the order of their inputs; no two go to the same file, and none to a file that must not be
            replaced.
        refused: Those that cannot be read.
        results: Images that an earlier run has made; not restored again.
        repeated: Images that several inputs lead to; restored once.
        renamed: Those of `jobs` whose result has the whole name of the image, as others share its stem.
    """

    jobs: list[Job]
    refused: list[Found] = []
    results: list[Path] = []
    repeated: list[Path] = []
    renamed: list[Job] = []


def plan(inputs: Sequence[Path], output: Path, settings: Settings, as_folder: bool = False) -> Plan:
    """Plans a run.

    Args:
        inputs: Images, folders of images, or patterns of them.
        output: A folder or, for one image, also the name of a file.
        settings: Its `format`, `suffix` and `shard`; and `overwrite`: results may replace files that exist. Images of
            the input are never replaced.
        as_folder: The output is a folder, whatever its name looks like.

    Raises:
        DataError: There are no images. As an OutputError: the output does not fit the input, is one of its images or
            cannot be written.
        OptionsError: A setting does not fit the output.
    """
    as_folder = as_folder or os.path.isdir(output)
    if len(inputs) == 1 and not is_pattern(inputs[0]) and not is_folder(inputs[0]):
        whole = Plan([Job(inputs[0], _target_of_one(inputs[0], output, settings, as_folder), inputs[0].name)])
    else:
        whole = _plan_many(inputs, output, settings, as_folder)
    _protect(whole.jobs, settings.compare)
    _tell_apart(whole.jobs)
    # Only now: all shards agree on the names, whatever each of them has done.
    mine = whole._replace(
        jobs=[
            job._replace(done=exists(job.target) and not settings.overwrite)
            for job in whole.jobs
            if settings.has(job.name)
        ],
        refused=[image for image in whole.refused if settings.has(image.name)],
    )
    for folder in {job.target.parent for job in mine.jobs if not job.done}:
        check_folder(folder)  # all folders now, not after hours: one may be read-only
    return mine


def _target_of_one(source: Path, output: Path, settings: Settings, as_folder: bool) -> Path:
    suffix = output.suffix.lower()
    if suffix in WRITABLE and not as_folder:
        if settings.suffix:
            raise OptionsError(f"--suffix: output '{output}' is already the name of the result: leave one of them out")
        wanted = settings.ending(source.name).lower().replace('jpeg', 'jpg').replace('tiff', 'tif')
        if settings.format and wanted != suffix.replace('jpeg', 'jpg').replace('tiff', 'tif'):
            raise OptionsError(
                f"--format: found {settings.format!r}, but output '{output}' ends in {output.suffix}: leave one of "
                'them out'
            )
        return output
    _check_is_no_file(output)
    if suffix and not as_folder:
        raise OutputError(
            f"output '{output}' ends in {output.suffix}, but images are written as {', '.join(WRITABLE)}; "
            'if it is to be a folder, let it end in /'
        )
    return output / fitting(source.stem + settings.suffix, settings.ending(source.name))


def _plan_many(inputs: Sequence[Path], output: Path, settings: Settings, as_folder: bool) -> Plan:
    if output.suffix.lower() in IMAGE_SUFFIXES and not as_folder:
        what = 'is a folder' if len(inputs) == 1 else f'and {len(inputs) - 1} more may be many images'
        if is_pattern(inputs[0]):
            what = 'is a pattern'
        raise OutputError(f"output '{output}' is the name of an image, but input '{inputs[0]}' {what}: name a folder")
    _check_is_no_file(output)
    found = find(inputs, output)
    images = [image for image in found.images if not image.refused]
    names = _names(images, {_folded(name) for name in found.taken}, settings)
    jobs = [Job(image.source, output / name, image.name) for image, name in zip(images, names)]
    renamed = [job for job, image, name in zip(jobs, images, names) if name != _named(image, 0, settings)]
    refused = [image for image in found.images if image.refused]
    return Plan(jobs, refused, found.results, found.repeated, renamed)


def _check_is_no_file(output: Path) -> None:
    if os.path.lexists(output) and not os.path.isdir(output):
        raise OutputError(f"output '{output}' is no folder, but one is needed: choose another")


def _names(images: list[Found], taken: set[str], settings: Settings) -> list[str]:
    """Gives each image the name of its result: its own with another suffix; where that is not enough, behind its own.

    Neither the order of the images nor others than those of the same name have a part in it, so that a second run finds
    what the first has made. Names that a file system may take for the same are not different. Room for pictures of
    before and after is kept in any case: a second run may want them.
    """
    # A folder `a.png` of the input leaves no room for a result of that name.
    taken = taken | {_folded(str(folder)) for image in images for folder in Path(image.name).parents}
    levels = [0] * len(images)
    while True:
        names = [_named(image, level, settings) for image, level in zip(images, levels)]
        folded = [(_folded(name), _folded(_comparison(name))) for name in names]
        count = Counter(name for pair in folded for name in pair)
        # All that share a name move on together: which came first must not matter.
        clashing = [
            number
            for number, pair in enumerate(folded)
            if levels[number] < 3 and any(count[name] > 1 or name in taken for name in pair)
        ]
        if not clashing:
            return names
        for number in clashing:
            levels[number] += 1


def _named(image: Found, level: int, settings: Settings) -> str:
    """a.jpg: a.png; else a.jpg.png; where there is a.JPG too: a.jpg-4f2a6b1c.png; in two inputs: by where it lies."""
    path = Path(image.name)
    # Checksums of the name alone, or the place, so that a second run finds the same.
    of = os.path.realpath(image.source) if level == 3 else image.name
    stem = (path.stem, path.name)[level] if level < 2 else f'{path.name}-{zlib.crc32(os.fsencode(of)):08x}'
    return str(path.with_name(fitting(stem + settings.suffix, settings.ending(image.name))))


def _comparison(target: str) -> str:
    """a.png: a.compare.png; a.jpg: a.jpg.compare.png"""
    path = Path(target)
    stem = path.stem if path.suffix == '.png' else path.name
    return str(path.with_name(fitting(stem, COMPARISON)))


def _folded(name: str) -> str:
    """Gives what file systems that ignore case, or how accents are written, make of a name."""
    return normal(normal(name).casefold())  # once more, as casefold may take a letter apart


def _protect(jobs: list[Job], compare: bool) -> None:
    """Raises an OutputError if a result would replace an image of the input, by whatever name."""
    originals = {identity(job.source): job.source for job in jobs}
    for job in jobs:
        for target in (job.target, job.comparison) if compare else (job.target,):
            if exists(target) and (original := originals.get(identity(target))):
                raise OutputError(
                    f"output '{target}' would replace the input image '{original}': choose another output"
                )


def _tell_apart(jobs: list[Job]) -> None:
    """Raises an OutputError if links within the output lead the results of two images to the same file."""
    seen: dict[tuple[str, str], Job] = {}
    real = functools.cache(os.path.realpath)  # a folder has many images
    for job in jobs:
        place = real(job.target.parent), _folded(job.target.name)
        other = seen.setdefault(place, job)
        if other is not job:
            raise OutputError(
                f"the results of '{other.source}' and '{job.source}' would be the same file, as '{job.target.parent}' "
                f"is '{other.target.parent}': choose another output"
            )
