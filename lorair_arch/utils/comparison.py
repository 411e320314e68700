"""Comparison sheets: restored images side by side in a labelled grid, for papers, READMEs and eyes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_INK, _SOFT, _PAPER = (24, 24, 27), (113, 113, 122), (255, 255, 255)


@dataclass(frozen=True)
class Row:
    """One row of a sheet.

    Attributes:
        label: What the row shows.
        images: RGB, uint8 [H, W, 3], one for each column.
        captions: What stands below each image, such as its PSNR.
    """

    label: str
    images: Sequence[np.ndarray]
    captions: Sequence[str]


def comparison_sheet(
    title: str, subtitle: str, columns: Sequence[str], rows: Sequence[Row], cell: int = 256
) -> Image.Image:
    """Draws rows of images under the names of their columns.

    Args:
        title: Large, at the top.
        subtitle: Small, below the title.
        columns: Names of the columns.
        rows: The rows, each with one image for each column.
        cell: Width of an image on the sheet in pixels; all other measures follow from it.

    Raises:
        ValueError: There are no rows, or a row has more or fewer images or captions than there are columns.
    """
    if not rows:
        raise ValueError('a comparison sheet needs at least one row')
    for row in rows:
        if not len(row.images) == len(row.captions) == len(columns):
            raise ValueError(
                f'row {row.label!r} has {len(row.images)} images and {len(row.captions)} captions, but there are '
                f'{len(columns)} columns'
            )
    gap, margin = cell // 20, cell // 8
    large, medium, small = (ImageFont.load_default(size) for size in (cell / 9, cell / 15, cell / 17))
    pictures = [[_fit(image, cell) for image in row.images] for row in rows]
    heights = [max(picture.height for picture in row) for row in pictures]
    label_width = round(max(medium.getlength(row.label) for row in rows)) + 2 * gap
    left, line = margin + label_width, cell // 9
    top = margin + round(cell / 9 * 1.3) + 2 * line + gap
    size = (
        left + len(columns) * (cell + gap) - gap + margin,
        top + sum(heights) + len(rows) * (line + gap) - gap + margin,
    )
    sheet = Image.new('RGB', size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin), title, _INK, large, anchor='la')
    draw.text((margin, margin + round(cell / 9 * 1.3)), subtitle, _SOFT, small, anchor='la')
    lefts = [left + i * (cell + gap) for i in range(len(columns))]
    for x, column in zip(lefts, columns):
        draw.text((x, top - line // 3), column, _INK, medium, anchor='ls')
    for row, images, height in zip(rows, pictures, heights):
        draw.text((margin, top + height / 2), row.label, _INK, medium, anchor='lm')
        for x, picture, caption in zip(lefts, images, row.captions):
            sheet.paste(picture, (x, top))
            draw.text((x, top + picture.height + line // 6), caption, _SOFT, small, anchor='la')
        top += height + line + gap
    return sheet


def _fit(image: np.ndarray, width: int) -> Image.Image:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
