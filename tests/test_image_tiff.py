"""TIFF files of every kind that tifffile and Pillow write: the pixels, or a sentence."""

from __future__ import annotations

import io
from itertools import product

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from lorair_arch.data.images.reading import decode_photo
from lorair_arch.errors import DataError
from tests.photos import photo

HEIGHT, WIDTH = 19, 34
RGB = photo(0, HEIGHT, WIDTH)
GREY = RGB[..., 0]
SRGB, LAB = ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB')
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = range(3)
LOSSY = ('jpeg', 'webp', 'jpegxl')
COMPRESSIONS = (None, 'lzw', 'zlib', 'packbits', 'zstd', 'lzma', 'jpeg', 'jpeg2000', 'webp', 'jpegxl', 'lerc')


def written(image, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, image, **options)
    return stream.getvalue()


def saved(image, **options):
    stream = io.BytesIO()
    image.save(stream, 'TIFF', **options)
    return stream.getvalue()


def deep(image, bits):
    return image if bits == 8 else image.astype(np.uint16) * 257


def layouts(bits, compression):
    """Gives how a file is laid out: planes, byte order, tiles, BigTIFF."""
    for planes, order, tile, big in product(('contig', 'separate'), '<>', (None, (16, 16)), (False, True)):
        # tifffile writes these with the bytes in the wrong order, or not at all
        if order == '<' or bits == 8 or compression not in ('jpeg2000', 'jpegxl', 'lerc'):
            yield {'planarconfig': planes, 'byteorder': order, 'tile': tile, 'bigtiff': big, 'metadata': None}


@pytest.mark.parametrize('compression', COMPRESSIONS)
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('kind', ['miniswhite', 'minisblack', 'rgb'])
@pytest.mark.parametrize('extra', [None, UNSPECIFIED, ASSOCIATED, UNASSOCIATED])
def test_sweep(kind, extra, bits, compression):
    if compression in ('jpeg', 'webp') and (extra is not None or bits == 16 or kind == 'miniswhite'):
        pytest.skip('cannot be written')
    if (kind != 'rgb' and compression == 'webp') or (compression == 'lerc' and bits == 16):
        pytest.skip('cannot be written')
    colours = deep(RGB if kind == 'rgb' else GREY, bits)
    top = np.iinfo(colours.dtype).max
    alpha = deep(np.random.default_rng(0).integers(100, 256, GREY.shape, np.uint8), bits)
    share = np.float64(alpha if colours.ndim == 2 else alpha[..., None]) / top
    image = np.rint(colours * share).astype(colours.dtype) if extra == ASSOCIATED else colours
    image = top - image if kind == 'miniswhite' else image
    if extra is not None:
        image = np.dstack([image, alpha])
    worst = np.mean if compression in LOSSY else np.max
    allowed = (8 if compression in LOSSY else 1.3 if extra == ASSOCIATED else 0) * top / 255
    tried = 0
    for layout in layouts(bits, compression):
        separate = layout['planarconfig'] == 'separate'
        if separate and (image.ndim == 2 or compression == 'webp'):
            continue
        if image.ndim == 2:
            del layout['planarconfig']
        planes = np.ascontiguousarray(image.transpose(2, 0, 1)) if separate else image
        extras = None if extra is None else [extra]
        content = written(planes, photometric=kind, extrasamples=extras, compression=compression, **layout)
        found = decode_photo(content, 'x')
        assert found.pixels.shape == colours.shape and found.pixels.dtype == colours.dtype, layout
        assert worst(np.abs(found.pixels.astype(int) - colours)) <= allowed, layout
        if extra in (ASSOCIATED, UNASSOCIATED):
            assert found.notes == ()
            assert worst(np.abs(found.alpha.astype(int) - alpha)) <= (allowed if compression in LOSSY else 0), layout
        else:
            assert found.alpha is None
            expected = () if extra is None else ('a channel that is neither colour nor alpha is left out',)
            assert found.notes == expected
        tried += 1
    assert tried >= 4


