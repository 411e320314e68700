"""Image files of all other formats, and odd ones: the pixels, or a sentence."""

from __future__ import annotations

import io
import sys

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms

from lorair_arch.data.images.reading import complete_photo, decode_image, decode_photo
from lorair_arch.data.stores import Folder
from lorair_arch.errors import DataError
from tests.odd_images import (
    GREY,
    RGB,
    chunk,
    deep_png_with_transparent_colour,
    interlaced_png,
    png,
    ppm,
    saved,
    several,
    with_segment,
    without_adobe,
)  # fmt: skip

DEEP = RGB.astype(np.uint16) * 257
ALPHA = np.random.default_rng(0).integers(1, 256, GREY.shape, np.uint8)
RGBA, LA = np.dstack([RGB, ALPHA]), np.dstack([GREY, ALPHA])
JPEG, PNG = saved(RGB, 'JPEG'), saved(RGB, 'PNG')
VIDEO = b'\0\0\0\x18ftypmp42' + bytes(range(256)) * 40 + b'\xff\xda\0\x08junk\xff\xd8\xff\xe1' + bytes(999)
INKS = np.dstack([255 - RGB, np.full(GREY.shape, 20, np.uint8)])
FROM_INKS = np.asarray(Image.fromarray(INKS, 'CMYK').convert('RGB'))


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


def quantised():
    return Image.fromarray(RGB).quantize(16)


def halves(image, bits):
    """Values of less than 16 bits, as files of such a depth hold them, and the same at 16 bits."""
    values = image.astype(np.uint16) >> (16 - bits)
    return values, np.rint(values * (65535 / (2**bits - 1))).astype(np.uint16)


TEN, TEN_WIDE = halves(DEEP, 10)
TWELVE, TWELVE_WIDE = halves(DEEP, 12)


