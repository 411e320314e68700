"""Bad images and LMDBs: how each is made, and the sentence that the user gets."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import lmdb
import numpy as np

from tests.photos import photo, write

LQ, GT = Path('data/train_lq'), Path('data/train_gt')
LQ_DB, GT_DB = Path('data/lq.lmdb'), Path('data/gt.lmdb')
COPY = 'copy it again or remove it'
NAMES = 'the names of a pair must agree except for the extension, or set match'


class Row(NamedTuple):
    """A way to spoil the data, and what is said of it.

    Attributes:
        name: Of the row.
        spoil: Spoils data/train_lq and data/train_gt, or data/lq.lmdb and data/gt.lmdb if the name begins with 'LMDB'.
        sentence: What the user gets; {here} is the current folder, {size} that of data.mdb, MDB_... what LMDB says.
        command: 'read': the training images are read one by one; or a whole command: 'router' and 'sr' train with
            these options; 'workers' and 'prefetch' train the router with other ways to read; 'check' checks the data.
        source: What differs in the options of the source.
    """

    name: str
    spoil: Callable[[], object]
    sentence: str
    command: str = 'read'
    source: dict = {}


def png_of(height: int, width: int) -> bytes:
    """Gives a PNG that claims to be large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def encoded(suffix: str, image: np.ndarray | None = None) -> bytes:
    return cv2.imencode(suffix, photo(3, 24, 28) if image is None else image)[1].tobytes()


def replace(content: bytes, path: Path = LQ / '3.png') -> Callable[[], object]:
    return lambda: path.write_bytes(content)


def link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def flip(path: Path, at: float, count: int = 1) -> None:
    """Changes bytes at a share of a file."""
    content = bytearray(path.read_bytes())
    start = int(len(content) * at)
    content[start : start + count] = bytes(255 - byte for byte in content[start : start + count])
    path.write_bytes(content)


def put(key: str, value: bytes | None) -> None:
    with lmdb.open(str(LQ_DB)) as environment, environment.begin(write=True) as transaction:
        transaction.put(key.encode(), value) if value else transaction.delete(key.encode())


def meta(text: str, mode: str = 'a') -> None:
    with (LQ_DB / 'meta_info.txt').open(mode) as file:
        file.write(text)


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def move(path: Path, to: str) -> None:
    path.rename(path.with_name(to))


CUT_PNG, CUT_JPEG = encoded('.png')[:-40], encoded('.jpg')[:-40]
CUT = f"image 'data/train_lq/3.png' is cut short; {COPY}"
DAMAGED = f"cannot decode image 'data/train_lq/3.png': it is damaged or not an image; {COPY}"
SR = 'data set tiny_train: data/train_half/3.png or data/train_gt/3.png cannot be used '

