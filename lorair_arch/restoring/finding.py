"""Which images the inputs of a run lead to (files, folders, patterns), and what each is called among the results."""

from __future__ import annotations

import functools
import glob
import itertools
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lorair_arch.data.images.kinds import IMAGE_SUFFIXES, OTHER_SUFFIXES, refusal
from lorair_arch.data.stores import image_files, natural_sort
from lorair_arch.errors import DataError, OutputError
from lorair_arch.files import NO_FILES
from lorair_arch.restoring.marks import is_comparison, is_marked

COMPARISON = '.compare.png'  # how pictures of before and after end
_SUFFIXES = (*IMAGE_SUFFIXES, *OTHER_SUFFIXES)


class Found(NamedTuple):
    """An image of the input.

    Attributes:
        source: Where it lies.
        name: Its path within its input folder, or the folder that a pattern begins with; of a file its own name.
        refused: A sentence, if it cannot be read.
    """

    source: Path
    name: str
    refused: str = ''


class Finding(NamedTuple):
    """What the inputs lead to.

    Attributes:
        images: Each once, those that are refused too.
        results: What an earlier run has made, in the output folder, or as pictures of before and after: no input.
        repeated: Images that several inputs lead to.
        taken: Names, within the output, of images that lie there and are no results.
    """

    images: list[Found]
    results: list[Path]
    repeated: list[Path]
    taken: set[str]


def is_pattern(path: Path) -> bool:
    """Tells whether an input is a pattern, such as 'photos/*.jpg', that the shell has left alone."""
    return not os.path.lexists(path) and glob.has_magic(str(path))  # a file `a[1].jpg` is no pattern


def is_folder(source: Path) -> bool:
    """Tells whether an input is a folder; raises a DataError if it is not there."""
    try:
        kind = os.stat(source).st_mode
    except FileNotFoundError:
        link = f"is a link to '{os.readlink(source)}', which " if source.is_symlink() else ''
        raise DataError(f"input '{source}' {link}does not exist: check the path") from None
    except OSError as error:
        raise DataError(f"input '{source}' cannot be read: {error.strerror}") from error
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # nobody may ever write into a pipe
        raise DataError(f"input '{source}' is {NO_FILES.get(stat.S_IFMT(kind), 'no file')}: name an image or a folder")
    return stat.S_ISDIR(kind)


def find(inputs: Sequence[Path], output: Path) -> Finding:
    """Finds the images of files, folders and patterns.

    Raises:
        DataError: An input does not exist, or there are no images. As an OutputError: the output is an input folder.
    """
    expanded = [_expanded(input) for input in inputs]
    for input, found in zip(inputs, expanded):
        # By device and inode: a link, or another case of letters, is the same folder.
        if identity(input) != identity(output) or identity(output) is None:
            continue
        # `photos/* -o photos/restored`: a second time, the shell names the output too.
        if len(inputs) == 1 or not all(is_marked(image.source) for image in found):
            raise OutputError(
                f"output '{output}' is the input folder, in which results would stand among the originals: choose "
                f"another, such as '{output / 'restored'}'"
            )
    single, repeated = _each_once(expanded)
    within = _within(output)
    # An output folder within the input is seen again in a second run: its results are told by their mark.
    results, originals, taken = [], [], set()
    for image in single:
        inner = within(image.source.parent)
        is_result = is_marked(image.source) if inner is not None else _ends_as_comparison(image)
        if is_result and not image.refused:
            results.append(image.source)
            continue
        originals.append(image)
        if inner is not None:  # an original in the output folder: no result gets its name
            taken.add(str(inner / image.source.name))
    if not originals:
        names = ', '.join(f"'{input}'" for input in inputs)
        what = f"no images beside the results in output '{output}'" if results else 'no images'
        holds = f'input {names} holds' if len(inputs) == 1 else f'inputs {names} hold'
        raise DataError(f'{holds} {what}: check the paths')
    return Finding(originals, results, repeated, taken)


def identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Gives what two names of the same file have in common."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _ends_as_comparison(image: Found) -> bool:
    return image.name.endswith(COMPARISON) and is_comparison(image.source)


def _expanded(path: Path) -> list[Found]:
    if is_pattern(path):
        return list(_matches(path))
    return list(_in_folder(path, path)) if is_folder(path) else [Found(path, path.name)]


def _in_folder(folder: Path, root: Path) -> Iterator[Found]:
    for name in natural_sort(image_files(str(folder), _SUFFIXES)):
        yield _found(folder / name, root)


def _matches(pattern: Path) -> Iterator[Found]:
    """Gives the images that match a pattern, and those in folders that do."""
    # What the names of results begin with comes behind the folders that are no pattern themselves.
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    seen = set()
    for match in natural_sort(glob.iglob(str(pattern), recursive=True)):
        if os.path.isdir(match):
            images = _in_folder(Path(match), root)
        else:
            images = [_found(Path(match), root)] if match.lower().endswith(_SUFFIXES) else []
        for image in images:
            if image.name not in seen:  # `**` gives a folder, and all that is in it
                seen.add(image.name)
                yield image


def _found(source: Path, root: Path) -> Found:
    name = os.path.relpath(source, root)
    if name.startswith(os.pardir):  # a pattern like `a*/../b.png`: no result leaves the output folder
        name = source.name
    if name.lower().endswith(OTHER_SUFFIXES):
        return Found(source, name, refusal(str(source)))
    if os.path.exists(source) and not os.path.isfile(source):  # a pipe would be waited for for ever
        return Found(source, name, f"cannot read '{source}': it is no file")
    return Found(source, name)


def _each_once(expanded: list[list[Found]]) -> tuple[list[Found], list[Path]]:
    """Leaves each image to one of the inputs that lead to it: the outermost folder, whichever was named first."""
    real = functools.cache(os.path.realpath)  # a folder has many images
    placed = [
        (number, image, os.path.join(real(image.source.parent), image.source.name))
        for number, images in enumerate(expanded)
        for image in images
    ]
    owner: dict[str, tuple] = {}
    for number, image, place in placed:
        claim = -len(Path(image.name).parts), image.name, number
        owner[place] = min(owner.get(place, claim), claim)
    single = [image for number, image, place in placed if owner[place][2] == number]
    repeated = dict.fromkeys(image.source for number, image, place in placed if owner[place][2] != number)
    return single, list(repeated)


def _within(output: Path) -> Callable[[Path], Path | None]:
    """Gives a function that tells where in the output a folder lies, by whatever way it was reached; None: outside."""
    wanted = identity(output)

    @functools.cache  # a folder has many images
    def place(folder: Path) -> Path | None:
        real = Path(os.path.realpath(folder))
        above = (f for f in (real, *real.parents) if wanted and identity(f) == wanted)
        return next((real.relative_to(f) for f in above), None)

    return place