@pytest.mark.parametrize(
    ('name', 'content', 'pixels', 'alpha', 'allowed'),
    [
        ('BMP', saved(RGB, 'BMP'), RGB, None, 0),
        ('BMP grey', saved(GREY, 'BMP'), GREY, None, 0),
        ('BMP of 32 bits', cv2.imencode('.bmp', RGBA[..., [2, 1, 0, 3]])[1].tobytes(), RGB, ALPHA, 0),
        ('GIF', saved(quantised(), 'GIF'), np.asarray(quantised().convert('RGB')), None, 0),
        ('TGA', saved(RGBA, 'TGA', compression='tga_rle'), RGB, ALPHA, 0),
        ('WebP', saved(RGB, 'WEBP', lossless=True), RGB, None, 0),
        ('WebP with alpha', saved(RGBA, 'WEBP', lossless=True), RGB, ALPHA, 0),
        ('AVIF', saved(RGB, 'AVIF', quality=100, subsampling='4:4:4'), RGB, None, 6),
        ('AVIF of 10 bits', imagecodecs.avif_encode(TEN, level=None, bitspersample=10), TEN_WIDE, None, 800),
        ('AVIF of 12 bits', imagecodecs.avif_encode(TWELVE, level=None, bitspersample=12), TWELVE_WIDE, None, 800),
        ('JPEG 2000', saved(RGB, 'JPEG2000'), RGB, None, 0),
        ('JPEG 2000 grey', saved(GREY, 'JPEG2000'), GREY, None, 0),
        ('JPEG 2000 of 16 bits', imagecodecs.jpeg2k_encode(DEEP, level=0, codecformat='jp2'), DEEP, None, 0),
        ('QOI', imagecodecs.qoi_encode(RGB), RGB, None, 0),
        ('PPM', ppm(255), RGB, None, 0),
        ('PPM of 16 bits', ppm(65535), DEEP, None, 0),
        ('PPM up to 1023', ppm(1023), np.rint(np.rint(RGB / 255 * 1023) * 65535 / 1023), None, 0),
        ('PPM up to 100', ppm(100), RGB, None, 2),
        ('PGM', ppm(255, 5), GREY, None, 0),
        ('PGM of 16 bits', ppm(65535, 5), DEEP[..., 0], None, 0),
        ('PBM', saved(Image.fromarray(GREY > 99), 'PPM'), (GREY > 99) * np.uint8(255), None, 0),
        ('PNG of 1 bit', saved(Image.fromarray(GREY > 99), 'PNG'), (GREY > 99) * np.uint8(255), None, 0),
        ('PNG grey', saved(GREY, 'PNG'), GREY, None, 0),
        ('PNG grey of 16 bits', saved(DEEP[..., 0], 'PNG'), DEEP[..., 0], None, 0),
        ('PNG grey with alpha', saved(LA, 'PNG'), GREY, ALPHA, 0),
        ('PNG grey with alpha of 16 bits', imagecodecs.png_encode(LA.astype(np.uint16) * 257), DEEP[..., 0], ALPHA, 0),
        ('PNG with alpha', saved(RGBA, 'PNG'), RGB, ALPHA, 0),
        ('PNG palette', saved(quantised(), 'PNG'), np.asarray(quantised().convert('RGB')), None, 0),
        ('PNG interlaced', interlaced_png(), RGB, None, 0),
        ('PNG with a gamma alone', png(chunk(b'gAMA', (100000).to_bytes(4, 'big'))), RGB, None, 0),
        ('PNG with cICP alone', png(chunk(b'cICP', bytes([12, 13, 0, 1]))), RGB, None, 0),
        ('JPEG grey', saved(GREY, 'JPEG', quality=100), GREY, None, 2),
        ('JPEG of 12 bits', imagecodecs.jpeg8_encode(TWELVE, level=100, bitspersample=12), TWELVE_WIDE, None, 9000),
        ('JPEG CMYK', saved(Image.fromarray(INKS, 'CMYK'), 'JPEG', quality=100), FROM_INKS, None, 8),
        (
            'JPEG CMYK without the marker',
            without_adobe(saved(Image.fromarray(INKS, 'CMYK'), 'JPEG', quality=100)),
            FROM_INKS,
            None,
            8,
        ),
        ('one pixel', saved(RGB[:1, :1], 'PNG'), RGB[:1, :1], None, 0),
        ('PNG and 5,000 bytes', PNG + bytes(5000), RGB, None, 0),
        ('BMP and a tail', saved(RGB, 'BMP') + b'tail', RGB, None, 0),
        ('GIF and a tail', saved(quantised(), 'GIF') + b'tail', np.asarray(quantised().convert('RGB')), None, 0),
        ('WebP and a tail', saved(RGB, 'WEBP', lossless=True) + b'tail', RGB, None, 0),
        ('JPEG and a video', JPEG + VIDEO, np.asarray(Image.open(io.BytesIO(JPEG))), None, 0),
        ('JPEG in steps and a video', saved(RGB, 'JPEG', progressive=True) + VIDEO, RGB, None, 40),
        (
            'JPEG with restarts, a thumbnail and a video',
            with_segment(saved(RGB, 'JPEG', restart_marker_blocks=1), b'Exif\0\0' + JPEG) + VIDEO,
            RGB,
            None,
            40,
        ),
    ],
)
def test_pixels(name, content, pixels, alpha, allowed):
    found = decode_photo(content, 'x')
    assert found.pixels.shape == pixels.shape
    assert found.pixels.dtype == (np.uint16 if pixels.dtype == np.float64 else pixels.dtype)
    assert np.abs(found.pixels - pixels.astype(float)).max() <= allowed
    if alpha is None:
        assert found.alpha is None
    else:
        np.testing.assert_array_equal(found.alpha, alpha.astype(found.pixels.dtype) * (257 if '16' in name else 1))
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
    assert np.abs(decode_image(content, 'x') - expected.astype(float)).max() <= allowed


@pytest.mark.parametrize('mode', ['P', 'L', 'RGB'])
def test_one_transparent_colour(mode):
    image = Image.fromarray(RGB).convert(mode) if mode != 'P' else quantised()
    key = image.getpixel((3, 3))
    expected = np.asarray(image.convert('RGB') if mode == 'P' else image)
    transparent = np.asarray(image) == key
    transparent = transparent.all(2) if mode == 'RGB' else transparent
    found = decode_photo(saved(image, 'PNG', transparency=key), 'x')
    np.testing.assert_array_equal(found.pixels, expected)
    np.testing.assert_array_equal(found.alpha == 0, transparent)
    assert 0 < transparent.sum() < transparent.size


def test_one_transparent_colour_of_16_bits():
    found = decode_photo(deep_png_with_transparent_colour(), 'x')
    np.testing.assert_array_equal(found.pixels, DEEP)
    np.testing.assert_array_equal(found.alpha == 0, (RGB[0, 0] == RGB).all(2))