ROWS = [
    Row('empty', replace(b''), f"image 'data/train_lq/3.png' is empty; {COPY}"),
    Row('PNG cut short', replace(CUT_PNG), f"image 'data/train_lq/3.png' is cut short; {COPY}"),
    Row('JPEG cut short', replace(CUT_JPEG), f"image 'data/train_lq/3.png' is cut short; {COPY}"),
    Row('BMP cut short', replace(encoded('.bmp')[:-40]), CUT),
    Row('TIFF cut short', replace(encoded('.tiff')[:-40]), DAMAGED),
    Row('WebP cut short', replace(encoded('.webp')[:-40]), CUT),
    Row('no image', replace(b'version https://git-lfs.github.com/spec/v1\n' * 9), DAMAGED),
    Row('one wrong bit', lambda: flip(LQ / '3.png', 0.5), DAMAGED),
    Row(
        'floating point',
        replace(encoded('.tiff', np.zeros((24, 28, 3), np.float32))),
        "image 'data/train_lq/3.png' has float32 pixels; convert it to 8 or 16 bits",
    ),
    Row(
        'more pixels than memory',
        replace(png_of(60000, 60000)),
        "image 'data/train_lq/3.png' claims to have 60000 x 60000 pixels, at most 1073741824 are read; cut it "
        'into parts or remove it',
    ),
    Row(
        'dangling link',
        lambda: link(LQ / '3.png', 'gone.png'),
        "cannot read 'data/train_lq/3.png': No such file or directory",
    ),
    Row(
        'link to itself',
        lambda: link(LQ / '3.png', '3.png'),
        "cannot read 'data/train_lq/3.png': Too many levels of symbolic links",
    ),
    Row(
        'sizes of a pair differ',
        lambda: write(LQ / '3.png', photo(3, 24, 27)),
        "'data/train_lq/3.png' is 27 x 24 pixels but its ground truth 'data/train_gt/3.png' is 28 x 24; "
        'the images of a pair must have the same size',
    ),
    Row(
        'lying on its side',
        lambda: write(LQ / '3.png', photo(3, 28, 24)),
        "'data/train_lq/3.png' is 24 x 28 pixels but its ground truth 'data/train_gt/3.png' is 28 x 24; "
        'the images of a pair must have the same size',
    ),
    Row(
        'no ground truth',
        lambda: write(LQ / 'more.png', photo()),
        f"no partner in 'data/train_gt' for 'more' of 'data/train_lq'; {NAMES}",
    ),
    Row(
        'no degraded image',
        lambda: [(LQ / f'{i}.png').unlink() for i in range(5)],
        f"no partner in 'data/train_lq' for '0', '1', '2' and 2 more of 'data/train_gt'; {NAMES}",
    ),
    Row(
        'upper and lower case',
        lambda: [write(LQ / 'A.png', photo()), write(GT / 'a.png', photo())],
        f"no partner in 'data/train_gt' for 'A' of 'data/train_lq'; {NAMES}",
    ),
    Row(
        'two files of one name',
        lambda: write(GT / '3.bmp', photo()),
        "'data/train_gt' holds both '3.bmp' and '3.png'; keep one of them",
    ),
    Row(
        'two ground truths',
        lambda: None,
        "'0' and '1' in 'data/train_gt' would both be the ground truth of ''",
        source={'match': r'^(.*?)\d'},
    ),
    Row(
        'match without a match',
        lambda: None,
        "match: 'rain-(.)' finds nothing in '0', '1', '2' and 4 more of 'data/train_gt'",
        source={'match': 'rain-(.)'},
    ),
    Row(
        'empty folder',
        lambda: empty(GT),
        "'data/train_gt' holds no images (.png, .jpg, .tif, ...); check the path",
    ),
    Row(
        'folder gone',
        lambda: GT.rename('data/elsewhere'),
        "folder 'data/train_gt' does not exist (looked for from '{here}'); check the path",
    ),
    Row(
        'file for a folder',
        lambda: None,
        "'data/train_gt/0.png' is a file; expected a folder of images or an LMDB, which is a folder too",
        source={'dataroot_gt': 'data/train_gt/0.png'},
    ),
    Row(
        'both folders are one',
        lambda: Path('same').symlink_to('data/train_gt'),
        "sources[0].dataroot_lq: found 'same', the folder of dataroot_gt, expected that of the degraded images",
        source={'dataroot_lq': 'same'},
    ),
    Row(
        'list of images that are not there',
        lambda: Path('list.txt').write_text('1.png (24,28,3)\n8.png (24,28,3)\n'),
        "'data/train_gt' lacks '8', which 'list.txt' lists",
        source={'meta_info_file': 'list.txt'},
    ),
    Row(
        'LMDB without a list',
        lambda: (LQ_DB / 'meta_info.txt').rename(LQ_DB / 'meta_info.pkl'),
        "LMDB 'data/lq.lmdb' has no meta_info.txt; make it with scripts/data_preparation/make_lmdb.py",
    ),
    Row(
        'LMDB without data',
        lambda: (LQ_DB / 'data.mdb').unlink(),
        "LMDB 'data/lq.lmdb' has no data.mdb; make it with scripts/data_preparation/make_lmdb.py",
    ),
    Row(
        'LMDB of another name',
        lambda: LQ_DB.rename('data/lq'),
        "'data/lq' holds no images (.png, .jpg, .tif, ...); it is an LMDB: its name must end in '.lmdb'",
        source={'dataroot_lq': 'data/lq'},
    ),
    Row(
        'LMDB with another list',
        lambda: meta('c 24 28\n'),
        "'data/lq.lmdb/meta_info.txt', line 4: expected 'name.png (height,width,channels) 1', found 'c 24 28'",
    ),
    Row('LMDB with an empty list', lambda: meta('', 'w'), "'data/lq.lmdb/meta_info.txt' lists no images"),
    Row(
        'LMDB without an image',
        lambda: put('b', None),
        "LMDB 'data/lq.lmdb' lacks 'b', which its meta_info.txt lists; make it again",
    ),
    Row(
        'LMDB with a name that is too long',
        lambda: meta(f'{"k" * 600}.png (24,28,3) 1\n'),
        f"LMDB 'data/lq.lmdb' lacks '{'k' * 600}', which its meta_info.txt lists; make it again",
    ),
    Row(
        'LMDB cut short',
        lambda: os.truncate(LQ_DB / 'data.mdb', 8192),
        "LMDB '{here}/data/lq.lmdb' is cut short: data.mdb has 8192 of {size} bytes; make it again",
    ),
    Row(
        'LMDB of nothing',
        replace(b'', LQ_DB / 'data.mdb'),
        "cannot open LMDB '{here}/data/lq.lmdb': data.mdb is empty; make it again",
    ),
    Row(
        'LMDB of something else',
        replace(b'hello' * 5000, LQ_DB / 'data.mdb'),
        "cannot open LMDB '{here}/data/lq.lmdb': MDB_INVALID: File is not an LMDB file; make it again",
    ),
    Row(
        'LMDB with a damaged page',
        lambda: flip(LQ_DB / 'data.mdb', 0.8, 4096),
        "cannot read 'a' in LMDB 'data/lq.lmdb': mdb_get: MDB_...; make the LMDB again",
    ),
    Row(
        'LMDB with an image cut short',
        lambda: put('b', CUT_PNG),
        f"image 'data/lq.lmdb/b.png' is cut short; {COPY}",
    ),
    Row(
        'LMDB with a text',
        lambda: put('b', b'hello'),
        f"cannot decode image 'data/lq.lmdb/b.png': it is damaged or not an image; {COPY}",
    ),
    Row(
        'LMDB with another image',
        lambda: put('b', encoded('.png', photo(1, 20, 28))),
        "'data/lq.lmdb/b.png' is 28 x 20 pixels but its ground truth 'data/gt.lmdb/b.png' is 28 x 24; "
        'the images of a pair must have the same size',
    ),
    Row(
        'LMDBs of different images',
        lambda: [put('d', encoded('.png')), meta('d.png (24,28,3) 1\n')],
        f"no partner in 'data/gt.lmdb' for 'd' of 'data/lq.lmdb'; {NAMES}",
    ),
    Row(
        'too small',
        lambda: [write(folder / '3.png', photo(3, 24, 15)) for folder in (LQ, GT)],
        "'data/train_gt/3.png' (15 x 24 pixels) is smaller than gt_size (16); remove it, lower gt_size or set "
        'pad_small',
        'router',
    ),
    Row('empty, in a worker', replace(b''), f"image 'data/train_lq/3.png' is empty; {COPY}", 'workers'),
    Row('empty, read ahead', replace(b''), f"image 'data/train_lq/3.png' is empty; {COPY}", 'prefetch'),
    Row(
        'validation image',
        replace(CUT_PNG, Path('data/val_gt/1.png')),
        f"image 'data/val_gt/1.png' is cut short; {COPY}",
        'router',
    ),
    Row(
        "damaged, BasicSR's data set",
        replace(b'hello', Path('data/train_half/3.png')),
        SR + f'(ValueError: cannot decode the image: it is damaged or not an image; {COPY}); check the files',
        'sr',
    ),
    Row(
        "sizes, BasicSR's data set",
        lambda: write(Path('data/train_half/3.png'), photo(3, 12, 12)),
        SR + "(ValueError: ('Scale mismatches. GT (24, 28) is not 2x ', "
        "'multiplication of LQ (12, 12).')); check the files",
        'sr',
    ),
    Row(
        "unpaired, BasicSR's data set",
        lambda: move(Path('data/train_half/3.png'), 'three.png'),
        'data set tiny_train: 3.png is not in lq_paths.',
        'sr',
    ),
    Row('check', replace(b''), f"image 'data/train_lq/3.png' is empty; {COPY}", 'check'),
]
