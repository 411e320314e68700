"""Measures an exported graph in onnxruntime next to PyTorch, in turn on the same images; prints a table.

    python scripts/benchmark/graphs.py --weights lorair-tiny --graph restorer.onnx

Both restore with the router, in one piece and in float32.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from statistics import median

import onnxruntime
import torch
from tabulate import tabulate

from lorair_arch import Restorer
from lorair_arch.errors import LoRAIRError

_SIZES = ((128, 128), (321, 481), (720, 1280))


def measure(restorer: Restorer, session: onnxruntime.InferenceSession, height: int, width: int, runs: int) -> list:
    """Gives a row: the size, the median seconds of the processor of both, and the largest difference."""
    lq = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    seconds, images = {}, {}
    ways = {
        'PyTorch': lambda: restorer.restore(lq[0], tile=None).image.numpy(),
        'onnxruntime': lambda: session.run(['restored'], {'lq': lq.numpy()})[0][0],
    }
    for _ in range(runs + 1):  # the first warms up
        for name, run in ways.items():
            start = time.process_time()
            images[name] = run()
            seconds.setdefault(name, []).append(time.process_time() - start)
    torch_s, onnx_s = (median(values[1:]) for values in seconds.values())
    difference = abs(images['PyTorch'] - images['onnxruntime']).max()
    return [f'{width} x {height}', torch_s, onnx_s, onnx_s / torch_s, difference]


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', nargs='+', default=['lorair-tiny'])
    parser.add_argument('--graph', required=True, help='what lorair export made of these weights')
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--runs', type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    try:
        restorer = Restorer.from_pretrained(args.weights, 'cpu')
    except LoRAIRError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    session = onnxruntime.InferenceSession(args.graph, options)
    rows = [measure(restorer, session, *size, args.runs) for size in _SIZES]
    headers = ['image', 'PyTorch, s', 'onnxruntime, s', 'ratio', 'largest difference']
    sys.stdout.write(tabulate(rows, headers, floatfmt=('', '.2f', '.2f', '.2f', '.0e'), tablefmt='github') + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
