"""Writes the benchmarks' part of datasets/README.md from the table that `lorair data prepare` goes by.

    python scripts/data_preparation/datasets_readme.py

With --check it changes nothing, and fails if the file is not up to date.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lorair_arch.data.prepare.benchmarks import Benchmark, Layout, Part
from lorair_arch.data.prepare.prepare import BENCHMARKS
from lorair_arch.files import write_file

FILE = Path(__file__).parents[2] / 'datasets' / 'README.md'
BEGIN, END = '<!-- benchmarks: made by scripts/data_preparation/datasets_readme.py -->\n', '<!-- benchmarks end -->\n'


def pages() -> str:
    """Gives all benchmarks: a table of what they are, then how each is laid out."""
    lines = ['| NAME | benchmark | paper | licence | protocol |', '|---|---|---|---|---|']
    for benchmark in BENCHMARKS.values():
        title = benchmark.title if benchmark.url == '-' else f'[{benchmark.title}]({benchmark.url})'
        licence = benchmark.licence or 'not established'
        lines.append(
            f'| `{benchmark.name}` | {title} | {benchmark.paper} | {licence} | {benchmark.protocol or "training"} |'
        )
    return '\n'.join(lines) + '\n\n' + '\n'.join(map(_layouts, BENCHMARKS.values()))


def _layouts(benchmark: Benchmark) -> str:
    lines = [f'### `{benchmark.name}`: {benchmark.title}\n']
    if benchmark.note:
        lines.append(f'{benchmark.note}\n')
    lines += ['| part | degradation | pairs | degraded images | ground truths |', '|---|---|---|---|---|']
    return '\n'.join([*lines, *map(_row, benchmark.parts), ''])


def _row(part: Part) -> str:
    count = 'not established' if part.pairs is None else f'{part.pairs:,}'
    count += f' ({part.gts:,} ground truths)' if part.gts else ''
    count += ', {} x {}'.format(*part.size) if part.size else ''
    sides = zip(*(_sides(part, layout) for layout in part.layouts), strict=True)
    lqs, gts = (' or '.join(dict.fromkeys(side)) for side in sides)
    return f'| {part.name} | {part.degradation} | {count} | {lqs} | {gts} |'


def _sides(part: Part, layout: Layout) -> tuple[str, str]:
    """Gives what stands for the degraded images of a layout, and for its ground truths."""
    lq, gt = (_code(template) if template else '' for template in (layout.lq, layout.gt))
    lq = lq or (_code(part.degrade) if part.degrade else '-')
    listed = f' (those in {_code(layout.listed)})' if layout.listed else ''
    known = f' ({len(layout.only)} names)' if layout.only else ''
    return lq + listed, gt + known


def _code(text: str) -> str:
    return f'`{text}`'.replace('|', r'\|')  # a bar would end the cell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='change nothing; fail if the file is not up to date')
    args = parser.parse_args()
    old = FILE.read_text(encoding='utf-8')
    before, _, rest = old.partition(BEGIN)
    new = before + BEGIN + '\n' + pages() + '\n' + END + rest.partition(END)[2]
    if args.check and new != old:
        parser.exit(1, f'{FILE} is not up to date: run python scripts/data_preparation/datasets_readme.py\n')
    if not args.check:
        write_file(FILE, new.encode())


if __name__ == '__main__':
    main()
