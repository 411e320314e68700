"""What a folder is, where it is not what the user has said."""

from __future__ import annotations

import os

from lorair_arch.data.prepare.benchmarks import Benchmark
from lorair_arch.data.prepare.layouts import find
from lorair_arch.data.prepare.templates import match
from lorair_arch.data.stores import natural_sort
from lorair_arch.errors import DataError

_VAGUE = ('folder', 'foundir')  # whose layouts many folders have
_ENOUGH = 1_000  # names tell a benchmark; a release may have a hundred thousand


def not_found(benchmark: Benchmark, source: str, names: list[str], others: dict[str, Benchmark]) -> str:
    """Says in one sentence that a source holds nothing of a benchmark, and what it seems to be.

    Args:
        benchmark: what was looked for.
        source: the folder or archive.
        names: of its images, each of which begins with the last part of `source`.
        others: all benchmarks.
    """
    layout = benchmark.parts[0].layouts[0]
    expected = f'expected {" and ".join(repr(template) for template in layout.templates)}'
    if not names:
        return f"'{source}' holds no images: {expected}"
    some = _some(names)
    before = f"'{source}' is not {benchmark.name}: found "
    above = _level(benchmark, source, some)
    if above:
        return f"{before}what belongs below '{above}', so name that folder with --from"
    half = _half(benchmark, some) or _unlisted(benchmark, some)
    if half:
        return before + half
    seems = _looks_like(benchmark, some, others)
    if seems:
        return f"{before}'{names[0]}' and what looks like {seems} ({others[seems].title}); {expected}"
    return f"{before}{len(names)} images such as '{names[0]}', {expected}"


def _some(names: list[str]) -> list[str]:
    """Gives the first images of each folder: those that belong together are at about the same places of theirs."""
    folders: dict[str, list[str]] = {}
    for name in natural_sort(names):
        folders.setdefault(os.path.dirname(name), []).append(name)
    each = max(1, _ENOUGH // len(folders))
    return [name for images in folders.values() for name in images[:each]]


def _level(benchmark: Benchmark, source: str, names: list[str]) -> str | None:
    """Gives the folder above the source that holds what a layout begins with."""
    path, above = os.path.dirname(os.path.abspath(source)), ''
    for _ in range(3):
        above = f'{os.path.basename(path)}/{above}'
        for layout in (layout for part in benchmark.parts for layout in part.layouts):
            begins = {template.split('/')[0] for template in layout.templates}
            fitting = (next(filter(None, (match(t, above + name) for t in layout.templates)), None) for name in names)
            found = [m for m in fitting if m]
            if 2 * len(found) > len(names) and not any(m.folder for m in found):
                # The two sides of a pair may lie in folders of their own.
                return path if len(begins) == 1 else os.path.dirname(path)
        path = os.path.dirname(path)
    return None


def _half(benchmark: Benchmark, names: list[str]) -> str | None:
    """Says which side of a pair alone is there."""
    for part in benchmark.parts:
        for layout in part.layouts:
            there = [template for template in layout.templates if any(match(template, name) for name in names)]
            if len(there) == 1 and len(layout.templates) == 2 and not layout.listed:
                other = next(template for template in layout.templates if template not in there)
                rest = 'that belongs to one of them: get these too, or name the folder above both with --from'
                return f"images '{there[0]}' but none '{other}' {rest}"
    return None


def _unlisted(benchmark: Benchmark, names: list[str]) -> str | None:
    """Says that the list is missing which tells the images of a part."""
    for part in benchmark.parts:
        for layout in part.layouts:
            if layout.listed and all(any(match(template, name) for name in names) for template in layout.templates):
                return f"its images but no '{layout.listed}', which says what is '{part.name}': put it beside them"
    return None


def _looks_like(benchmark: Benchmark, names: list[str], others: dict[str, Benchmark]) -> str | None:
    """Names the benchmark, other than the one looked for, most of whose layout the names fit."""
    scores = {'folder': 0.5 * bool(find(others['folder'], names, {}).found)}  # it fits much, and says least
    for name, other in others.items():
        if name not in (benchmark.name, *_VAGUE):
            try:
                scores[name] = sum(len(found.pairs) for found in find(other, names, {}).found)
            except DataError:  # it is there more than once
                continue
    best = max(scores, key=scores.get)
    return best if scores[best] else None
