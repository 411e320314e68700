"""`lorair data check`: reads every image of an options file and says at once all that is wrong with any."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from tabulate import tabulate
from tqdm import tqdm

from lorair_arch.data.check.parts import Facts, Finder, Image, Part, read_facts
from lorair_arch.data.stores import Lmdb
from lorair_arch.errors import LoRAIRError, Mistake, different_sizes, quoted, too_small
from lorair_arch.options.keys import OWN_MODELS, datasets
from lorair_arch.options.reading import complete_datasets
from lorair_arch.options.yaml_file import read_yaml
from lorair_arch.schema import checked

_MAX_THREADS = 16


class Report(NamedTuple):
    """What was found.

    Attributes:
        table: a row for each source: pairs or images, their sizes and kinds.
        problems: what would stop a training or a test, or spoil it, a sentence each.
        warnings: what may be meant.
        images: how many were read.
    """

    table: str
    problems: list[str]
    warnings: list[str]
    images: int


def check_data(file: str) -> Report:
    """Reads every image that an options file trains, validates or tests on.

    Args:
        file: Options of a training or a test; nothing but `datasets` must be right, no weights need be there.

    Raises:
        OptionsError: The options of the data sets are wrong.
    """
    finder = Finder()
    parts = [part for options in datasets_of(file).values() for part in finder.parts(options)]
    found = _read(parts)
    problems, warnings = finder.problems, finder.warnings
    problems += [fact for fact in found.values() if isinstance(fact, str)]
    for part in parts:
        part.facts = {i.path: found[i.path] for i in part.images if isinstance(found[i.path], Facts)}
        problems += _unreadable_samples(part) + _wrong_sizes(part)
        warnings += _oddities(part)
    warnings += _leaks(parts)
    # a folder may be in several sources
    return Report(_table(parts), list(dict.fromkeys(problems)), list(dict.fromkeys(warnings)), len(found))


def datasets_of(file: str) -> dict[str, Any]:
    """Checks and completes the options of the data sets in a file, whatever else is wrong in it."""
    opt = read_yaml(file)
    sets = opt.get('datasets')
    is_train = isinstance(sets, dict) and 'train' in sets
    spec = datasets(is_train, own=opt.get('model_type') in OWN_MODELS)
    opt['datasets'] = checked(spec, sets, 'datasets', f'{file}: ')
    opt.setdefault('scale', 1)
    complete_datasets(opt)
    return opt['datasets']


def _read(parts: list[Part]) -> dict[str, Facts | str]:
    """Reads each image once; gives its facts, or what is wrong with it, by its path."""
    images = {image.path: image for part in parts for image in part.images}
    threads = min(os.cpu_count() or 1, _MAX_THREADS)
    # Threads: decoders let go of Python's lock, and LMDBs stay open for all.
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(_look, images.values())
        return dict(zip(images, tqdm(found, 'Reading', len(images), leave=False, unit='image', disable=None)))


def _look(image: Image) -> Facts | str:
    facts = read_facts(*image)
    if isinstance(facts, Facts) and isinstance(image.store, Lmdb):
        expected = image.store.sizes.get(image.key) or facts.size
        if expected != facts.size:
            sizes = [f'{width} x {height}' for width, height in (facts.size, expected)]
            return f"'{image.path}' is {sizes[0]} pixels, its meta_info.txt says {sizes[1]}; make the LMDB again"
    return facts


def _unreadable_samples(part: Part) -> list[str]:
    problems = []
    for i in range(len(part.samples) if part.samples else 0):
        try:
            part.samples[i]
        except LoRAIRError as error:
            problems.append(str(error))
    return problems


def _wrong_sizes(part: Part) -> list[str]:
    problems, sizes = [], {path: fact.size for path, fact in part.facts.items()}
    for lq, gt in _readable_pairs(part):
        more = [side - part.scale * wanted for side, wanted in zip(sizes[gt], sizes[lq])]
        # BasicSR's data sets cut the ground truths of validations and tests
        if any(more) and (part.own or part.training or min(more) < 0):
            problems.append(different_sizes(lq, sizes[lq], gt, sizes[gt], part.scale))
    clean = [gt for _, gt in part.pairs] or part.images
    for path in [image.path for image in clean] if part.gt_size else []:
        if path in sizes and min(sizes[path]) < part.gt_size:
            problems.append(too_small(path, sizes[path], part.gt_size, part.own))
    return problems


def _oddities(part: Part) -> list[str]:
    facts, pairs = part.facts, _readable_pairs(part)
    turned = [pair for pair in pairs if len({facts[path].orientation for path in pair}) > 1]
    found = {
        'grey images, whose three channels will be the same': [path for path in facts if facts[path].grey],
        'images with an alpha channel, which will be dropped': [path for path in facts if facts[path].alpha],
        'files of several images, of which the first will be used': [path for path in facts if facts[path].frames > 1],
        'degraded images that are the same as their ground truth': [
            lq for lq, gt in pairs if facts[lq].digest == facts[gt].digest
        ],
        'images that EXIF data turn but not their partners, which is ignored': [
            lq if facts[lq].orientation != 1 else gt for lq, gt in turned
        ],
    }
    where = f"data set '{part.dataset}', {part.source}: "
    return [Mistake(f'{where}{what}: ', quoted(paths), '').sentence() for what, paths in found.items() if paths]


def _readable_pairs(part: Part) -> list[tuple[str, str]]:
    return [(lq.path, gt.path) for lq, gt in part.pairs if lq.path in part.facts and gt.path in part.facts]


def _leaks(parts: list[Part]) -> list[str]:
    """Finds images of validations and tests that are in the training set too, whatever their names."""
    trained = {fact.digest: path for part in parts if part.training for path, fact in part.facts.items()}
    leaks: dict[str, dict[str, str]] = {}
    for part in parts:
        for path, fact in part.facts.items():
            if not part.training and fact.digest in trained:
                leaks.setdefault(part.dataset, {})[path] = f"'{path}' is '{trained[fact.digest]}'"
    before = "data set '{}' has images of the training set, its results will look too good: "
    return [Mistake(before.format(name), list(found.values()), '').sentence() for name, found in leaks.items()]


def _table(parts: list[Part]) -> str:
    """Gives the table: sizes are those of the smallest, the middle and the largest image, by their area."""
    header = ('data set', 'source', 'images', 'pairs', 'smallest', 'median', 'largest', 'kinds')
    rows = []
    for part in parts:
        facts = sorted(part.facts.values(), key=lambda fact: (fact.size[0] * fact.size[1], fact.size))
        sizes = ['{} x {}'.format(*fact.size) for fact in facts] or ['-']
        shown = [sizes[i] for i in (0, len(sizes) // 2, -1)]
        kinds = ', '.join(
            f'{count} {kind}' for kind, count in Counter(f.kind for f in part.facts.values()).most_common()
        )
        count = len(part.samples) if part.samples else len({image.path for image in part.images})
        rows.append((part.dataset, part.source, count, len(part.pairs), *shown, kinds or '-'))
    return tabulate(rows, header, 'github', disable_numparse=True) + '\n'
