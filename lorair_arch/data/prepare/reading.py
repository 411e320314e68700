"""Reading of pairs: every image is decoded and compared with its partner, and what is stored is chosen."""

from __future__ import annotations

from collections.abc import Callable

from lorair_arch.data.images.kinds import jpeg_header
from lorair_arch.data.images.metadata import read_metadata
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import decode_photo
from lorair_arch.data.images.writing import encode_png
from lorair_arch.data.prepare.archives import Files
from lorair_arch.data.prepare.layouts import Pair
from lorair_arch.errors import DataError, different_sizes

Stored = tuple[bytes, tuple[int, int]]  # what is in the file, (height, width)
Read = Callable[[str], tuple[Stored, Photo]]


def read_pair(read: Read, read_gt: Read, crop_gt: bool, pair: Pair) -> dict[str, Stored] | str:
    """Reads a pair and compares its sizes.

    Args:
        read: `read_image` of the source.
        read_gt: the same for ground truths.
        crop_gt: see `benchmarks.Part`.
        pair: the names of its images.

    Returns:
        What is to be stored, by sides; or the sentence that says why the pair cannot be used.
    """
    try:
        gt, photo = read_gt(pair.gt)
        if pair.lq is None:
            return {'gt': gt}
        lq, _ = read(pair.lq)
    except DataError as error:
        return str(error)
    border = [side - wanted for side, wanted in zip(gt[1], lq[1], strict=True)]
    if crop_gt and max(border) > 0 and all(side >= 0 and side % 2 == 0 for side in border):
        top, left = (side // 2 for side in border)
        pixels = photo.rgb[top : top + lq[1][0], left : left + lq[1][1]]
        gt = encode_png(pixels), lq[1]
    if lq[1] != gt[1]:
        return different_sizes(pair.lq, lq[1][::-1], pair.gt, gt[1][::-1])
    return {'lq': lq, 'gt': gt}


def read_image(files: Files, name: str) -> tuple[Stored, Photo]:
    """Reads and decodes an image; gives what is to be stored, and its pixels.

    A file that BasicSR reads as we do is stored as it is, to the bit; of all others, a PNG of the pixels.

    Raises:
        DataError: it is damaged, or no image.
    """
    content = files.read(name)
    photo = decode_photo(content, name)
    is_jpeg = content.startswith(b'\xff\xd8\xff')
    kept = photo.pixels.itemsize == 1 and (is_jpeg or content.startswith(b'\x89PNG'))
    kept &= not is_jpeg or jpeg_header(content).channels != 4  # CMYK, of which everybody makes other colours
    # BasicSR would turn it, see `decode_photo`.
    turned = (b'Exif\0' in content or b'eXIf' in content) and read_metadata(content).orientation != 1
    height, width = photo.pixels.shape[:2]
    return (content if kept and not turned else encode_png(photo.rgb), (height, width)), photo
