"""Colour profiles and EXIF data, from every format to every other."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational

from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import complete_photo, read_photo
from lorair_arch.data.images.writing import encode_photo, left_out, write_photo
from lorair_arch.restoring.folders import restore_paths
from tests.photos import photo
from tests.tiny import save_weights

FORMATS = {'.jpg': 'JPEG', '.png': 'PNG', '.tif': 'TIFF', '.webp': 'WEBP'}
RGB = photo(0, 24, 36)
SRGB = ImageCms.createProfile('sRGB')
# Another white point and gamma: no program would take it for sRGB.
PROFILE = ImageCms.ImageCmsProfile(SRGB).tobytes().replace(b'sRGB', b'mine')


def grey_profile():
    """The profile of sRGB, said to be of grey pixels: enough of a profile to tell its colours."""
    return PROFILE[:16] + b'GRAY' + PROFILE[20:]


def exif(orientation=1):
    """EXIF data with something of every kind."""
    data = Image.Exif()
    data[Base.Make], data[Base.Model], data[Base.Orientation] = 'Maker', 'Model X', orientation
    data[Base.XResolution], data[Base.DateTime] = IFDRational(300, 1), '2026:01:02 03:04:05'
    data[Base.Copyright], data[Base.XPTitle] = 'me', 'title'.encode('utf-16-le')
    camera = data.get_ifd(IFD.Exif)
    camera[Base.ExposureTime], camera[Base.ISOSpeedRatings] = IFDRational(1, 250), 800
    camera[Base.LensModel], camera[Base.MakerNote] = '50mm', bytes(range(200))
    camera[Base.LensSpecification] = (IFDRational(24, 1), IFDRational(70, 1), IFDRational(14, 5), IFDRational(4, 1))
    camera[Base.ExifVersion] = b'0232'
    data.get_ifd(IFD.GPSInfo).update({1: 'N', 2: (IFDRational(52, 1), IFDRational(30, 1), IFDRational(1, 2)), 5: b'\0'})
    again = Image.Exif()  # Pillow's writer of TIFF files takes the parts only if they were read
    again.load(data.tobytes())
    return again


def fields(data):
    """Gives all fields of EXIF data, by name of their part."""
    parts = {'camera': dict(data.get_ifd(IFD.Exif)), 'gps': dict(data.get_ifd(IFD.GPSInfo))}
    return parts | {tag: value for tag, value in data.items() if tag not in (IFD.Exif, IFD.GPSInfo)}


def fields_of(path):
    """Gives the fields that Pillow finds in a file, without those that say how a TIFF file is laid out."""
    with Image.open(path) as image:
        found = fields(image.getexif())
    return {tag: value for tag, value in found.items() if tag in fields(exif())}


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp('weights') / 'weights')


@pytest.mark.parametrize('target', FORMATS)
@pytest.mark.parametrize('source', FORMATS)
def test_survive(weights, tmp_path, source, target):
    Image.fromarray(RGB).save(tmp_path / f'in{source}', exif=exif(orientation=6), icc_profile=PROFILE)
    restore_paths(tmp_path / f'in{source}', tmp_path / f'out{target}', weights, device='cpu')
    with Image.open(tmp_path / f'out{target}') as image:
        assert image.format == FORMATS[target]
        assert image.size == (24, 36)  # upright
        assert image.info['icc_profile'] == PROFILE
    expected = fields(exif(orientation=1))
    assert fields_of(tmp_path / f'in{source}') == fields(exif(orientation=6))
    assert fields_of(tmp_path / f'out{target}') == expected


def test_without_them_nothing_is_made_up(weights, tmp_path):
    for source in FORMATS:
        Image.fromarray(RGB).save(tmp_path / f'in{source}')
        for target in FORMATS:
            restore_paths(tmp_path / f'in{source}', tmp_path / f'out{target}', weights, device='cpu')
            with Image.open(tmp_path / f'out{target}') as image:
                assert 'icc_profile' not in image.info
                assert not {Base.Make, Base.Orientation, IFD.Exif} & set(image.getexif())


def with_thumbnail():
    """A JPEG whose EXIF data have a thumbnail, in an IFD of its own."""
    stream = io.BytesIO()
    Image.fromarray(RGB[::4, ::4]).save(stream, 'JPEG')
    thumbnail = stream.getvalue()
    directory = b'\x02\0' + b''.join(
        tag.to_bytes(2, 'little') + b'\x04\0\1\0\0\0' + value.to_bytes(4, 'little')
        for tag, value in ((0x201, 8 + 18 + 30), (0x202, len(thumbnail)))
    )
    first = b'\1\0' + b'\x12\1\3\0\1\0\0\0\3\0\0\0' + (26).to_bytes(4, 'little')  # orientation 3, then the next IFD
    blob = b'Exif\0\0II*\0\x08\0\0\0' + first + directory + b'\0\0\0\0' + thumbnail
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, 'JPEG', exif=blob)
    return stream.getvalue(), thumbnail


def test_the_thumbnail_is_left_out():
    content, thumbnail = with_thumbnail()
    with Image.open(io.BytesIO(content)) as image:
        assert image.getexif().get_ifd(IFD.IFD1)[0x202] == len(thumbnail)
        turned = np.asarray(image)[::-1, ::-1]
    found = complete_photo(content, 'x')
    np.testing.assert_array_equal(found.pixels, turned)
    for suffix in FORMATS:
        encoded = encode_photo(found, suffix)
        assert thumbnail not in encoded
        with Image.open(io.BytesIO(encoded)) as image:
            assert image.getexif()[Base.Orientation] == 1
            assert not image.getexif().get_ifd(IFD.IFD1)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', FORMATS)
def test_sizes_in_exif_data_are_those_of_the_image(tmp_path, suffix, orientation):
    data = exif(orientation)
    data.get_ifd(IFD.Exif).update({Base.ExifImageWidth: 36, Base.ExifImageHeight: 24})
    Image.fromarray(RGB).save(tmp_path / f'in{suffix}', exif=data)
    write_photo(tmp_path / 'out.png', read_photo(tmp_path / f'in{suffix}'))
    with Image.open(tmp_path / 'out.png') as image:
        camera = image.getexif().get_ifd(IFD.Exif)
        assert (camera[Base.ExifImageWidth], camera[Base.ExifImageHeight]) == image.size
        assert image.size == ((24, 36) if orientation > 4 else (36, 24))


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('alpha', [False, True])
@pytest.mark.parametrize('grey', [False, True])
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('described', [False, True])
def test_written_and_read_again(suffix, grey, alpha, bits, described):
    pixels = np.random.default_rng(0).integers(0, 2**bits, (13, 17, 4)).astype(f'u{bits // 8}')
    whole = Photo(pixels[..., 0] if grey else pixels[..., :3], pixels[..., 3] if alpha else None)
    if described:
        whole = whole._replace(icc=grey_profile() if grey else PROFILE, exif=exif().tobytes())
    found = complete_photo(encode_photo(whole, suffix), 'x')
    np.testing.assert_array_equal(found.pixels, whole.pixels)
    np.testing.assert_array_equal(found.alpha, whole.alpha)
    assert found[2:] == whole[2:]
    assert left_out(whole, suffix) == []


@pytest.mark.parametrize('suffix', FORMATS)
def test_parts_of_one_pixel_are_written(suffix):
    for part in (RGB[:1, :1], RGB[:1], RGB[:, 3:4], RGB[:1, :1, 0]):
        found = complete_photo(encode_photo(Photo(part), suffix), 'x').pixels
        assert found.shape[:2] == part.shape[:2]
        if suffix in ('.png', '.tif'):
            np.testing.assert_array_equal(found, part)


def test_what_a_format_cannot_hold_is_said(weights, tmp_path, caplog):
    whole = Photo(RGB.astype(np.uint16) * 257, np.full(RGB.shape[:2], 40000, np.uint16), PROFILE, exif().tobytes())
    assert left_out(whole, '.jpg') == ['its transparency is left out', 'its 16 bits become 8']
    assert left_out(whole, '.webp') == ['its 16 bits become 8']
    assert left_out(whole, '.ppm')[2:] == ['its colour profile is left out', 'its EXIF data are left out']
    grey = Photo(RGB[..., 0], icc=grey_profile())
    assert [left_out(grey, suffix) for suffix in ('.png', '.webp')] == [[], ['its colour profile is left out']]
    long = Photo(RGB, exif=b'Exif\0\0' + bytes(70000))
    assert left_out(long, '.jpg') == ['its EXIF data are left out']
    assert len(encode_photo(long, '.jpg')) < 70000
    write_photo(tmp_path / 'in.png', whole)
    restore_paths(tmp_path / 'in.png', tmp_path / 'out.bmp', weights, device='cpu')
    assert caplog.messages.count(f"'{tmp_path / 'in.png'}': its colour profile is left out") == 1


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tif'])
@pytest.mark.parametrize('grey', [False, True])
def test_a_profile_of_other_colours_is_left_out(tmp_path, suffix, grey):
    image = Image.fromarray(RGB[..., 0] if grey else RGB)
    image.save(tmp_path / f'in{suffix}', icc_profile=PROFILE if grey else grey_profile())
    found = read_photo(tmp_path / f'in{suffix}')
    assert found.icc is None
    assert found.notes == ('its colour profile is damaged or of other colours than its pixels, and left out',)
    image.save(tmp_path / f'in{suffix}', icc_profile=b'nonsense')
    assert read_photo(tmp_path / f'in{suffix}')[2:] == found[2:]


def test_damaged_exif_data_are_left_out(tmp_path):
    Image.fromarray(RGB).save(tmp_path / 'in.png', exif=b'Exif\0\0II*\0\x08\0\0\0' + b'\xff' * 30)
    found = read_photo(tmp_path / 'in.png')
    np.testing.assert_array_equal(found.pixels, RGB)
    assert found.exif is None
