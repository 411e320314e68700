"""The benchmarks that `lorair data prepare` knows, each described once: the table behind datasets/README.md too.

A template is a path as the authors have it, without its suffix. `{id}` stands for digits, `{path}` for any path, any
other `{word}` for a name without '/', `{a|b}` for one of these names, `*` for anything without '/', `**` for folders. A
pair has the same values in all that its two templates share. Case counts only where names differ in nothing else, and
folders may lie above.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How a release names its images.

    Attributes:
        gt: template of the ground truths.
        lq: template of the degraded images; None: there are none, they are made of the ground truths on the fly.
        listed: a text file beside the images that says which of them are meant.
        only: values of the one word of `gt` that are meant, where a folder holds more.
    """

    gt: str
    lq: str | None = None
    listed: str | None = None
    only: frozenset[str] | None = None

    @property
    def templates(self) -> tuple[str, ...]:
        return (self.gt,) if self.lq is None else (self.lq, self.gt)


@dataclass(frozen=True)
class Part:
    """A set of pairs within a benchmark: its training or test set, one of its degradations.

    Attributes:
        name: how its LMDBs begin.
        degradation: the class for the router.
        layouts: as its authors, and well-known papers, distribute it.
        pairs: their known number, None: it could not be established.
        gts: of different ground truths, where several degraded images share one.
        size: (width, height) of all images, either way round, where it is known to be the same.
        shared_gt: how the LMDB of ground truths begins that several parts share.
        crop_gt: ground truths are larger than their degraded images by the same border on opposite sides.
        degrade: options that degrade clean images, where there are no degraded ones.
    """

    name: str
    degradation: str
    layouts: tuple[Layout, ...]
    pairs: int | None = None
    gts: int | None = None
    size: tuple[int, int] | None = None
    shared_gt: str | None = None
    crop_gt: bool = False
    degrade: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, or a training set.

    Attributes:
        name: of the command.
        title: in papers.
        paper: where it was published.
        url: where to get it.
        parts: what it consists of.
        licence: as its authors state it; None: it could not be established.
        protocol: how papers measure on it, a name of `metrics/protocols.py`; 'not established'; None: it is trained on.
        note: what else is good to know.
    """

    name: str
    title: str
    paper: str
    url: str
    parts: tuple[Part, ...]
    licence: str | None = None
    protocol: str | None = None
    note: str = ''


def pairs(name: str, degradation: str, count: int | None, *layouts: Layout | tuple[str, str], **more) -> Part:
    """Describes a part; layouts are (template of the degraded images, of the ground truths)."""
    made = tuple(layout if isinstance(layout, Layout) else Layout(layout[1], layout[0]) for layout in layouts)
    return Part(name, degradation, made, count, **more)


def clean(name: str, degrade: str, count: int, *layouts: Layout | str, **more) -> Part:
    """Describes a part of clean images, degraded on the fly by `degrade`, such as 'noise, sigma: 25'."""
    made = tuple(layout if isinstance(layout, Layout) else Layout(layout) for layout in layouts)
    return Part(name, degrade.split(',')[0], made, count, degrade=f'{{type: {degrade}}}', **more)


def by_name(benchmarks: Iterable[Benchmark]) -> dict[str, Benchmark]:
    return {benchmark.name: benchmark for benchmark in benchmarks}
