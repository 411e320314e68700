"""Comparison sheets: restored images side by side in a labelled grid, for papers, READMEs and eyes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.data.check import datasets_of
from lorair_arch.data.foreign import build_dataset
from lorair_arch.errors import OptionsError

_INK, _SOFT, _PAPER = (24, 24, 27), (113, 113, 122), (255, 255, 255)
_DRAWS = 60  # for each sample on the sheet, at most: rare degradations take a while to be drawn
_CELL = 224


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
        title, subtitle: Large at the top, and small below it.
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
    large, medium, small = (ImageFont.load_default(cell / part) for part in (9, 15, 17))
    pictures = [[_fit(image, cell) for image in row.images] for row in rows]
    heights = [max(picture.height for picture in row) for row in pictures]
    label_width = round(max(medium.getlength(row.label) for row in rows)) + 2 * gap
    left, line, below_title = margin + label_width, cell // 9, margin + round(cell / 9 * 1.3)
    top = below_title + 2 * line + gap
    lefts = [left + i * (cell + gap) for i in range(len(columns))]
    height = top + sum(heights) + len(rows) * (line + gap) - gap + margin
    sheet = Image.new('RGB', (lefts[-1] + cell + margin, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin), title, _INK, large, anchor='la')
    draw.text((margin, below_title), subtitle, _SOFT, small, anchor='la')
    for x, column in zip(lefts, columns):
        draw.text((x, top - line // 3), column, _INK, medium, anchor='ls')
    for row, images, height in zip(rows, pictures, heights):
        draw.text((margin, top + height / 2), row.label, _INK, medium, anchor='lm')
        for x, picture, caption in zip(lefts, images, row.captions):
            sheet.paste(picture, (x, top))
            draw.text((x, top + picture.height + line // 6), caption, _SOFT, small, anchor='la')
        top += height + line + gap
    return sheet


def show_data(file: str, phase: str = 'train', samples: int = 4, seed: int = 0) -> Image.Image:
    """Draws samples of every degradation, each degraded image beside the clean one.

    Args:
        file: Options of a training or a test; nothing but `datasets` must be right.
        phase: The data set to show, such as 'train', 'val' or 'test_1'.
        samples: How many of each degradation.
        seed: Another one draws other samples of a training set.

    Raises:
        OptionsError: There is no such data set, or its options are wrong.
        DataError: An image is missing or damaged.
    """
    sets = datasets_of(file)
    if phase not in sets:
        raise OptionsError(f'{file}: found no datasets.{phase}, expected one of {", ".join(sets)}')
    if samples < 1:
        raise OptionsError(f'samples is {samples}, expected 1 or more')
    options = {**sets[phase], 'seed': seed} if phase == 'train' else sets[phase]
    rows = []
    for name, group in _gather(build_dataset(options), samples, phase == 'train').items():
        blank = [np.full((_CELL, _CELL, 3), 255, np.uint8)] * 2 * (samples - len(group))
        images = [image for pair in group for image in pair]
        captions = [caption for lq, gt in group for caption in (_psnr(lq, gt), '')]
        rows.append(Row(name, images + blank, captions + [''] * len(blank)))
    subtitle = f'{file}; PSNR of each degraded image to the clean one.'
    return comparison_sheet(f'{phase}: {options["name"]}', subtitle, ['degraded', 'clean'] * samples, rows, _CELL)


def _fit(image: np.ndarray, width: int) -> Image.Image:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)


def _gather(dataset: Dataset, samples: int, training: bool) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Draws until there are enough samples (degraded, clean) of each degradation, or it takes too long."""
    own = isinstance(dataset, AllInOneDataset)
    groups: dict[str, list] = {source.degradation: [] for source in dataset.sources} if own else {}
    total = samples * max(len(groups), 1)
    with tqdm(total=total, desc='Drawing', unit='image', leave=False, disable=None) as bar:
        for index in range(_DRAWS * total if training and own else len(dataset)):
            if groups and all(len(group) >= samples for group in groups.values()):
                break
            # With an epoch, indices may go beyond the length: draws without end.
            sample: dict[str, Any] = dataset[(0, index) if training and own else index]
            group = groups.setdefault(sample.get('degradation', ''), [])
            if len(group) < samples and 'gt' in sample:
                group.append((_to_image(sample['lq']), _to_image(sample['gt'])))
                bar.update()
    return {name: group for name, group in groups.items() if group}


def _to_image(tensor: Tensor) -> np.ndarray:
    return (tensor.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()


def _psnr(lq: np.ndarray, gt: np.ndarray) -> str:
    if lq.shape != gt.shape:
        return ''  # super-resolution
    mse = np.mean((lq.astype(np.float32) - gt) ** 2)
    return f'{10 * np.log10(255**2 / mse):.1f} dB' if mse else 'identical'
