"""An evaluation from two folders to its tables: text, Markdown, LaTeX or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from lorair_arch.data.stores import open_store
from lorair_arch.errors import OptionsError
from lorair_arch.evaluating.scores import names_of, pattern_of, score
from lorair_arch.metrics import published, statistics
from lorair_arch.metrics.measuring import mean, what_is_left_out
from lorair_arch.metrics.protocols import PROTOCOLS
from lorair_arch.metrics.protocols import protocol as protocol_of

FORMATS = {'text': 'plain', 'markdown': 'github', 'latex': 'latex_booktabs', 'json': None}


class Report(NamedTuple):
    """What an evaluation says.

    Attributes:
        text: the tables.
        notes: sentences on what is left out of the means, and on what may not be compared.
        failures: a sentence for each image that could not be read.
    """

    text: str
    notes: list[str]
    failures: list[str]


def evaluate(
    results: str,
    gt: str,
    protocol: str | None = None,
    *,
    match: str | None = None,
    suffixes: Sequence[str] = (),
    against: str | None = None,
    compare: str | None = None,
    per_image: bool = False,
    style: str = 'text',
) -> Report:
    """Scores a folder of results.

    Args:
        results, gt: Folders or LMDBs of images.
        protocol: A name in `PROTOCOLS`; may be None with `compare`: the one by which its numbers were published.
        match, suffixes: See `scores.pattern_of`.
        against: Other results of the same images, to tell the difference.
        compare: A benchmark, SETTING/SET, to show its published numbers.
        per_image: Whether to list every image.
        style: A name in `FORMATS`.

    Raises:
        OptionsError: One of the names is unknown, or there is no protocol.
        DataError: See `scores.score`.
    """
    benchmark = published.benchmark(compare, '--compare') if compare else None
    protocol = protocol or (benchmark.protocol if benchmark else None)
    if protocol is None:
        why = f', as the sources of {compare} do not say theirs' if compare else ''
        raise OptionsError(f'--protocol: missing, expected one of {", ".join(PROTOCOLS)}{why}')
    metrics, pattern = protocol_of(protocol, '--protocol').metrics, pattern_of(match, suffixes)
    ours, truths = open_store(results), open_store(gt)
    records, failures = score(ours, truths, metrics, pattern)
    notes, measured = what_is_left_out(records), len(records) - len(failures)
    content: dict[str, Any] = {
        'results': results,
        'gt': gt,
        'protocol': protocol,
        'metrics': _summary(records, metrics),
    }
    if against:
        theirs = open_store(against)
        others, more = score(theirs, truths, metrics, pattern)
        failures = list(dict.fromkeys([*failures, *more]))  # of a ground truth both say it
        notes += [f"'{against}': {note}" for note in what_is_left_out(others)]
        places = names_of(ours, theirs, pattern)
        paired = [records[i] for i, _ in places], [others[i] for _, i in places]
        differences = {name: statistics.differences(*paired, name) for name in metrics}
        content['against'] = {
            'results': against,
            'metrics': _summary(others, metrics),
            'difference': {name: _spread(values) for name, values in differences.items()},
        }
    if compare:
        notes += published.mismatches(compare, protocol, measured)
        numbers = [{**number._asdict(), 'remark': published.remark(number, protocol)} for number in benchmark.numbers]
        content['published'] = {'benchmark': compare, 'protocol': benchmark.protocol, 'numbers': numbers}
    if per_image:
        content['images'] = records
    if style == 'json':
        content |= {'notes': notes, 'unreadable': failures}
        return Report(json.dumps(content, indent=2, allow_nan=False), notes, failures)
    tables = [_scores(content, metrics)] + ([_published(content)] if compare else [])
    text = '\n\n'.join(tabulate(rows, header, FORMATS[style], disable_numparse=True) for header, rows in tables)
    return Report(text, notes, failures)


def _summary(records: Sequence[dict], metrics: dict) -> dict[str, dict[str, Any]]:
    return {name: _spread([record[name] for record in records if name in record]) for name in metrics}


def _spread(values: list[float]) -> dict[str, Any]:
    return {'mean': mean(values), 'interval': statistics.interval(values), 'images': len(values)}


def _scores(content: dict[str, Any], metrics: dict) -> tuple[list[str], list[list[str]]]:
    rows = [[r['image'], *(_number(r.get(name)) for name in metrics)] for r in content.get('images', ())]
    rows += _lines(content['results'], content['metrics'])
    if 'against' in content:
        rows += _lines(content['against']['results'], content['against']['metrics'])
        rows += _lines('difference', content['against']['difference'], '+')
    return [content['protocol'], *metrics], rows


def _lines(name: str, spreads: dict[str, dict[str, Any]], sign: str = '') -> list[list[str]]:
    """Gives the rows of a mean: itself, its interval, and of how many images."""
    return [
        [name, *(_number(s['mean'], sign) for s in spreads.values())],
        [statistics.LABEL, *(statistics.shown(s['interval'], sign) for s in spreads.values())],
        ['images', *(str(s['images']) for s in spreads.values())],
    ]


def _published(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    means = [content['metrics'].get(name, {}).get('mean') for name in ('psnr', 'ssim')]
    rows = [[content['results'], 'here', *map(_number, means), '', f'measured by {content["protocol"]}', '']]
    for number in content['published']['numbers']:
        parameters = '' if number['parameters'] is None else f'{number["parameters"]:g} M'
        values = (number['method'], str(number['year']), number['psnr'], number['ssim'], parameters)
        rows.append([*values, number['remark'], number['source']])
    header = [content['published']['benchmark'], 'year', 'psnr', 'ssim', 'parameters', 'remark', 'source']
    ours, others = rows[0], rows[1:]
    place = sum(means[0] is not None and float(row[2]) > means[0] for row in others)
    return header, [*others[:place], ours, *others[place:]]


def _number(value: float | None, sign: str = '') -> str:
    return '-' if value is None else f'{value:{sign}.4f}'
