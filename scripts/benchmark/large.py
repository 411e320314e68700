"""Measures what `lorair restore` takes for large photographs: time and the memory of the whole process; prints a table.

    python scripts/benchmark/large.py --weights lorair-tiny

Each photograph is restored by a process of its own, once for each way of tiling.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import skimage

from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import decode_image, read_bytes
from lorair_arch.data.images.writing import write_photo

COMMAND = (sys.executable, '-c', 'import sys; from lorair_arch.cli import lorair; sys.exit(lorair())')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--weights', nargs='+', default=['lorair-tiny'], help='as for lorair restore')
    parser.add_argument('--tiles', nargs='+', default=['512', 'auto'], metavar='N', help='as for lorair restore')
    sizes = ['2000x1500', '4000x3000', '6000x4000']
    parser.add_argument('--sizes', nargs='+', default=sizes, metavar='WxH', help=f'default: {" ".join(sizes)}')
    args = parser.parse_args()
    path = Path(skimage.__file__).parent / 'data/rocket.jpg'
    photo, rng = decode_image(read_bytes(path), str(path)), np.random.default_rng(0)
    sys.stdout.write('| image | tile | seconds | seconds a megapixel | memory, GB |\n|---|---|---|---|---|\n')
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            width, height = map(int, size.split('x'))
            large = cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
            large += rng.integers(-30, 31, large.shape, dtype=np.int16)
            write_photo(f'{folder}/{size}.png', Photo(large.clip(0, 255).astype(np.uint8)))
            for tile in args.tiles:
                command = ['restore', f'{folder}/{size}.png', '-o', f'{folder}/{size}-{tile}.png', '--tile', tile]
                seconds, memory = measured([*COMMAND, *command, '--weights', *args.weights])
                per_pixel = seconds / (width * height / 1e6)
                sys.stdout.write(f'| {size} | {tile} | {seconds:.0f} | {per_pixel:.2f} | {memory / 1e9:.2f} |\n')
                sys.stdout.flush()
    return 0


def measured(command: list[str]) -> tuple[float, int]:
    """Runs a command; gives its seconds, and the most memory that its process held, in bytes."""
    start = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f'error: {" ".join(command)} failed')
    kilo = 1 if sys.platform == 'darwin' else 1024  # of what the system counts in
    return time.perf_counter() - start, usage.ru_maxrss * kilo


if __name__ == '__main__':
    sys.exit(main())
