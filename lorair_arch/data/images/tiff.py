"""TIFF files of one image: every layout, compression and depth of them that tifffile knows."""

from __future__ import annotations

import io
import logging

import numpy as np
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC, TiffPage

from lorair_arch.data.images import photo as colours
from lorair_arch.data.images.kinds import RAW, check_single, check_whole
from lorair_arch.data.images.metadata import opened
from lorair_arch.data.images.photo import Photo, check_size, full_range, undo_multiplication
from lorair_arch.errors import DataError

# What it logs of a damaged file would stand on the console beside the sentence.
logging.getLogger('tifffile').addHandler(logging.NullHandler())

_ORIENTATION, _ICC, _DNG = 274, 34675, 50706
_REDUCED, _MASK = 1, 4  # bits of the kind of a page
_ASSOCIATED, _UNASSOCIATED = 1, 2  # kinds of a further channel; 0: unspecified
# Kinds of pixels, and of how many channels their colours are.
_COLOURS = {
    **dict.fromkeys((PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.PALETTE), 1),
    **dict.fromkeys((PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR, PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB), 3),
    PHOTOMETRIC.SEPARATED: 4,
}
_FAX = (COMPRESSION.CCITTRLE, COMPRESSION.CCITT_T4, COMPRESSION.CCITT_T6)
_JPEG = (COMPRESSION.JPEG, COMPRESSION.OJPEG)


def decode_tiff(content: bytes | memoryview, path: str, most_pixels: int) -> Photo:
    """Decodes a TIFF file of one image, upright; see `reading.decode_photo`."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = _only_page(file, path)
        check_size((page.imagewidth, page.imagelength), path, most_pixels)
        ends = (start + count for start, count in zip(page.dataoffsets, page.databytecounts))
        check_whole(min(page.databytecounts, default=0) > 0 and max(ends) <= len(content), path)
        tag = page.tags.get(_ORIENTATION)
        orientation = tag.value if tag and tag.value in range(1, 9) else 1
        spread = page.photometric == PHOTOMETRIC.YCBCR and page.compression not in _JPEG
        if spread or page.compression in _FAX:
            # libtiff, which Pillow asks, knows how such channels are spread over the pixels, and all forms of fax
            image = opened(content, ('TIFF',))
            image.info.pop('icc_profile', None)
            return colours.from_pillow(image, path)  # turned by Pillow
        return _decode(page, path).upright(orientation)


def _only_page(file: tifffile.TiffFile, path: str) -> TiffPage:
    """Gives the page that is the image, not a thumbnail or mask of it, if it is the only one."""
    first = file.pages[0]
    # 34892 are a camera's linear pixels. Raw files may begin with a preview, a page of reduced size.
    if _DNG in first.tags or first.subfiletype & _REDUCED or first.photometric in (PHOTOMETRIC.CFA, 34892):
        raise DataError(f"'{path}' is {RAW}")
    pages = [page for page in file.pages if not page.subfiletype & (_REDUCED | _MASK)]
    count = len(pages)
    if file.is_imagej:  # which may have all of its images behind one page
        count = max(count, (file.imagej_metadata or {}).get('images', 1))
    check_single(count * first.imagedepth, path, 'a TIFF file of {} pages')
    return first


def _decode(page: TiffPage, path: str) -> Photo:
    colour_count = _COLOURS.get(page.photometric)
    # Data workers are processes already: threads in each would compete for the same cores.
    channels = page.asarray(maxworkers=1)
    # Planes: each channel is stored on its own.
    channels = np.moveaxis(channels, 0, -1) if page.axes == 'SYX' else channels
    channels = channels[..., None] if page.axes == 'YX' else channels
    if colour_count is None or channels.ndim != 3 or channels.shape[2] < colour_count:
        kind = getattr(page.photometric, 'name', page.photometric)
        raise DataError(f"image '{path}' has {kind} pixels; convert it to RGB or grey")
    bits = page.bitspersample
    # Numbers of colours are no brightness: stretched, they would point elsewhere.
    channels = channels if page.photometric == PHOTOMETRIC.PALETTE else full_range(channels, bits, path)
    kinds = list(page.extrasamples) + [0] * (channels.shape[2] - colour_count - len(page.extrasamples))
    alpha, notes = None, ()
    if colour_count == 1 and len(kinds) > 1:
        raise DataError(f"image '{path}' has {channels.shape[2]} grey channels; convert it to RGB or grey")
    for i, kind in enumerate(kinds, colour_count):
        if kind in (_ASSOCIATED, _UNASSOCIATED) and alpha is None:
            alpha, associated = channels[..., i], kind == _ASSOCIATED
        else:
            notes = ('a channel that is neither colour nor alpha is left out',)
    photo = _in_rgb(channels[..., :colour_count], page, path)
    pixels = photo.pixels
    if alpha is not None and associated:  # associated: the file has its colours multiplied with alpha
        pixels = undo_multiplication(pixels.reshape(*alpha.shape, -1), alpha).reshape(pixels.shape)
    return photo._replace(pixels=pixels, alpha=alpha, notes=photo.notes + notes)


def _in_rgb(values: np.ndarray, page: TiffPage, path: str) -> Photo:
    """Brings the colours [H, W, C] of a page, uint8 or uint16, to grey or RGB."""
    kind = page.photometric
    if kind == PHOTOMETRIC.PALETTE:
        # TIFF keeps its palettes in 16 bits.
        return Photo((page.colormap >> 8).astype(np.uint8).T[values[..., 0]])
    if kind == PHOTOMETRIC.MINISWHITE:
        return Photo(np.iinfo(values.dtype).max - values[..., 0])  # 0 is white, as ink on paper
    if kind == PHOTOMETRIC.MINISBLACK:
        return Photo(values[..., 0])
    if kind in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR):
        return Photo(values)
    if values.dtype != np.uint8 or (kind != PHOTOMETRIC.SEPARATED and page.compression in _JPEG):
        how = f'of {8 * values.itemsize} bits, {page.compression.name.lower()}'
        raise DataError(f"image '{path}' has {kind.name} pixels ({how}); convert it to RGB")
    if kind == PHOTOMETRIC.SEPARATED:
        icc = page.tags.get(_ICC)
        return colours.cmyk(values, icc.value if icc else None)
    if kind == PHOTOMETRIC.ICCLAB:  # a* and b* from 0 on, not signed
        values = values ^ np.array([0, 128, 128], np.uint8)
    return colours.lab(values)