@pytest.mark.parametrize('icc', [b'nonsense', SRGB, SRGB[:16] + b'CMYK' + SRGB[20:]], ids=['none', 'RGB', 'no tables'])
def test_cmyk_with_a_profile_that_cannot_be_used(icc):
    found = complete_photo(saved(Image.fromarray(INKS, 'CMYK'), 'JPEG', icc_profile=icc, quality=100), 'x')
    assert np.abs(found.pixels.astype(int) - FROM_INKS).max() <= 8
    assert found.icc is None
    assert found.notes == ('its CMYK colours became sRGB without a colour profile, which is not exact',)


CUT = "^image 'x' is cut short; copy it again or remove it$"
ANIMATION = "^'x' is an animation of 3 frames, and a single image is needed; save each as a file of its own$"
FORMATS = {
    'JPEG': JPEG,
    'JPEG in steps': saved(RGB, 'JPEG', progressive=True),
    'JPEG with a thumbnail': with_segment(JPEG, b'Exif\0\0' + JPEG),
    'PNG': PNG,
    'PNG of 16 bits': imagecodecs.png_encode(DEEP),
    'WebP': saved(RGB, 'WEBP'),
    'BMP': saved(RGB, 'BMP'),
    'GIF': saved(quantised(), 'GIF'),
    'PPM': ppm(255),
    'PPM of 16 bits': ppm(65535),
    'TGA': saved(RGB, 'TGA'),
}


@pytest.mark.parametrize('share', [0.3, 0.7, 0.99])
@pytest.mark.parametrize('name', FORMATS)
def test_cut_short(name, share):
    content = FORMATS[name]
    decode_photo(content, 'x')
    with pytest.raises(DataError, match=CUT):
        decode_photo(content[: int(len(content) * share)], 'x')


@pytest.mark.parametrize('name', ['JPEG', 'JPEG in steps', 'JPEG with a thumbnail', 'PNG', 'PNG of 16 bits', 'WebP'])
@pytest.mark.parametrize('missing', [1, 2, 9, 13])
def test_the_end_is_missing(name, missing):
    with pytest.raises(DataError, match=CUT):
        decode_photo(FORMATS[name][:-missing], 'x')


@pytest.mark.parametrize('share', [0.3, 0.7, 0.95])
@pytest.mark.parametrize('file_format', ['AVIF', 'JPEG2000'])
def test_cut_short_or_damaged(file_format, share):
    content = saved(RGB, file_format)
    with pytest.raises(DataError, match="'x'"):
        decode_photo(content[: int(len(content) * share)], 'x')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', "^image 'x' is empty; copy it again or remove it$"),
        (b'hello', "^cannot decode image 'x': it is damaged or not an image; copy it again or remove it$"),
        (b'\n<!DOCTYPE html><html>', r"^'x' is a web page \(a download gave a page instead of the file\); download it"),
        (b'<?xml version="1.0"?><svg width="5"></svg>', "^'x' is an SVG file; save it as PNG$"),
        (b'%PDF-1.7', "^'x' is a PDF file"),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', "^'x' is a PostScript file; save it as TIFF or PNG$"),
        (b'8BPS\0\1' + bytes(40), "^'x' is a Photoshop file"),
        (b'v/1\x01' + bytes(40), "^'x' is an image of floating-point pixels; convert it to 8 or 16 bits$"),
        (b'PF\n5 5\n-1.0\n' + bytes(300), "^'x' is an image of floating-point pixels"),
        (several('GIF'), ANIMATION),
        (several('PNG'), ANIMATION),
        (several('WEBP'), ANIMATION),
        (several('AVIF'), ANIMATION),
        (several('TIFF'), "^'x' is a TIFF file of 3 pages"),
        (b'II*\0\x10\0\0\0CR\2\0' + bytes(50), "^'x' is a camera's raw file, in which only a preview can be read"),
        (b'FUJIFILMCCD-RAW 0201' + bytes(50), "^'x' is a camera's raw file"),
        (b'\0\0\0\x18ftypcrx \0\0\0\1crx isom' + bytes(50), "^'x' is a camera's raw file"),
        (png(size=(60000, 60000)), "^image 'x' claims to have 60000 x 60000 pixels, at most 1073741824 are read; cut"),
        (png(size=(20000, 20000)), CUT + "|^cannot decode image 'x'"),
        (JPEG.replace(b'\0\x1f\0\x2d', b'\xff\xff\xff\xff'), "^image 'x' claims to have 65535 x 65535 pixels"),
        (ppm(255).replace(b'45 31', b'99999 99999'), "^image 'x' claims to have 99999 x 99999 pixels"),
        (png(size=(0, 5), rows=b''), "^cannot decode image 'x'"),
    ],
)
def test_the_sentence(content, message):
    with pytest.raises(DataError, match=message):
        decode_photo(content, 'x')


