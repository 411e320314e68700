"""Sets weights beside what was published: a table for each test set, measured as its published numbers were.

    python scripts/benchmark/zoo_published.py --data FOLDER
    python scripts/benchmark/zoo_published.py --data FOLDER --weights PATH --only rain100l sots_outdoor --limit 8

zoo_sets.py says what FOLDER must hold; a set that is not there is skipped, and by default the photographs of clean/val
are left out, which are nobody's test. lorair_arch/metrics/published.yml has the published numbers, protocols.py the
ways of measuring; a set without published numbers is measured by `rgb`. The whole image goes through the network at
once, the router chooses the experts, and the result is rounded to 8 bits.

Behind a mean stands the interval that holds 95 % of the means of resampled test sets. What may not be compared, such as
the mean over a part of a set, is said below the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
from tabulate import tabulate
from tqdm import tqdm

from lorair_arch import Restorer
from lorair_arch.errors import LoRAIRError, OptionsError
from lorair_arch.metrics import published, statistics
from lorair_arch.metrics.measuring import mean, measure, what_is_left_out
from lorair_arch.metrics.protocols import PROTOCOLS
from lorair_arch.weights import DEFAULT
from zoo_sets import OpenSet, all_sets, check_data, opened, sets_of

# The benchmarks of each set, by their names in published.yml; those of a set have one protocol.
BENCHMARKS = {
    'cbsd68_15': ('three_task/bsd68_15',),
    'cbsd68_25': ('three_task/bsd68_25', 'five_task/bsd68_25'),
    'cbsd68_50': ('three_task/bsd68_50',),
    'rain100l': ('three_task/rain100l', 'five_task/rain100l'),
    'outdoor_rain': ('all_weather/outdoor_rain',),
    'sots_outdoor': ('three_task/sots_outdoor', 'five_task/sots_outdoor'),
}
_DIGITS = {'psnr': 2, 'ssim': 3}
_COLUMNS = ('method', *_DIGITS, 'parameters', 'trained for', 'remark', 'source')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True, type=Path, metavar='FOLDER', help='the folder with all test sets')
    what = f'files of weights, their folder, or a name of the zoo; default: {DEFAULT}'
    parser.add_argument('--weights', nargs='+', default=[DEFAULT], metavar='PATH', help=what)
    parser.add_argument('--only', nargs='+', metavar='SET', help=f'of {", ".join(all_sets())}')
    parser.add_argument('--limit', type=int, metavar='N', help='at most N images of each set, evenly spread over it')
    try:
        _run(parser.parse_args())
    except LoRAIRError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    return 0


def _run(args: argparse.Namespace) -> None:
    default = [name for name, s in all_sets().items() if s.paired and s.folder != 'clean/val']
    sets = sets_of(args.only or default)
    for name, image_set in sets.items():
        if not image_set.paired:
            raise OptionsError(f'--only: {name} has no ground truth to measure by')
    check_data(args.data, args.limit)
    restorer = Restorer.from_pretrained(args.weights)
    for _, images in opened(sets, args.data, args.limit):
        sys.stdout.write('\n'.join(_section(images, restorer, Path(args.weights[0]).name)) + '\n\n')
        sys.stdout.flush()


def _section(images: OpenSet, restorer: Restorer, weights: str) -> Iterator[str]:
    """Measures a set; gives the lines of its part of the page."""
    name, names = images.set.name, BENCHMARKS.get(images.set.name, ())
    protocol = published.benchmarks()[names[0]].protocol if names else 'rgb'
    records = _measured(images, restorer, protocol)
    millions = sum(p.numel() for net in (restorer.net, restorer.router) for p in net.parameters()) / 1e6
    rows = [
        ['(the input)', *_cells(records['input'])],
        [weights, *_cells(records['restored']), f'{millions:.2f} M', ', '.join(restorer.names)],
    ]
    for benchmark in map(published.benchmarks().get, names):
        for number in benchmark.numbers:
            parameters = '' if number.parameters is None else f'{number.parameters:g} M'
            cells = (number.psnr, number.ssim, parameters, benchmark.setting, published.remark(number, protocol))
            rows.append([f'{number.method} ({number.year})', *cells, number.source])
    yield from (f'## {name}, measured by `{protocol}`', '', f'Images: {len(images)}', '')
    yield tabulate([row + [''] * (len(_COLUMNS) - len(row)) for row in rows], _COLUMNS, 'github', disable_numparse=True)
    notes = [note for other in names for note in published.mismatches(other, protocol, len(images))]
    if images.set.sigma and names:
        notes.append('the noise is clipped to black and white and rounded here, in most papers it is not')
    notes += [note for some in records.values() for note in what_is_left_out(some)]
    yield from ['', *(f'- {note}' for note in dict.fromkeys(notes))] if notes else []


def _measured(images: OpenSet, restorer: Restorer, protocol: str) -> dict[str, list[dict]]:
    """Measures inputs and restored images; a record for each, see `measuring.measure`."""
    records: dict[str, list[dict]] = {'input': [], 'restored': []}
    channels = cv2.COLOR_RGB2GRAY if images.set.grey else cv2.COLOR_RGB2BGR
    for sample in tqdm(images, desc=images.set.name, unit='image', leave=False, disable=None):
        truth = cv2.cvtColor(sample.gt, channels)
        for kind, image in (('input', sample.lq), ('restored', restorer(sample.lq))):
            values, left_out = measure(PROTOCOLS[protocol].metrics, cv2.cvtColor(image, channels), truth)
            records[kind].append({'image': sample.name, 'left_out': left_out} | values)
    return records


def _cells(records: list[dict]) -> Iterator[str]:
    """Gives the mean of each metric, and its interval."""
    for metric, digits in _DIGITS.items():
        values = [record[metric] for record in records if metric in record]
        ends = statistics.interval(values)
        interval = f' ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})' if ends else ''
        yield f'{mean(values):.{digits}f}{interval}' if values else '-'


if __name__ == '__main__':
    sys.exit(main())