@pytest.mark.parametrize(
    'compression', [None, 'packbits', 'tiff_lzw', 'tiff_adobe_deflate', 'jpeg', 'group3', 'group4']
)
@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'LA', 'RGB', 'RGBA', 'CMYK', 'YCbCr'])
def test_as_pillow_writes_and_reads(mode, compression):
    if (mode == '1') != (compression in ('group3', 'group4')) and compression in ('group3', 'group4', 'jpeg'):
        pytest.skip('cannot be written')
    if mode == 'P' and compression == 'jpeg':
        pytest.skip('cannot be written')
    content = saved(Image.fromarray(RGB).convert(mode), compression=compression)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert({'1': 'L', 'P': 'RGB', 'CMYK': 'RGB', 'YCbCr': 'RGB'}.get(mode, mode)))
    found = decode_photo(content, 'x')
    if mode in ('LA', 'RGBA'):
        np.testing.assert_array_equal(found.alpha, expected[..., -1])
        expected = expected[..., :-1].squeeze()
    np.testing.assert_array_equal(found.pixels, expected)
    assert bool(found.notes) == (mode == 'CMYK')


@pytest.mark.parametrize('compression', [None, 'tiff_lzw'])
def test_lab(compression):
    image = ImageCms.profileToProfile(Image.fromarray(RGB), SRGB, LAB, outputMode='LAB')
    expected = np.asarray(ImageCms.profileToProfile(image, LAB, SRGB, outputMode='RGB'))
    found = decode_photo(saved(image, compression=compression), 'x')
    np.testing.assert_array_equal(found.pixels, expected)
    assert np.abs(expected.astype(int) - RGB).mean() < 2
    assert found.notes == ('its Lab colours became sRGB',)
    values = np.frombuffer(image.tobytes(), np.uint8).reshape(*RGB.shape)  # a* and b* signed
    values = values ^ np.array([0, 128, 128], np.uint8)
    np.testing.assert_array_equal(decode_photo(written(values, photometric='icclab'), 'x').pixels, expected)


@pytest.mark.parametrize('bits', [1, 2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize('kind', ['minisblack', 'miniswhite'])
def test_other_depths_are_stretched(kind, bits):
    top, wide = 2**bits - 1, 255 if bits < 8 else 65535
    values = np.random.default_rng(0).integers(0, top + 1, (HEIGHT, WIDTH)).astype(np.uint8 if bits < 8 else np.uint16)
    try:
        content = written(values, photometric=kind, bitspersample=bits)
    except NotImplementedError:
        pytest.skip('this version of imagecodecs reads such depths, but does not write them')
    expected = np.rint(np.float64(values if kind == 'minisblack' else top - values) * wide / top)
    np.testing.assert_array_equal(decode_photo(content, 'x').pixels, expected)


def test_palettes():
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256), dtype=np.uint16)
    found = decode_photo(written(GREY, photometric='palette', colormap=colours), 'x')
    np.testing.assert_array_equal(found.pixels, (colours >> 8).T[GREY])


@pytest.mark.parametrize('sampling', [(1, 1), (2, 1), (2, 2)])
def test_jpeg_of_ycbcr(sampling):
    content = written(RGB, photometric='ycbcr', compression='jpeg', subsampling=sampling)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))
    np.testing.assert_array_equal(decode_photo(content, 'x').pixels, expected)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_rows_in_any_order(orientation):
    content = written(RGB, photometric='rgb', metadata=None, extratags=[(274, 3, 1, orientation, True)])
    np.testing.assert_array_equal(decode_photo(content, 'x').pixels, np.asarray(Image.open(io.BytesIO(content))))


def pages(*images, reduced=()):
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for i, image in enumerate(images):
            file.write(image, photometric='rgb', subfiletype=int(i in reduced), metadata=None)
    return stream.getvalue()


def pyramid():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(RGB, photometric='rgb', subifds=1)
        file.write(RGB[::2, ::2], photometric='rgb', subfiletype=1)
    return stream.getvalue()