@pytest.mark.parametrize('file_format', ['PNG', 'JPEG', 'TIFF', 'WEBP'])
def test_as_many_pixels_as_are_wanted(file_format):
    content, count = saved(RGB, file_format), RGB.shape[0] * RGB.shape[1]
    assert complete_photo(content, 'x', count).pixels.shape == RGB.shape
    with pytest.raises(DataError, match=rf"^image 'x' claims to have \d+ x \d+ pixels, at most {count - 1} are read"):
        complete_photo(content, 'x', count - 1)


def test_the_suffix_tells_a_raw_file():
    for name in ('a/b.NEF', 'b.dng', 'c.arw'):
        with pytest.raises(DataError, match='raw file, in which only a preview can be read here; develop it to a TIFF'):
            decode_photo(saved(RGB, 'TIFF'), name)


def test_a_wrong_suffix_does_not_matter():
    np.testing.assert_array_equal(decode_image(PNG, 'x.jpg'), RGB)


def test_a_photograph_with_a_preview_behind_it():
    content = several('MPO', 2)
    found = complete_photo(content, 'x')
    np.testing.assert_array_equal(found.pixels, np.asarray(Image.open(io.BytesIO(content))))
    assert found.notes == ('the smaller or other images behind the first are left out',)
    with pytest.raises(DataError, match=CUT):
        decode_photo(content[:200], 'x')


def test_a_folder_called_like_an_image_is_a_folder(tmp_path):
    (tmp_path / 'x.png').mkdir()
    (tmp_path / 'x.png' / 'y.avif').write_bytes(saved(RGB, 'AVIF'))
    assert Folder(str(tmp_path)).keys == ['x.png/y']


# ---- formats of further packages


def test_heic():
    heif = pytest.importorskip('pillow_heif', reason='the extra [heif] is not installed')
    for bits, source in ((8, RGB), (10, DEEP)):
        image = heif.from_bytes('RGB' if bits == 8 else 'RGB;16', RGB.shape[1::-1], source.tobytes())
        stream = io.BytesIO()
        image.save(stream, quality=-1, chroma=444)
        found = decode_photo(stream.getvalue(), 'x').pixels
        assert found.dtype == source.dtype
        assert np.abs(found.astype(float) - source).max() <= 4 * np.iinfo(source.dtype).max / 255


@pytest.mark.parametrize('image', [RGB, GREY, RGBA, DEEP, DEEP[..., 0]], ids=['RGB', 'L', 'RGBA', 'RGB 16', 'L 16'])
def test_jpeg_xl(image):
    pytest.importorskip('pillow_jxl', reason='the extra [jxl] is not installed')
    found = decode_photo(imagecodecs.jpegxl_encode(image, lossless=True), 'x')
    np.testing.assert_array_equal(found.pixels, image[..., :3] if image.ndim == 3 else image)
    if image is RGBA:
        np.testing.assert_array_equal(found.alpha, ALPHA)


def test_exif_data_do_not_turn_a_jpeg_xl():
    pytest.importorskip('pillow_jxl', reason='the extra [jxl] is not installed')
    exif = Image.Exif()
    exif[0x112], exif[0x10F] = 6, 'Maker'
    found = complete_photo(saved(RGB, 'JXL', lossless=True, exif=exif.tobytes()), 'x')
    np.testing.assert_array_equal(found.pixels, RGB)
    again = Image.Exif()
    again.load(found.exif)
    assert dict(again) == {0x112: 1, 0x10F: 'Maker'}


@pytest.mark.parametrize(
    ('module', 'extra', 'start'), [('pillow_heif', 'heif', b'\0\0\0\x18ftypheic'), ('pillow_jxl', 'jxl', b'\xff\x0a')]
)
def test_the_package_that_is_missing_is_named(monkeypatch, module, extra, start):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError) as caught:
        decode_photo(start + bytes(50), 'x')
    assert str(caught.value) == f"'x' is read with the package {module}: pip install 'lorair[{extra}]'"
