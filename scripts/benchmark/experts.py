"""What the experts bring, and what the router's choice among them is worth, on photographs with one known degradation.

    python scripts/benchmark/experts.py --data FOLDER [--weights lorair-tiny] [--limit 8]

Restores the sets val_* of zoo_sets.py, whose docstring says how FOLDER looks: without experts, with those that the
router chooses, with the right one, and with a wrong one, another for each image. Prints the mean PSNR of each set and,
at the end, the differences to the restorer without experts with 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from lorair_arch import Restorer
from lorair_arch.errors import CheckpointError, DataError, LoRAIRError
from lorair_arch.metrics.statistics import interval
from zoo_sets import Sample, check_data, opened, validation_sets

_WAYS = ('input', 'no experts', 'by the router', 'the right one', 'a wrong one')
_BEST = 60.0  # dB that an image counts at most, else one that is hardly changed would decide a mean


def without_experts(restorer: Restorer) -> Restorer:
    """Gives the restorer that the experts refine."""
    plain = type(restorer.net)(**restorer.net.plain_settings)
    weights = restorer.net.state_dict()
    plain.load_state_dict({key: weights[key] for key in plain.state_dict()})
    return Restorer(restorer.router, plain, restorer.names, str(restorer.device))


def measure(sample: Sample, truth: str, number: int, restorer: Restorer, plain: Restorer) -> list[float]:
    """Gives the PSNR of an image, restored in each way (`_WAYS`)."""
    others = [name for name in restorer.names if name != truth]
    images = (
        sample.lq,
        plain(sample.lq),
        restorer(sample.lq),
        restorer(sample.lq, truth),
        restorer(sample.lq, others[number % len(others)]),
    )
    return [psnr(image, sample.gt) for image in images]


def psnr(image: np.ndarray, gt: np.ndarray) -> float:
    """Gives BasicSR's PSNR of two images in dB, `_BEST` at most."""
    from basicsr.metrics.psnr_ssim import calculate_psnr  # after lorair_arch, which mends its imports

    return min(_BEST, float(calculate_psnr(image, gt, crop_border=0)))


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    check_data(args.data, args.limit)
    restorer = Restorer.from_pretrained(args.weights)
    if not restorer.net.num_experts:
        raise CheckpointError(f'{" ".join(args.weights)} has no experts: there is nothing to compare')
    plain, values = without_experts(restorer), defaultdict(list)
    sets = {name: s for name, s in validation_sets().items() if s.troubles[0] in restorer.names}
    if not sets:
        raise DataError(f'{" ".join(args.weights)} knows none of the degradations of the sets')
    for name, images in opened(sets, args.data, args.limit):
        for number in tqdm(range(len(images)), desc=name, unit='image', leave=False):
            values[name].append(measure(images[number], images.set.troubles[0], number, restorer, plain))
    rows = [[name, len(of_set), *np.mean(of_set, 0)] for name, of_set in values.items()]
    rows.append(['mean', sum(map(len, values.values())), *np.mean([row[2:] for row in rows], 0)])
    sys.stdout.write(tabulate(rows, ['set', 'images', *_WAYS], floatfmt='.2f', tablefmt='github') + '\n\n')
    everything = np.concatenate([np.asarray(of_set) for of_set in values.values()])
    for column in range(2, len(_WAYS)):
        gains = everything[:, column] - everything[:, 1]
        low, high = interval(gains.tolist())
        sys.stdout.write(f'{_WAYS[column]}: {gains.mean():+.2f} dB to no experts ({low:+.2f} to {high:+.2f})\n')


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True, type=Path, metavar='FOLDER')
    parser.add_argument('--weights', nargs='+', default=['lorair-tiny'], metavar='PATH')
    parser.add_argument('--limit', type=int, metavar='N', help='at most N images of each set, evenly spread over it')
    try:
        run(parser.parse_args())
    except LoRAIRError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
