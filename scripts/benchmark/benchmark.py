"""Measures what the experts and the rest cost, next to the plain network, in one run on one machine.

python scripts/benchmark/benchmark.py --json benchmark.json
python scripts/benchmark/benchmark.py --only finetune_step dense_experts_step --rounds 5
python scripts/benchmark/benchmark.py --device cuda --official-size --bf16
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

# before PyTorch is imported: its profiler would write between the lines of the progress bar
os.environ |= {'KINETO_LOG_LEVEL': '99', 'TORCH_CPP_LOG_LEVEL': 'ERROR'}

import lorair_arch  # noqa: E402

lorair_arch.register()

import torch  # noqa: E402
from tabulate import tabulate  # noqa: E402
from tqdm import tqdm  # noqa: E402

import bench  # noqa: E402
from contestants import KEYS, Key  # noqa: E402
from lorair_arch import console  # noqa: E402
from lorair_arch.errors import LoRAIRError, OptionsError, did_you_mean, sentence  # noqa: E402
from lorair_arch.files import check_output, write_json  # noqa: E402
from measures import Measure, describe_machine, take_turns  # noqa: E402


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of the rounds."""

    median: float
    low: float
    high: float
    unit: str


def benchmark(device: str, official_size: bool, bf16: bool, rounds: int, only: Sequence[str] | None = None) -> dict:
    """Measures side by side in one run.

    Args:
        device: 'cpu' or 'cuda'.
        official_size: The published network and CLIP in place of the small ones.
        bf16: Train in bf16, experts and plain network alike.
        rounds: How often each contestant is measured.
        only: Keys to measure; all if None.

    Returns:
        `machine`, `settings` and, by key, `results`: `what`, the `value` and what was measured of `contestant` and
        `reference`, each a `Spread`. All can be written as JSON.

    Raises:
        OptionsError: There is no such key or device, or there are no rounds.
    """
    keys = list(only or KEYS)
    _check(keys, device, rounds)
    setting = bench.OFFICIAL if official_size else bench.SMALL
    torch.manual_seed(0)
    if device == 'cuda':
        torch.backends.cudnn.benchmark = True  # as in training
    groups = {}
    for key in keys:
        groups.setdefault(KEYS[key].group, []).append(key)
    results = {}
    with (
        tempfile.TemporaryDirectory(prefix='lorair_benchmark_') as folder,
        tqdm(total=len(groups) * rounds, desc='Measuring', unit='round') as bar,
    ):
        builder = bench.Bench(setting, device, bf16, Path(folder))

        def progress(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update(not name)

        for group, members in groups.items():
            names = dict.fromkeys(name for key in members for name in (KEYS[key].reference, KEYS[key].contestant))
            found = group(builder, [name for name in names if name])
            values = take_turns(found, rounds, progress)
            results |= {key: _result(KEYS[key], found, values) for key in members}
            del found
            gc.collect()  # models of one group must not weigh on the next
    return {
        'machine': describe_machine(device),
        'settings': {'rounds': rounds, 'precision': 'bf16' if bf16 else 'float32', **asdict(setting)},
        'results': {key: results[key] for key in keys},
    }


def _check(keys: Sequence[str], device: str, rounds: int) -> None:
    for key in keys:
        if key not in KEYS:
            raise OptionsError(f'--only: unknown key {key!r}{did_you_mean(key, KEYS)}')
    if rounds < 1:
        raise OptionsError(f'--rounds: expected at least 1, found {rounds}')
    if device == 'cuda' and not torch.cuda.is_available():
        raise OptionsError('--device cuda: PyTorch finds no GPU here; use --device cpu')


def _result(key: Key, found: dict[str, Measure], values: dict[str, list[float]]) -> dict:
    mine = values[key.contestant]
    if key.reference:
        # round by round: a machine that slows down slows both
        quotients = [value / reference for value, reference in zip(mine, values[key.reference])]
    else:
        quotients = [found[key.contestant].amount / value for value in mine]
    measured = {'value': _spread([quotient * key.scale for quotient in quotients], key.unit)}
    for role in ('contestant', 'reference'):
        name = getattr(key, role)
        if name:
            measured[role] = {'name': name} | _spread(values[name], found[name].unit)
    return {'what': key.what, **measured}


def _spread(values: Sequence[float], unit: str) -> dict:
    return asdict(Spread(median(values), min(values), max(values), unit))


def as_table(results: dict[str, dict]) -> str:
    """Gives the results as a table: key, ratio (or value with its unit), spread, what it is."""
    rows = []
    for key, result in results.items():
        value = result['value']
        shown, low, high = (_number(value[part], value['unit']) for part in ('median', 'low', 'high'))
        rows.append((key, f'{shown} {value["unit"]}'.strip(), f'{low} to {high}', result['what']))
    return tabulate(rows, ('key', 'ratio', 'spread', 'what it is'), 'github', disable_numparse=True) + '\n'


def _number(value: float, unit: str) -> str:
    if not unit:
        return f'{value:.3f}'
    return f'{value:.1f}' if value < 100 else f'{value:.0f}'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--device', choices=('cpu', 'cuda'), default='cpu', help='where to run; default: cpu')
    add('--official-size', action='store_true', help='the published network, crops of 256 and ViT-L')
    add('--bf16', action='store_true', help='train in bf16, experts and plain network alike')
    add('--only', nargs='+', metavar='KEY', help='keys to measure; default: all')
    add('--rounds', type=int, default=10, metavar='N', help='how often each is measured; default: 10')
    what = 'where to write the results, with a description of the machine'
    add('--json', type=os.path.expanduser, metavar='FILE', help=what)
    add('--overwrite', action='store_true', help='replace files that exist; never an input')
    args = parser.parse_args()
    console.to_console()
    try:
        if args.json:
            check_output(args.json, args.overwrite)
        with console.session():
            report = benchmark(args.device, args.official_size, args.bf16, args.rounds, args.only)
        if args.json:
            write_json(args.json, report)
    except LoRAIRError as error:
        sys.stderr.write(f'error: {sentence(error)}\n')
        return 2
    sys.stdout.write(as_table(report['results']))
    return 0


if __name__ == '__main__':
    sys.exit(main())
