"""Writes the LMDBs that the weights of the zoo are trained on, from two folders of good photographs.

    python scripts/data_preparation/zoo_data.py --train BSDS500/train --val BSDS500/val

makes datasets/zoo/train.lmdb and datasets/zoo/val.lmdb, the photographs as they are; datasets/zoo/half.lmdb, those to
train on at half their size, so that a crop shows more of a scene (haze and darkness are told from clear grey and dark
things by that alone); and datasets/zoo/val_few.txt, the validation photographs for use during training. They are
degraded on the fly, so nothing else is needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
from tqdm import tqdm

from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.data.stores import open_store
from lorair_arch.errors import DataError, LoRAIRError

EVERY = 4  # a restorer takes seconds for each validation photograph


def make_zoo_data(train: str, val: str, out: Path) -> None:
    """Writes the three LMDBs and the list.

    Args:
        train: a folder of photographs, at least 256 pixels wide and high: crops of fine-tuning have 128.
        val: another folder; a photograph that is in both is refused.
        out: the folder of the LMDBs.

    Raises:
        LoRAIRError: for damaged or repeated photographs, or LMDBs that exist already.
    """
    stores = {'train': open_store(train), 'val': open_store(val)}
    seen: dict[bytes, str] = {}
    for store in stores.values():
        for key in store.keys:
            with store.opened(key) as content:
                before = seen.setdefault(bytes(content), store.path(key))
            if before != store.path(key):
                raise DataError(f"'{before}' and '{store.path(key)}' are the same photograph: remove one of them")
    for name, store, scale in (('train', stores['train'], 1), ('half', stores['train'], 2), ('val', stores['val'], 1)):
        with LmdbWriter(f'{out}/{name}.lmdb', compressed=False) as lmdb:
            for key in tqdm(store.keys, unit='photo', desc=name):
                image = store.load(key)
                if scale > 1:
                    size = image.shape[1] // scale, image.shape[0] // scale
                    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                lmdb.put(key.replace('.', '_'), image)
    few = [f'{key.replace(".", "_")}.png\n' for key in stores['val'].keys[::EVERY]]
    (out / 'val_few.txt').write_text(''.join(few), encoding='utf-8')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--train', required=True, help='folder of the photographs to train on')
    parser.add_argument('--val', required=True, help='folder of the photographs to validate with')
    parser.add_argument('--out', type=Path, default='datasets/zoo', help='folder of the LMDBs (%(default)s)')
    args = parser.parse_args()
    try:
        make_zoo_data(args.train, args.val, args.out)
    except LoRAIRError as error:
        parser.exit(2, f'error: {error}\n')


if __name__ == '__main__':
    main()
