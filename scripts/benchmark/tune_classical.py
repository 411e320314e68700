"""Finds the values of the classical methods, on photographs that are in no test; classical.py has what it found.

    python scripts/benchmark/tune_classical.py --data FOLDER [--images 12] [--only wiener clahe]

Degrades photographs of FOLDER/clean/train/gt (see zoo_sets.py) as those of clean/val are, and prints the mean PSNR of
every method at its best values.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

import classical
from lorair_arch.errors import LoRAIRError, OptionsError, did_you_mean
from zoo_sets import ImageSet, OpenSet, all_sets

# The method's trouble, and the values to try: of each argument, or of several.
GRIDS = {
    'guided': ('rain', {'radius': (2, 4, 8, 16), 'eps': (0.001, 0.003, 0.01, 0.03)}),
    'median': ('rain', {'size': (3, 5, 7)}),
    'dark_channel': ('haze', {'omega': (0.65, 0.75, 0.85, 0.95)}),
    'gamma': ('lowlight', {'mean': (0.35, 0.4, 0.45, 0.5, 0.55)}),
    'clahe': ('lowlight', {'limit': (4.0, 8.0, 16.0, 32.0), 'tiles': (2, 4, 8)}),
    'bilateral': ('jpeg', {'levels': (10.0, 15.0, 20.0, 30.0), 'pixels': (0.7, 1.0, 1.5, 2.0)}),
    'unsharp': ('blur', {'sigma': (1.0, 2.0, 3.0, 5.0, 8.0), 'amount': (0.15, 0.25, 0.5, 1.0)}),
    'luma_non_local_means': ('jpeg', {'strength': (4.0, 6.0, 8.0)}),
    'wiener': ('blur', {'sigma': (0.5, 0.7, 1.0), 'balance': (0.003, 0.01, 0.03)}),
    'deconvolved': ('blur', {'sigma': (0.7, 1.0, 1.5), 'steps': (2, 4, 8)}),
    'non_local_means': ('noise', {'luma': (0.4, 0.5, 0.7, 0.9), 'colour': (0.5, 1.0, 2.0)}),
}


def tune(method: str, data: Path, count: int) -> tuple[dict[str, float], float, float]:
    """Tries every combination of a method's values.

    Args:
        method: A key of `GRIDS`.
        data: The folder of the data.
        count: How many photographs.

    Returns:
        The best values, the mean PSNR that they give, and that of the input, in dB.
    """
    from basicsr.metrics.psnr_ssim import calculate_psnr  # after lorair_arch, which mends its imports

    trouble, grid = GRIDS[method]
    model = all_sets()[f'val_{trouble}']
    images = OpenSet(ImageSet(f'tune_{trouble}', 'clean/train', model.troubles, model.degrade), data, count)
    known = {'sigma': model.sigma} if trouble == 'noise' else {}
    tried = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    methods = [partial(getattr(classical, method), **values, **known) for values in tried]
    psnr = np.zeros((len(images), 1 + len(tried)))
    for i, sample in enumerate(tqdm(images, desc=method, unit='image', leave=False, disable=None)):
        outputs = [sample.lq, *(function(sample.lq) for function in methods)]
        psnr[i] = [calculate_psnr(output, sample.gt, crop_border=0) for output in outputs]
    before, *after = psnr.mean(axis=0).tolist()
    best = int(np.argmax(after))
    return tried[best], after[best], before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True, type=Path, metavar='FOLDER', help='the folder with all sets')
    parser.add_argument('--images', type=int, default=12, metavar='N', help='how many photographs (%(default)s)')
    parser.add_argument('--only', nargs='+', default=list(GRIDS), metavar='METHOD', help=f'of {", ".join(GRIDS)}')
    args = parser.parse_args()
    try:
        for method in args.only:
            if method not in GRIDS:
                raise OptionsError(f'--only: there is no method {method!r}{did_you_mean(method, GRIDS)}')
            values, after, before = tune(method, args.data, args.images)
            sys.stdout.write(f'{method}: {values}, {before:.2f} -> {after:.2f} dB\n')
            sys.stdout.flush()
    except LoRAIRError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
