"""Writes the quickstart's LMDBs from colour photographs that scikit-image ships; nothing is downloaded.

    python scripts/data_preparation/quickstart_data.py

makes datasets/quickstart/{train,val,test}/{noise,rain,haze,lowlight}_{lq,gt}.lmdb, and train/clean.lmdb with the
training photographs in other colours too, to be degraded on the fly. No photograph is in two of the three sets. Whole
degraded photographs, to be restored by lorair-tiny, are in photos/. A second run finds all complete and does nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import skimage
from tqdm import tqdm

from lorair_arch.data.degradations import build_degradation
from lorair_arch.data.images.reading import decode_image, read_bytes, to_float
from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.errors import DataError, LoRAIRError, OptionsError
from lorair_arch.restoring.examples import EXAMPLES, write_examples

PHOTOS = {
    'train': [
        *('coffee.png', 'motorcycle_left.png', 'motorcycle_right.png'),
        *('hubble_deep_field.jpg', 'retina.jpg', 'ihc.png'),
    ],
    'val': ['rocket.jpg'],
    'test': ['astronaut.png', 'chelsea.png'],
}
DEGRADATIONS = {
    'noise': {'type': 'noise', 'sigma': 50},
    'rain': {'type': 'rain', 'density': [0.003, 0.006], 'intensity': [0.6, 0.9]},
    'haze': {'type': 'haze', 'beta': [0.8, 1.4], 'airlight': [0.7, 1]},
    'lowlight': {'type': 'lowlight', 'gamma': [2, 3], 'beta': [0.5, 0.8], 'sigma': [0, 5]},
}
# Each training photograph is there at several sizes, each time degraded anew.
SCALES = (1, 0.9, 0.75, 0.6)
# A classifier of degradations must not learn the colours and the brightness of six photographs.
RECOLOURED = 8
SEED = 0


def make_quickstart_data(out: Path, size: int) -> bool:
    """Writes the LMDBs, unless they are there already.

    Args:
        out: their folder.
        size: longest side of the largest training images in pixels; test images have about half of it.

    Returns:
        Whether anything was written.

    Raises:
        LoRAIRError: if a photograph is missing, the size is too small, or the disk cannot be written.
    """
    if size < 32:
        raise OptionsError(f'--size: expected at least 32 pixels, found {size}')
    stamp = json.dumps(
        {
            'photos': PHOTOS,
            'degradations': DEGRADATIONS,
            'examples': EXAMPLES,
            'scales': SCALES,
            'recoloured': RECOLOURED,
            'size': size,
            'seed': SEED,
        }
    )
    clean = out / 'train/clean.lmdb'
    lmdbs = [clean] + [
        out / split / f'{name}_{side}.lmdb' for split in PHOTOS for name in DEGRADATIONS for side in ('lq', 'gt')
    ]
    stamp_file = out / 'complete.json'
    if (
        stamp_file.is_file()
        and stamp_file.read_text() == stamp
        and all(path.is_dir() for path in (*lmdbs, out / 'photos'))
    ):
        return False
    stamp_file.unlink(missing_ok=True)
    for path in (*lmdbs, out / 'photos'):
        shutil.rmtree(path, ignore_errors=True)
    images = {split: list(clean_images(split, size)) for split in PHOTOS}
    with tqdm(total=len(DEGRADATIONS) * sum(map(len, images.values())), unit='image', desc='writing LMDBs') as bar:
        for place, (split, name) in enumerate((split, name) for split in PHOTOS for name in DEGRADATIONS):
            degrade = build_degradation(DEGRADATIONS[name])
            start = str(out / split / name)
            with LmdbWriter(f'{start}_lq.lmdb') as lq, LmdbWriter(f'{start}_gt.lmdb') as gt:
                for number, (key, image) in enumerate(images[split]):
                    rng = np.random.default_rng([SEED, place, number])
                    lq.put(key, np.rint(degrade(to_float(image), rng) * 255).astype(np.uint8))
                    gt.put(key, image)
                    bar.update()
    with LmdbWriter(str(clean)) as lmdb:
        for key, image in recoloured_images(size):
            lmdb.put(key, image)
    write_examples(out / 'photos', EXAMPLES)
    stamp_file.write_text(stamp)
    return True


def clean_images(split: str, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Gives (key, RGB uint8 image): training photographs whole at several sizes, the others in tiles."""
    for name in PHOTOS[split]:
        image = read_photo(name)
        key = Path(name).stem
        if split == 'train':
            for number, scale in enumerate(SCALES):
                yield f'{key}_{number}', shrink(image, size * scale)
        else:
            image = shrink(image, size)
            rows, columns = (max(1, round(side / (size / 2))) for side in image.shape[:2])
            tiles = [tile for row in np.array_split(image, rows) for tile in np.array_split(row, columns, axis=1)]
            yield from ((f'{key}_{number}', tile) for number, tile in enumerate(tiles))


def recoloured_images(size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Gives (key, RGB uint8 image): training photographs with their channels exchanged, brighter or darker."""
    for photo, name in enumerate(PHOTOS['train']):
        image = shrink(read_photo(name), size)
        for number in range(RECOLOURED):
            rng = np.random.default_rng([SEED, photo, number])
            changed = to_float(image)[..., rng.permutation(3)] ** rng.uniform(0.6, 1.6)
            yield f'{Path(name).stem}_{number}', np.rint(changed * 255).astype(np.uint8)


def read_photo(name: str) -> np.ndarray:
    """Reads a photograph from scikit-image's own folder: RGB, uint8 [H, W, 3]."""
    path = Path(skimage.__file__).parent / 'data' / name
    if not path.is_file():
        raise DataError(f"'{path}' does not exist: scikit-image {skimage.__version__} does not ship it; use 0.26")
    return decode_image(read_bytes(path), str(path))


def shrink(image: np.ndarray, longest: float) -> np.ndarray:
    """Makes the longest side at most `longest` pixels."""
    factor = longest / max(image.shape[:2])
    if factor >= 1:
        return image
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default='datasets/quickstart', help='folder of the LMDBs (%(default)s)')
    parser.add_argument('--size', type=int, default=512, help='longest side of the training images (%(default)s)')
    args = parser.parse_args()
    try:
        if not make_quickstart_data(args.out, args.size):
            parser.exit(0, f'{args.out} is complete\n')
    except LoRAIRError as error:
        parser.exit(2, f'error: {error}\n')


if __name__ == '__main__':
    main()
