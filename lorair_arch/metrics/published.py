"""What was published, to stand beside what is measured: `published.yml`, its rows, and the page that is made of it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple

import yaml

from lorair_arch.errors import OptionsError, did_you_mean
from lorair_arch.metrics.protocols import PROTOCOLS


class Number(NamedTuple):
    """What a source says of a method on a test set.

    Attributes:
        psnr, ssim: as they are printed there; '-': not given.
        parameters: in millions, or None.
        source: its title; `url`: where it is.
        outlier: why the value is doubtful, or ''.
        protocol: how it was measured, a name in `PROTOCOLS`; None: the source does not say.
    """

    method: str
    year: int
    benchmark: str
    psnr: str
    ssim: str
    parameters: float | None
    source: str
    url: str
    outlier: str
    protocol: str | None


class Benchmark(NamedTuple):
    """A test set within a setting: what a method has learned decides its numbers as much as the set does.

    Attributes:
        title: of the set.
        setting: the setting's title.
        images: how many the set has, or None.
        protocol: how most of the numbers were measured, a name in `PROTOCOLS`; None: the sources do not say.
        numbers: best PSNR first.
    """

    title: str
    setting: str
    images: int | None
    protocol: str | None
    numbers: list[Number]


@functools.cache
def benchmarks() -> dict[str, Benchmark]:
    """Gives all benchmarks by their names, SETTING/SET."""
    content = yaml.safe_load(files('lorair_arch.metrics').joinpath('published.yml').read_text('utf-8'))
    numbers = sorted(_numbers(content), key=lambda number: -float(number.psnr))
    return {
        f'{key}/{name}': Benchmark(
            title, setting['title'], images, setting['protocol'], [n for n in numbers if n.benchmark == f'{key}/{name}']
        )
        for key, setting in content['settings'].items()
        for name, (title, images) in setting['sets'].items()
    }


def benchmark(name: str, where: str) -> Benchmark:
    """Gives a benchmark.

    Raises:
        OptionsError: There is none of this name; `where` begins the sentence.
    """
    if name not in benchmarks():
        raise OptionsError(f'{where}: found {name!r}, expected SETTING/SET{did_you_mean(name, benchmarks())}')
    return benchmarks()[name]


def mismatches(name: str, protocol: str, images: int) -> list[str]:
    """Says in sentences why numbers that were measured here may not be compared with the published ones.

    Args:
        name: of the benchmark.
        protocol: the one that was measured by.
        images: how many were measured.
    """
    published, found = benchmarks()[name], []
    if published.protocol is None:
        found.append(f'the sources of {name} do not say how they measured: compare with care')
    elif published.protocol != protocol:
        ours, theirs = PROTOCOLS[protocol].what, PROTOCOLS[published.protocol].what
        found.append(
            f'measured by {protocol} ({ours}), but {name} was published by {published.protocol} ({theirs}): '
            f'not comparable, measure with --protocol {published.protocol}'
        )
    if published.images not in (None, images):
        what = '1 image was' if images == 1 else f'{images} images were'
        found.append(f'{what} measured, but {published.title} has {published.images}: not comparable')
    return found


def remark(number: Number, protocol: str | None) -> str:
    """Says what is odd about a number, or '': an outlier, or of another protocol than the one given."""
    how = f'measured by {number.protocol}' if number.protocol else 'its source does not say how it measured'
    other = how if number.protocol != protocol else ''
    return '; '.join(filter(None, (number.outlier, other)))


def page() -> str:
    """Gives all published numbers as a page of Markdown."""
    lines = [
        '# Published numbers',
        '',
        '<!-- made by: lorair evaluate --published > datasets/BENCHMARKS.md -->',
        '',
        'PSNR (dB) / SSIM as their sources print them, and how they were measured. To set your own beside them:',
        '',
        '```bash',
        'lorair evaluate RESULTS GT --compare all_weather/outdoor_rain',
        '```',
        '',
        'A method is listed once for each set, by the first source of it that was found; `*` marks values that are',
        'doubtful or of another protocol, explained below each table. LoRA-IR itself is missing: its READMEs have no',
        'numbers, and the tables of its paper were not at hand.',
        '',
        '## Protocols',
        '',
        '| `--protocol` | measures | numbers of |',
        '|---|---|---|',
        *(f'| `{name}` | {protocol.what} | {protocol.used_by} |' for name, protocol in PROTOCOLS.items()),
    ]
    for setting in dict.fromkeys(b.setting for b in benchmarks().values()):
        lines += ['', *_table(setting)]
    return '\n'.join(lines) + '\n'


def _numbers(content: dict) -> Iterator[Number]:
    for table in content['tables']:
        source, url = content['sources'][table['source']]
        usual = table.get('protocol', content['settings'][table['setting']]['protocol'])
        for method, year, parameters, *values in table['rows']:
            for name, value in zip(table['sets'], values, strict=True):
                place = f'{table["setting"]}/{name}'
                psnr, _, ssim = value.partition('/')
                if psnr != '-':
                    outlier = content['outliers'].get(f'{place}/{method}', '')
                    protocol = content['protocols'].get(method, usual)
                    yield Number(method, year, place, psnr, ssim or '-', parameters, source, url, outlier, protocol)


def _table(setting: str) -> Iterator[str]:
    """Gives the lines of one setting: a row for each method and source, a column for each set."""
    sets = {name: b for name, b in benchmarks().items() if b.setting == setting}
    measured = next(iter(sets.values())).protocol
    yield from (f'## {setting}', '')
    yield f'Protocol: `{measured}`.' if measured else 'Protocol: the source does not say how it measured.'
    names = ', '.join(f'`{name}`' for name in sets)
    yield from (f'`--compare`: {names}.', '')
    rows: dict[tuple, dict[str, Number]] = {}
    for name, b in sets.items():
        for number in b.numbers:
            rows.setdefault((number.year, number.method, number.source), {})[name] = number
    yield '| method | year | parameters (M) | ' + ' | '.join(b.title for b in sets.values()) + ' | source |'
    yield '|---' * (len(sets) + 4) + '|'
    for (year, method, source), row in sorted(rows.items()):
        some = next(iter(row.values()))
        values = [
            f'{n.psnr} / {n.ssim}{"*" * bool(remark(n, measured))}' if (n := row.get(name)) else '' for name in sets
        ]
        cells = (method, str(year), f'{some.parameters or ""}', *values, f'[{source}]({some.url})')
        yield '| ' + ' | '.join(cells) + ' |'
    remarks: dict[str, list[str]] = {}
    for b in sets.values():
        for n in b.numbers:
            if why := remark(n, measured):
                remarks.setdefault(f'{n.method}: {why}.', []).append(b.title)
    yield from ['', *(f'- \\* {", ".join(titles)}: {why}' for why, titles in remarks.items())] if remarks else []