@pytest.mark.parametrize('content', [pages(RGB, RGB[::4, ::4], reduced=[1]), pyramid()], ids=['thumbnail', 'pyramid'])
def test_smaller_copies_are_no_pages(content):
    np.testing.assert_array_equal(decode_photo(content, 'x').pixels, RGB)


WHOLE = written(RGB, photometric='rgb', compression='lzw', rowsperstrip=7, metadata=None)
OTHER_TYPES = ('i1', 'i2', 'u4', 'i4', 'u8', 'f2', 'f4', 'f8')
DEVELOP = "is a camera's raw file, in which only a preview can be read here; develop it to a TIFF of 16 bits first"
DNG = [(50706, 1, 4, b'\1\4\0\0', True)]
SEVERAL = "^'x' is a TIFF file of {} pages, and a single image is needed; save each as a file of its own$"
CUT = "^image 'x' is cut short; copy it again or remove it$"


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        *(
            (written(GREY.astype(kind)), f'has {np.dtype(kind)} pixels')
            for kind in ['i1', 'i2', 'u4', 'i4', 'u8', 'f2', 'f4', 'f8']
        ),
        (saved(Image.fromarray(GREY.astype(np.int32))), "^image 'x' has int32 pixels; convert it to 8 or 16 bits$"),
        (written(np.stack([GREY] * 3), photometric='minisblack'), SEVERAL.format(3)),
        (written(np.stack([RGB] * 4), photometric='rgb'), SEVERAL.format(4)),
        (written(np.stack([GREY] * 3), imagej=True), SEVERAL.format(3)),
        (written(np.stack([GREY] * 3), photometric='minisblack', ome=True), SEVERAL.format(3)),
        (written(np.stack([GREY] * 3), photometric='minisblack', volumetric=True), SEVERAL.format(3)),
        (pages(RGB, RGB), SEVERAL.format(2)),
        (pages(RGB[::4, ::4], RGB, reduced=[0]), DEVELOP),
        (written(RGB, photometric='rgb', extratags=DNG, metadata=None), DEVELOP),
        (written(GREY, photometric='cfa'), DEVELOP),
        (written(RGB, photometric='minisblack', planarconfig='contig'), "^image 'x' has 3 grey channels; convert it"),
        (written(deep(np.dstack([RGB, GREY]), 16), photometric='separated'), r'SEPARATED pixels \(of 16 bits, none\)'),
        (written(RGB, photometric='logluv'), 'has LOGLUV pixels; convert it to RGB or grey'),
        (WHOLE[:-1], CUT),
        (WHOLE[: len(WHOLE) // 2], CUT),
        (WHOLE[:9], "^cannot decode image 'x'"),
        (WHOLE[:16] + b'\xff' * (len(WHOLE) - 16), 'damaged|cut short|claims'),
        (
            saved(ImageCms.profileToProfile(Image.fromarray(RGB), SRGB, LAB, outputMode='LAB'), compression='jpeg'),
            r"^image 'x' has CIELAB pixels \(of 8 bits, jpeg\); convert it to RGB$",
        ),
    ],
)
def test_the_sentence(content, message):
    with pytest.raises(DataError, match=message):
        decode_photo(content, 'x')


def test_what_follows_the_image_does_no_harm():
    np.testing.assert_array_equal(decode_photo(WHOLE + b'\0' * 5000, 'x').pixels, RGB)


@pytest.mark.parametrize('compression', [None, 'lzw', 'zlib', 'packbits'])
def test_damaged_bytes_never_end_in_another_error(compression):
    content = written(RGB, photometric='rgb', compression=compression, rowsperstrip=8)
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content)
        for place in rng.integers(8, len(content), 6):
            damaged[place] ^= rng.integers(1, 256, dtype=np.uint8)
        try:
            decode_photo(bytes(damaged), 'x')
        except DataError as error:
            assert "'x'" in str(error)
