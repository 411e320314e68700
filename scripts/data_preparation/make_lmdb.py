"""Turns pairs of images, or clean images alone, into LMDBs that BasicSR and LoRA-IR read.

    python scripts/data_preparation/make_lmdb.py --lq Rain100L/rainy --gt Rain100L/clean --out datasets/rain100l

writes datasets/rain100l_lq.lmdb and datasets/rain100l_gt.lmdb.
"""

from __future__ import annotations

import argparse
import re
from contextlib import ExitStack
from os.path import expanduser

from tqdm import tqdm

from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.data.sources import Match, load_pair, pair_keys
from lorair_arch.data.stores import open_store
from lorair_arch.errors import LoRAIRError
from lorair_arch.schema import checked


def make_lmdb(lq: str | None, gt: str, out: str, match: str | None = None, compressed: bool = True) -> None:
    """Writes `{out}_gt.lmdb` and, if `lq` is given, `{out}_lq.lmdb`, with the same keys.

    The key of a pair is the name of its input, in which dots become underscores: BasicSR ends keys at the first dot.

    Args:
        lq: folder of the degraded images, or None.
        gt: folder of the clean images.
        out: where the LMDBs go, up to the part of the name that they share.
        match: what the names of a pair have in common; see `lorair_arch.data.sources.Source`.
        compressed: see `LmdbWriter`.

    Raises:
        LoRAIRError: for missing, unpaired, damaged or mismatched images, or if an LMDB exists already.
    """
    stores = {side: open_store(root) for side, root in (('lq', lq), ('gt', gt)) if root}
    if lq:
        pattern = None if match is None else re.compile(checked(Match(), match, '--match'))
        pairs = pair_keys(stores['lq'], stores['gt'], pattern)
    else:
        pairs = [(key, key) for key in stores['gt'].keys]
    with ExitStack() as stack:
        writers = [stack.enter_context(LmdbWriter(f'{out}_{side}.lmdb', compressed)) for side in stores]
        for lq_key, gt_key in tqdm(pairs, unit='pair' if lq else 'image'):
            images = load_pair(stores['lq'], lq_key, stores['gt'], gt_key) if lq else [stores['gt'].load(gt_key)]
            for writer, image in zip(writers, images, strict=True):
                writer.put(lq_key.replace('.', '_'), image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--lq', type=expanduser, help='folder of the degraded images; leave it out for clean images alone'
    )
    parser.add_argument('--gt', type=expanduser, required=True, help='folder of the clean images')
    parser.add_argument('--out', type=expanduser, required=True, help='start of the names of the LMDBs')
    parser.add_argument(
        '--match', help="regular expression whose group is what the names of a pair share, such as '^(\\d+)' for RESIDE"
    )
    parser.add_argument(
        '--uncompressed', action='store_true', help='five times faster to read, up to twice as large on disk'
    )
    args = parser.parse_args()
    try:
        make_lmdb(args.lq, args.gt, args.out, args.match, not args.uncompressed)
    except LoRAIRError as error:
        parser.exit(2, f'error: {error}\n')


if __name__ == '__main__':
    main()
