"""Restored images of validations and tests: where each goes, so that none takes another's place, and how."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from basicsr.utils import tensor2img
from torch import Tensor

from lorair_arch.data.image_kinds import IMAGE_SUFFIXES
from lorair_arch.data.image_writing import write_photo
from lorair_arch.data.photo import Photo
from lorair_arch.files import fitting


def name_of(sample: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Gives the name of an image within its data set: folders and stem, such as 'rain/street/0001'.

    Args:
        sample: A batch of one image. `AllInOneDataset` brings the name; for other data sets it is what follows
            `dataroot_lq` in the path of the image.
        options: Options of the data set.
    """
    if 'name' in sample:
        return sample['name'][0]
    path, root = sample['lq_path'][0], options.get('dataroot_lq')
    inner = os.path.relpath(path, root) if root and PurePath(root) in PurePath(path).parents else path
    parts = PurePath(inner)
    if parts.is_absolute() or '..' in parts.parts:  # never out of the folder of the results
        parts = PurePath(parts.name)
    # the keys of an LMDB, which may have dots, have no suffix
    return str(parts.with_suffix('') if parts.suffix.lower() in IMAGE_SUFFIXES else parts)


def place_of(opt: Mapping[str, Any], dataset: str, name: str, current_iter: int | str) -> Path:
    """Gives the file of a restored image, in BasicSR's layout.

    Args:
        opt: All options.
        dataset: Name of the data set.
        name: See `name_of`.
        current_iter: Iteration of the training; not used in tests.

    Returns:
        In training `[DATASET/]FOLDERS/STEM/STEM_ITERATION.png`, with DATASET where there are several validation sets;
        in tests `DATASET/FOLDERS/STEM_SUFFIX.png`; both in `path.visualization`.
    """
    folder, name = Path(opt['path']['visualization']), PurePath(name)
    if not opt['is_train']:
        suffix = opt['val'].get('suffix') or opt['name']
        return folder / dataset / name.parent / fitting(name.name, f'_{suffix}.png')
    several = sum(phase.startswith('val') for phase in opt['datasets']) > 1
    return folder / (dataset if several else '') / name / fitting(name.name, f'_{current_iter}.png')


def save_image(path: Path, image: Tensor) -> None:
    """Saves an image [1, 3, H, W] in [0, 1] as PNG of 8 bits, whole or not at all.

    Raises:
        DataError: It cannot be written.
    """
    write_photo(path, Photo(tensor2img(image, rgb2bgr=False)))
