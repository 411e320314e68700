"""Measures what restoring in tiles changes and costs, on the CPU in float32; prints a table.

    python scripts/benchmark/tiles.py --weights results/quickstart/weights

For each photograph of scikit-image, each degradation of the weights and each side of the tiles: PSNR and largest
difference (in levels of 8 bits) to the image restored in one piece, time of the processor and peak memory. Trained
weights are needed: what tiles change depends on what the network has learned (`bash scripts/quickstart.sh` makes some).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# before PyTorch is imported: its profiler would write between the lines
os.environ |= {'KINETO_LOG_LEVEL': '99', 'TORCH_CPP_LOG_LEVEL': 'ERROR'}

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import skimage  # noqa: E402

from lorair_arch import Restorer  # noqa: E402
from lorair_arch.data.degradations import build_degradation  # noqa: E402
from lorair_arch.data.images.reading import decode_image, read_bytes, to_float  # noqa: E402
from lorair_arch.errors import LoRAIRError  # noqa: E402
from measures import peak_allocation  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--weights', nargs='+', default=['results/quickstart/weights'], help='folder or files')
    parser.add_argument('--tiles', nargs='+', type=int, default=[64, 128, 256, 512], metavar='N', help='their sides')
    default = ['astronaut.png=512x512', 'rocket.jpg=1500x1000']
    parser.add_argument(
        '--photos', nargs='+', default=default, metavar='NAME=WxH', help=f'default: {" ".join(default)}'
    )
    args = parser.parse_args()
    try:
        restorer = Restorer.from_pretrained(args.weights, 'cpu')
        write(
            '| image | degradation | tile | PSNR, dB | levels | CPU, s | peak, MiB |\n|---|---|---|---|---|---|---|\n'
        )
        for photo in args.photos:
            name, _, size = photo.partition('=')
            for row in measure(restorer, name, tuple(map(int, size.split('x'))), args.tiles):
                write(f'| {size} | ' + ' | '.join(row) + ' |\n')
    except LoRAIRError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    return 0


def measure(restorer: Restorer, name: str, size: tuple[int, int], tiles: list[int]) -> Iterator[list[str]]:
    """Gives the rows of one photograph: degradation, tile, PSNR, largest difference, time, peak."""
    path = Path(skimage.__file__).parent / 'data' / name
    clean = to_float(decode_image(read_bytes(path), str(path)))
    clean = cv2.resize(clean, size, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    for degradation in restorer.names:
        image = build_degradation({'type': degradation})(clean, np.random.default_rng(0))
        whole, seconds = timed(restorer, image, None)
        first = degradation == restorer.names[0]
        yield [degradation, 'none', '', '', seconds, peak(restorer, image, None) if first else '']
        for tile in tiles:
            parts, seconds = timed(restorer, image, tile)
            difference = np.abs(parts - whole).max() * 255
            psnr = -10 * math.log10(max(np.square(parts - whole, dtype=np.float64).mean(), 1e-12))
            memory = peak(restorer, image, tile) if first else ''
            yield [degradation, str(tile), f'{psnr:.1f}', f'{difference:.2f}', seconds, memory]


def timed(restorer: Restorer, image: np.ndarray, tile: int | None) -> tuple[np.ndarray, str]:
    start = time.process_time()
    result = restorer(image, tile=tile)
    return result, f'{time.process_time() - start:.1f}'


def peak(restorer: Restorer, image: np.ndarray, tile: int | None) -> str:
    """Restores once more for the memory, whose measurement takes time; it does not depend on the degradation."""
    return f'{peak_allocation(lambda: restorer(image, tile=tile)) / 2**20:.0f}'


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == '__main__':
    sys.exit(main())
