"""A small real data set for the loader: photographs that scikit-image ships, noisy and clean, as files and as LMDB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage
from torch.utils.data import DataLoader

from lorair_arch.data.degradations import build_degradation
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import decode_image, read_bytes, to_float
from lorair_arch.data.images.writing import write_photo
from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.training.loaders import build_train_loader

_NAMES = ('astronaut.png', 'chelsea.png', 'coffee.png', 'rocket.jpg')
_EPOCH = 6  # times that each photograph is read


def photo_loader(folder: Path, kind: str, crop: int) -> DataLoader:
    """Writes the photographs and gives a training loader of them that works in this process.

    Args:
        folder: For the files.
        kind: 'disk', PNG files, or 'lmdb'.
        crop: Side of the crops, at most 300 pixels.
    """
    roots = {side: str(folder / (f'{side}.lmdb' if kind == 'lmdb' else side)) for side in ('lq', 'gt')}
    degrade, rng = build_degradation({'type': 'noise', 'sigma': 25}), np.random.default_rng(0)
    images: dict[str, dict[str, np.ndarray]] = {'lq': {}, 'gt': {}}
    for name in _NAMES:
        path = Path(skimage.__file__).parent / 'data' / name
        gt = decode_image(read_bytes(path), str(path))
        images['gt'][path.stem] = gt
        images['lq'][path.stem] = np.rint(degrade(to_float(gt), rng) * 255).astype(np.uint8)
    for side, root in roots.items():
        if kind == 'lmdb':
            with LmdbWriter(root) as writer:
                for key, image in images[side].items():
                    writer.put(key, image)
        else:
            for key, image in images[side].items():
                write_photo(Path(root, f'{key}.png'), Photo(image))
    options = {
        'name': kind,
        'type': 'AllInOneDataset',
        'phase': 'train',
        'sources': [{'degradation': 'noise', 'dataroot_lq': roots['lq'], 'dataroot_gt': roots['gt']}],
        'gt_size': crop,
        'use_hflip': True,
        'use_rot': True,
        'batch_size_per_gpu': len(_NAMES),
        'num_worker_per_gpu': 0,
        'dataset_enlarge_ratio': _EPOCH,
    }
    run = {'train': {}, 'manual_seed': 0, 'world_size': 1, 'rank': 0, 'num_gpu': 0, 'dist': False}
    return build_train_loader(run, options)[0]
