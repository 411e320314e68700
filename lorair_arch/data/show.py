"""`lorair data show`: samples of an options file as training will see them, in one picture to look at beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from lorair_arch.check_data import datasets_of
from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.errors import OptionsError
from lorair_arch.running.loaders import build_dataset
from lorair_arch.utils.comparison import Row, comparison_sheet

_DRAWS = 60  # for each sample on the sheet, at most: rare degradations take a while to be drawn
_CELL = 224


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


def _gather(dataset: Dataset, samples: int, training: bool) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Draws until there are enough samples (degraded, clean) of each degradation, or it takes too long."""
    own = isinstance(dataset, AllInOneDataset)
    groups: dict[str, list] = (
        {name: [] for name in dict.fromkeys(s.degradation for s in dataset.sources)} if own else {}
    )
    total = samples * max(len(groups), 1)
    with tqdm(total=total, desc='Drawing', unit='image', leave=False, disable=None) as bar:
        for index in range(_DRAWS * total if training and own else len(dataset)):
            if groups and all(len(group) >= samples for group in groups.values()):
                break
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
