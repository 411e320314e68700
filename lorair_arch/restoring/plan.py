"""Where the results of restoring go: planned as a whole before the first is written, so that no picture is lost."""

from __future__ import annotations

import functools
import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lorair_arch.data.images.kinds import IMAGE_SUFFIXES, OTHER_SUFFIXES, refusal
from lorair_arch.data.images.writing import PNG_HEADER, WRITABLE, with_chunks
from lorair_arch.data.stores import image_files, natural_sort, normal
from lorair_arch.errors import DataError, OutputError
from lorair_arch.files import check_folder, exists, fitting

# The longest side in pixels, where there is a limit. JPEG itself ends at 65,535, but its encoders do before.
LONGEST_SIDES = {'.jpg': 65500, '.jpeg': 65500, '.webp': 16383}
_SOFTWARE = b'Software\0LoRA-IR'  # PNG's own keyword for what made a file


class Job(NamedTuple):
    """An image and the file that its restored version goes to."""

    source: Path
    target: Path


class Plan(NamedTuple):
    """What a run does with each image of its input.

    Attributes:
        jobs: To be restored; no two go to the same file, and none to a file that must not be replaced.
        done: Not restored again, as the target exists.
        results: Images in an output folder within the input that an earlier run has made; not restored either.
        renamed: Those of `jobs` and `done` whose result has the whole name of the image, as others share its stem.
        refused: A sentence for each image of the input that cannot be read.
    """

    jobs: list[Job]
    done: list[Job] = []
    results: list[Path] = []
    renamed: list[Job] = []
    refused: list[str] = []


def plan(source: Path, output: Path, overwrite: bool = False, as_folder: bool = False) -> Plan:
    """Plans a run.

    Args:
        source: An image or a folder of images.
        output: A folder or, for one image, also the name of a file.
        overwrite: Whether results may replace files that exist. Images of the input are never replaced.
        as_folder: The output is a folder, whatever its name looks like.

    Raises:
        DataError: There are no images. As an OutputError: the output does not fit the input, is one of its images or
            cannot be written.
    """
    as_folder = as_folder or os.path.isdir(output)
    if _is_folder(source):
        whole = _plan_folder(source, output, as_folder)
    else:
        whole = Plan([Job(source, _target_of_one(source, output, as_folder))])
    _protect(whole.jobs)
    _tell_apart(whole.jobs)
    parts = {False: [], True: []}
    for job in whole.jobs:
        parts[exists(job.target) and not overwrite].append(job)
    for folder in {job.target.parent for job in parts[False]}:
        check_folder(folder)  # all folders now, not after hours: one may be read-only
    return whole._replace(jobs=parts[False], done=parts[True])


def mark(png: bytes) -> bytes:
    """Says in a PNG what made it, for `is_marked`."""
    return with_chunks(png, {b'tEXt': _SOFTWARE})


def is_marked(path: str | os.PathLike[str]) -> bool:
    """Tells whether restoring has made a file."""
    try:
        with open(path, 'rb') as file:
            # Length and name of a chunk have four bytes each.
            return file.read(PNG_HEADER + 8 + len(_SOFTWARE)).endswith(b'tEXt' + _SOFTWARE)
    except OSError:  # of which reading the image will tell
        return False


def _is_folder(source: Path) -> bool:
    """Tells whether the input is a folder; raises a DataError if it is not there."""
    try:
        kind = os.stat(source).st_mode
    except FileNotFoundError:
        link = f"is a link to '{os.readlink(source)}', which " if source.is_symlink() else ''
        raise DataError(f"input '{source}' {link}does not exist: check the path") from None
    except OSError as error:
        raise DataError(f"input '{source}' cannot be read: {error.strerror}") from error
    if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        raise DataError(f"input '{source}' is a device: name an image or a folder")
    return stat.S_ISDIR(kind)


def _target_of_one(source: Path, output: Path, as_folder: bool) -> Path:
    suffix = output.suffix.lower()
    if suffix in WRITABLE and not as_folder:
        return output
    _check_is_no_file(output)
    if suffix and not as_folder:
        raise OutputError(
            f"output '{output}' ends in {output.suffix}, but images are written as {', '.join(WRITABLE)}; "
            'if it is to be a folder, let it end in /'
        )
    return output / fitting(source.stem, '.png')


