"""Decoding of images."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from lorair_arch.data.images.reading import decode_image, read_bytes, to_float
from lorair_arch.errors import DataError
from tests.photos import photo

PHOTO = photo(0, 31, 45)


def encoded(mode, file_format, **options):
    stream = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(stream, file_format, **options)
    return stream.getvalue()


@pytest.mark.parametrize('file_format', ['PNG', 'BMP', 'TIFF', 'PPM'])
def test_lossless_formats_are_exact(file_format):
    assert np.array_equal(decode_image(encoded('RGB', file_format), 'x'), PHOTO)


@pytest.mark.parametrize('file_format', ['JPEG', 'WEBP'])
def test_lossy_formats(file_format):
    assert decode_image(encoded('RGB', file_format, quality=95), 'x') == pytest.approx(PHOTO.astype(float), abs=40)


def test_grey_becomes_rgb():
    grey = np.asarray(Image.fromarray(PHOTO).convert('L'))
    image = decode_image(encoded('L', 'PNG'), 'x')
    assert np.array_equal(image, np.repeat(grey[..., None], 3, 2))


def test_alpha_is_dropped():
    stream = io.BytesIO()
    alpha = np.full((*PHOTO.shape[:2], 1), 90, np.uint8)
    Image.fromarray(np.concatenate([PHOTO, alpha], 2)).save(stream, 'PNG')
    assert np.array_equal(decode_image(stream.getvalue(), 'x'), PHOTO)


@pytest.mark.parametrize(('mode', 'file_format'), [('P', 'PNG'), ('1', 'PNG'), ('LA', 'PNG'), ('CMYK', 'JPEG')])
def test_other_colour_types(mode, file_format):
    image = decode_image(encoded(mode, file_format), 'x')
    assert image.shape == PHOTO.shape and image.dtype == np.uint8


def test_16_bits_are_kept_and_scaled():
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    image = decode_image(cv2.imencode('.png', deep[..., ::-1])[1].tobytes(), 'x')
    assert np.array_equal(image, deep)
    assert to_float(image) == pytest.approx(deep / 65535, abs=1e-6)
    assert to_float(np.full((1, 1, 3), 65535, np.uint16)).max() == 1


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
@pytest.mark.parametrize('file_format', ['JPEG', 'PNG'])
def test_exif_rotation_is_ignored(orientation, file_format):
    exif = Image.Exif()
    exif[0x112] = orientation
    image = decode_image(encoded('RGB', file_format, exif=exif), 'x')
    assert image.shape == PHOTO.shape
    assert np.array_equal(image, decode_image(encoded('RGB', file_format), 'x'))


@pytest.mark.parametrize('share', [0.2, 0.6, 0.9, 0.999])
@pytest.mark.parametrize('file_format', ['PNG', 'JPEG'])
def test_cut_short(file_format, share):
    content = encoded('RGB', file_format)
    with pytest.raises(DataError, match=r"^image 'a/b.png' is cut short; copy it again or remove it$"):
        decode_image(content[: int(len(content) * share)], 'a/b.png')


def test_a_thumbnail_does_not_hide_that_a_jpeg_is_cut_short():
    thumbnail = encoded('RGB', 'JPEG')
    content = encoded('RGB', 'JPEG')
    segment = b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail
    content = content[:2] + segment + content[2:]
    decode_image(content, 'x')
    with pytest.raises(DataError, match='is cut short'):
        decode_image(content[:-30], 'x')


def test_bytes_behind_the_end_do_no_harm():
    for file_format in ('PNG', 'JPEG'):
        decode_image(encoded('RGB', file_format) + b'\0' * 100, 'x')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', "^image 'x' is empty; copy it again or remove it$"),
        (b'hello', "^cannot decode image 'x': it is damaged or not an image; copy it again or remove it$"),
        (b'\x89PNG\r\n\x1a\n' + b'\0' * 50 + b'IEND\xaeB`\x82', "^image 'x' is cut short"),
        (cv2.imencode('.tiff', np.zeros((4, 4, 3), np.float32))[1].tobytes(), "^image 'x' has float32 pixels; convert"),
    ],
)
def test_not_an_image(content, message):
    with pytest.raises(DataError, match=message):
        decode_image(content, 'x')


def test_unreadable_file(tmp_path):
    with pytest.raises(DataError, match=r"^cannot read '.*gone\.png': No such file or directory$"):
        read_bytes(tmp_path / 'gone.png')
    with pytest.raises(DataError, match=r'Is a directory$'):
        read_bytes(tmp_path)
