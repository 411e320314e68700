"""Draws where weights of the zoo reach their limits: photographs of scikit-image, degraded beyond what they restore.

    python scripts/benchmark/zoo_failures.py -o scripts/assets/failures.jpg --overwrite

Each row has the input, the restored image and the ground truth, with PSNR in dB and what the router took it for.
"""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np

from experts import psnr
from lorair_arch import Restorer
from lorair_arch.data.degradations import build_degradation
from lorair_arch.data.images.reading import decode_image, to_float
from lorair_arch.data.sheets import Row, comparison_sheet
from lorair_arch.errors import LoRAIRError
from lorair_arch.files import check_output, writing
from lorair_arch.weights import DEFAULT

# What is too much, or was not trained: the photograph, and its degradation.
CASES = {
    'camera shake': ('chelsea.png', {'type': 'motion_blur', 'length': 18, 'angle': 30, 'bend': 50}),
    'downpour': ('coffee.png', {'type': 'rain', 'density': 0.015, 'width': 2, 'intensity': 0.8}),
    'dark, dull': ('chelsea.png', {'type': 'haze', 'beta': 1.2, 'airlight': 0.35, 'tint': 0}),
    'snow': ('rocket.jpg', {'type': 'snow', 'density': 0.012, 'size': 2.5}),
}


def draw(weights: str, output: Path) -> None:
    """Restores every case and draws the sheet.

    Args:
        weights: See `Restorer.from_pretrained`.
        output: A JPEG.
    """
    restorer, rows = Restorer.from_pretrained(weights), []
    for label, (photo, degrade) in CASES.items():
        gt = decode_image(files('skimage').joinpath('data', photo).read_bytes(), photo)
        lq = np.rint(build_degradation(degrade)(to_float(gt), np.random.default_rng(0)) * 255).astype(np.uint8)
        restored = restorer.restore(lq)
        likeliest = max(restored.degradations, key=restored.degradations.get)
        taken_for = f'{likeliest} {restored.degradations[likeliest]:.0%}'
        captions = f'{psnr(lq, gt):.2f} dB', f'{psnr(restored.image, gt):.2f} dB; {taken_for}', ''
        rows.append(Row(label, (lq, restored.image, gt), captions))
    subtitle = 'PSNR, and what the router took the input for'
    columns = 'input', 'restored', 'ground truth'
    with writing(output) as file:
        comparison_sheet(f'Where {weights} reaches its limits', subtitle, columns, rows).save(file, 'JPEG', quality=88)


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', default=DEFAULT, metavar='NAME')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='FILE', help='a JPEG')
    parser.add_argument('--overwrite', action='store_true', help='the file may be replaced')
    args = parser.parse_args()
    try:
        check_output(args.output, args.overwrite)
        draw(args.weights, args.output)
    except LoRAIRError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
