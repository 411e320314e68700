"""Does the idea work? Trains a small restorer without parts of it, with several seeds, and measures what that costs.

    python scripts/data_preparation/zoo_data.py --train PHOTOS --val OTHER_PHOTOS   # writes datasets/zoo
    python scripts/benchmark/ablations.py --data FOLDER --output results/ablations

Trainings are those of the zoo (options/zoo), narrower, with small crops and few steps; lorair-tiny's router guides
them. All pre-trainings have equal steps, and so have all that begin with the pre-training of the same seed. Measured is
the PSNR on the sets val_* of zoo_sets.py, whose docstring says how FOLDER looks. Run it in the folder of datasets/zoo:
trainings are in experiments/NAME_*, NAME that of OUTPUT, and results in OUTPUT/results.json; a second run goes on where
the first was stopped. At the end it prints a table, and draws OUTPUT/ablations.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from ablation_trainings import TRAININGS, Training, restorer_of, train
from experts import psnr
from lorair_arch.errors import LoRAIRError, OptionsError
from lorair_arch.files import write_json, writing
from measures import continued, describe_machine
from zoo_sets import OpenSet, check_data, opened, validation_sets

_RIGHT, _WRONG = 'experts, the right one', 'experts, a wrong one'  # the same weights, chosen by hand
_REFERENCE = 'prior'  # what all others are compared with, seed by seed
# Mean PSNR in dB, by row of the table, seed and set.
Results = dict[str, dict[str, dict[str, float]]]


def ways_of(training: Training, truth: str, wrong: str) -> dict[str, str]:
    """Gives the rows that a training is measured for, each with the degradation that is asked for."""
    rows = {training.name: 'auto'}
    return rows | ({_RIGHT: truth, _WRONG: wrong} if training.name == 'experts' else {})


def measure(training: Training, seed: int, options: Path, sets: dict[str, OpenSet]) -> dict[str, dict[str, float]]:
    """Gives the mean PSNR in dB of a training, by row and set."""
    restorer = restorer_of(training, seed, options)
    found: dict[str, dict[str, list[float]]] = {}
    for name, images in sets.items():
        (truth,) = images.set.troubles
        others = [other for other in restorer.names if other != truth]
        for number in tqdm(range(len(images)), desc=f'{training.name}, {name}', unit='image', leave=False):
            sample = images[number]
            for row, degradation in ways_of(training, truth, others[number % len(others)]).items():
                value = psnr(restorer(sample.lq, degradation), sample.gt)
                found.setdefault(row, {}).setdefault(name, []).append(value)
    return {row: {name: float(np.mean(values)) for name, values in of.items()} for row, of in found.items()}


def table(results: Results) -> str:
    """Shows means over the seeds, and the difference of each row to the reference of the same seed."""
    names = list(next(iter(results[_REFERENCE].values())))
    rows = []
    for row, by_seed in results.items():
        means = np.array([list(of.values()) for of in by_seed.values()])
        gains = differences(results, row)
        spread = f' ± {np.std(gains, ddof=1):.2f}' if len(gains) > 1 else ''
        gain = '' if row == _REFERENCE else f'{np.mean(gains):+.2f}{spread}'
        rows.append([row, len(by_seed), *(f'{value:.2f}' for value in means.mean(0)), f'{means.mean():.2f}', gain])
    header = ['training', 'seeds', *(name.removeprefix('val_') for name in names), 'mean', f'to {_REFERENCE!r}']
    return tabulate(rows, header, tablefmt='github', disable_numparse=True) + '\n'


def differences(results: Results, row: str) -> list[float]:
    """Gives by how many dB the mean over the sets is above the reference's, for each seed."""
    of = {name: {seed: np.mean(list(s.values())) for seed, s in results[name].items()} for name in (row, _REFERENCE)}
    return [float(value - of[_REFERENCE][seed]) for seed, value in of[row].items() if seed in of[_REFERENCE]]


def draw(results: Results, file: Path) -> None:
    """Draws the differences to the reference: a dot for each seed, a line at their mean."""
    from matplotlib.figure import Figure  # takes long to import

    rows = [row for row in results if row != _REFERENCE][::-1]
    figure = Figure(figsize=(8, 0.45 * len(rows) + 1), layout='constrained')
    axes = figure.subplots()
    for y, row in enumerate(rows):
        gains = differences(results, row)
        axes.plot(gains, [y] * len(gains), 'o', color='C0', alpha=0.6)
        axes.plot([np.mean(gains)] * 2, [y - 0.3, y + 0.3], color='C0')
    axes.axvline(0, color='grey', linewidth=1)
    axes.set(yticks=range(len(rows)), yticklabels=rows, xlabel=f'mean PSNR in dB, difference to {_REFERENCE!r}')
    with writing(file) as out:
        figure.savefig(out, format='png', dpi=100)


def run(args: argparse.Namespace) -> None:
    """Trains and measures what is missing, and shows everything."""
    if min(args.seeds, args.pretrain, args.finetune, args.crop, args.batch) < 1:
        raise OptionsError('--seeds, --pretrain, --finetune, --crop and --batch must be at least 1')
    check_data(args.data, args.limit)
    file, settings = args.output / 'results.json', {k: getattr(args, k) for k in ('pretrain', 'finetune', 'crop')}
    content = continued(file, settings | {'batch': args.batch, 'limit': args.limit})
    results: Results = content['results']
    sets = dict(opened(validation_sets(), args.data, args.limit))
    for seed in range(args.seeds):
        for training in TRAININGS.values():
            if str(seed) in results.get(training.name, {}):
                continue
            steps = args.finetune if training.before else args.pretrain
            options = train(training, seed, steps, args.crop, args.batch, args.output)
            for row, values in measure(training, seed, options, sets).items():
                results.setdefault(row, {})[str(seed)] = values
            write_json(file, content | {'machine': describe_machine('cpu')})
    sys.stdout.write(table(results))
    draw(results, args.output / 'ablations.png')


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True, type=Path, metavar='FOLDER', help='the folder with all test sets')
    parser.add_argument('--output', required=True, type=Path, metavar='FOLDER', help='results, made if it is not there')
    parser.add_argument('--seeds', type=int, default=3, metavar='N')
    parser.add_argument('--pretrain', type=int, default=3000, metavar='STEPS', help='of a pre-training (%(default)s)')
    parser.add_argument('--finetune', type=int, default=1000, metavar='STEPS', help='of what follows (%(default)s)')
    parser.add_argument('--crop', type=int, default=64, metavar='PIXELS', help='side of the crops (%(default)s)')
    parser.add_argument('--batch', type=int, default=8, metavar='N', help='crops of a step (%(default)s)')
    parser.add_argument('--limit', type=int, metavar='N', help='at most N images of each set, evenly spread over it')
    try:
        run(parser.parse_args())
    except LoRAIRError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
