"""Draws images before and after restoring into one picture, those of the same name beside each other.

python scripts/before_after.py photos restored -o picture.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from lorair_arch.data.images.reading import decode_image, read_bytes
from lorair_arch.data.sheets import Row, comparison_sheet
from lorair_arch.errors import DataError, LoRAIRError
from lorair_arch.files import check_output, writing

_CELL = 320  # width of an image in pixels
_PAIRS = 2  # in a row


def draw(before: Path, after: Path, output: Path, overwrite: bool = False) -> None:
    """Draws the picture.

    Args:
        before, after: Folders of images; after has `NAME.png` for each `NAME.*` of before that is drawn.
        output: The picture, PNG or JPEG by its name.
        overwrite: Whether it may replace a file.

    Raises:
        LoRAIRError: There are no pairs, an image cannot be read, or the picture not be written.
    """
    check_output(output, overwrite)
    files = sorted(file for file in before.glob('*') if (after / f'{file.stem}.png').is_file())
    if not files:
        raise DataError(f'{before} and {after} have no images of the same names: restore one into the other first')
    cells = []
    for file in files:
        pair = [decode_image(read_bytes(path), str(path)) for path in (file, after / f'{file.stem}.png')]
        cells.append([(image, caption) for image, caption in zip(pair, (file.stem, ''))])
    cells += [[(np.full_like(image, 255), '') for image, _ in cells[-1]]] * (-len(cells) % _PAIRS)
    rows = []
    for start in range(0, len(cells), _PAIRS):
        images, captions = zip(*(cell for pair in cells[start : start + _PAIRS] for cell in pair))
        rows.append(Row('', images, captions))
    sheet = comparison_sheet(
        'Before and after', f'{len(files)} photographs', ['input', 'restored'] * _PAIRS, rows, _CELL
    )
    with writing(output) as file:
        sheet.save(file, 'JPEG' if output.suffix.lower() in ('.jpg', '.jpeg') else 'PNG', quality=90)


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('before', type=Path)
    parser.add_argument('after', type=Path)
    parser.add_argument('-o', '--output', type=Path, required=True)
    parser.add_argument('--overwrite', action='store_true')
    args = parser.parse_args()
    try:
        draw(args.before, args.after, args.output, args.overwrite)
    except LoRAIRError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