def _plan_folder(source: Path, output: Path, as_folder: bool) -> Plan:
    if output.suffix.lower() in IMAGE_SUFFIXES and not as_folder:
        raise OutputError(f"output '{output}' is the name of an image, but input '{source}' is a folder: name one")
    _check_is_no_file(output)
    # By device and inode: a link, or another case of letters, is the same folder.
    if _identity(output) == _identity(source):
        raise OutputError(
            f"output '{output}' is the input folder, in which results would stand among the originals: choose another, "
            f"such as '{output / 'restored'}'"
        )
    within = _within(output)
    # An output folder within the input is seen again in a second run: its results are told by their mark.
    results, originals, refused, taken = [], [], [], set()
    for name in natural_sort(image_files(str(source), (*IMAGE_SUFFIXES, *OTHER_SUFFIXES))):
        if name.lower().endswith(OTHER_SUFFIXES):
            refused.append(refusal(str(source / name)))
            continue
        if os.path.exists(source / name) and not os.path.isfile(source / name):  # a pipe would be waited for for ever
            refused.append(f"cannot read '{source / name}': it is no file")
            continue
        inner = within((source / name).parent)
        if inner is not None and is_marked(source / name):
            results.append(source / name)
            continue
        originals.append(name)
        if inner is not None:  # an original in the output folder: no result gets its name
            taken.add(_folded(str(inner / Path(name).name)))
    if not originals and not refused:
        what = f"no images beside the results in output '{output}'" if results else 'no images'
        raise DataError(f"input '{source}' holds {what}: check the paths")
    names = _names(originals, taken)
    jobs = [Job(source / name, output / target) for name, target in names.items()]
    renamed = [job for job, (name, target) in zip(jobs, names.items()) if target != _named(name, 0)]
    return Plan(jobs, results=results, renamed=renamed, refused=refused)


def _check_is_no_file(output: Path) -> None:
    if os.path.lexists(output) and not os.path.isdir(output):
        raise OutputError(f"output '{output}' is no folder, but one is needed: choose another")


def _within(output: Path) -> Callable[[Path], Path | None]:
    """Gives a function that tells where in the output a folder lies, by whatever way it was reached; None: outside."""
    identity = _identity(output)

    @functools.cache  # a folder has many images
    def place(folder: Path) -> Path | None:
        real = Path(os.path.realpath(folder))
        above = (f for f in (real, *real.parents) if identity and _identity(f) == identity)
        return next((real.relative_to(f) for f in above), None)

    return place


def _names(originals: list[str], taken: set[str]) -> dict[str, str]:
    """Gives each image the name of its result: its own with another suffix; where that is not enough, behind its own.

    Neither the order of the images nor others than those of the same name have a part in it, so that a second run finds
    what the first has made. Names that a file system may take for the same are not different.
    """
    # A folder `a.png` of the input leaves no room for a result of that name.
    taken = taken | {_folded(str(folder)) for name in originals for folder in Path(name).parents}
    levels = dict.fromkeys(originals, 0)
    while True:
        names = {name: _named(name, level) for name, level in levels.items()}
        folded = {name: _folded(target) for name, target in names.items()}
        count = Counter(folded.values())
        # All that share a name move on together: which came first must not matter.
        clashing = [name for name in names if levels[name] < 2 and (count[folded[name]] > 1 or folded[name] in taken)]
        if not clashing:
            return names
        for name in clashing:
            levels[name] += 1


def _named(name: str, level: int) -> str:
    """a.jpg: a.png; else a.jpg.png; where there is a.JPG too: a.jpg-4f2a6b1c.png"""
    path = Path(name)
    # The checksum is of the name alone, so that a second run finds the same.
    stem = (path.stem, path.name, f'{path.name}-{zlib.crc32(os.fsencode(name)):08x}')[level]
    return str(path.with_name(fitting(stem, '.png')))


def _folded(name: str) -> str:
    """Gives what file systems that ignore case, or how accents are written, make of a name."""
    return normal(normal(name).casefold())  # once more, as casefold may take a letter apart


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Gives what two names of the same file have in common."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _protect(jobs: list[Job]) -> None:
    """Raises an OutputError if a result would replace an image of the input, by whatever name."""
    originals = {_identity(job.source): job.source for job in jobs}
    for job in jobs:
        if exists(job.target) and (original := originals.get(_identity(job.target))):
            raise OutputError(
                f"output '{job.target}' would replace the input image '{original}': choose another output"
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
