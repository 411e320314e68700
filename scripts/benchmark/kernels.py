"""Measures what each of `lorair_arch/archs/kernels` gains: everything runs with all of them and without each, in turns.

    OMP_NUM_THREADS=1 python scripts/benchmark/kernels.py --rounds 5

The table has the median, over the rounds, of the time without a kernel divided by the time with it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

# before PyTorch is imported: its profiler would write between the lines
os.environ |= {'KINETO_LOG_LEVEL': '99', 'TORCH_CPP_LOG_LEVEL': 'ERROR'}

import lorair_arch  # noqa: E402

lorair_arch.register()

import torch  # noqa: E402

import bench  # noqa: E402
from contestants import inference, pooling, training  # noqa: E402
from lorair_arch.archs import kernels  # noqa: E402
from measures import Seconds, take_turns  # noqa: E402

WHAT = {
    training: ('experts', 'experts learn alone', 'two experts'),
    inference: ('plain, one image', 'experts, one image', 'experts, batch'),
    pooling: ('global mean', 'local mean'),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='where to run; default: cpu')
    parser.add_argument('--rounds', type=int, default=5, metavar='N', help='how often each is measured; default: 5')
    args = parser.parse_args()
    torch.manual_seed(0)
    names = sorted(kernels.NAMES)
    sys.stdout.write(f'| | {" | ".join(names)} |\n|{"---|" * (len(names) + 1)}\n')
    with tempfile.TemporaryDirectory(prefix='lorair_benchmark_') as folder:
        builder = bench.Bench(bench.SMALL, args.device, False, Path(folder))
        for group, contestants in WHAT.items():
            for what, measure in group(builder, contestants).items():
                without = {name: Seconds(kernels.disabled(name)(measure.run), args.device) for name in names}
                values = take_turns({'with all': measure, **without}, args.rounds, lambda name: None)
                ratios = (median(a / b for a, b in zip(values[name], values['with all'])) for name in names)
                sys.stdout.write(f'| {what} | {" | ".join(f"{ratio:.2f}" for ratio in ratios)} |\n')
                sys.stdout.flush()


if __name__ == '__main__':
    main()
