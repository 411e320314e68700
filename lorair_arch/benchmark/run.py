"""Runs the benchmark from the keys to the table."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

from lorair_arch.benchmark import settings
from lorair_arch.benchmark.bench import Bench
from lorair_arch.benchmark.keys import KEYS, Key
from lorair_arch.benchmark.machine import describe_machine
from lorair_arch.benchmark.measures import Measure, take_turns
from lorair_arch.errors import OptionsError, did_you_mean


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
    setting = settings.OFFICIAL if official_size else settings.SMALL
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
        bench = Bench(setting, device, bf16, Path(folder))

        def progress(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update(not name)

        for group, members in groups.items():
            names = dict.fromkeys(name for key in members for name in (KEYS[key].reference, KEYS[key].contestant))
            found = group(bench, [name for name in names if name])
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
