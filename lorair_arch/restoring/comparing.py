"""Pictures for people to compare: before and after side by side, and small versions of both for a page."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageFont

from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.writing import encode_png, in_8_bits
from lorair_arch.restoring.marks import mark

_SIDE = 2048  # pixels of each half of a comparison, at most
_THUMBNAIL_SIDE = 640
_THUMBNAIL_BYTES = 40_000  # a page of 200 photographs, two thumbnails each, in base64: 21 MB


def compare(before: Photo, after: Photo) -> bytes:
    """Gives a PNG with the original on the left and the result on the right, each with a label above it."""
    halves = [reduced(photo, _SIDE) for photo in (before, after)]
    width, height = halves[0].size
    margin = max(16, min(40, height // 20))
    sheet = Image.new('RGB', (2 * width + margin // 4, height + margin), 'white')
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(0.7 * margin)
    for half, x, label in zip(halves, (0, width + margin // 4), ('original', 'restored')):
        draw.text((x + margin // 4, margin / 2), label, 'black', font, 'lm')
        sheet.paste(half, (x, margin))  # over the end of a label that is wider than its image
    return mark(encode_png(np.asarray(sheet)), '.png', comparison=True)


def thumbnail(photo: Photo) -> bytes:
    """Gives a small WebP of bounded size."""
    side = _THUMBNAIL_SIDE
    while True:
        image = reduced(photo, side)
        for quality in (82, 65, 45):
            stream = io.BytesIO()
            image.save(stream, 'WEBP', quality=quality, method=2)
            if stream.tell() <= _THUMBNAIL_BYTES:
                return stream.getvalue()
        side = side * 3 // 4  # of noise alone


def reduced(photo: Photo, side: int) -> Image.Image:
    """Gives an image as RGB of 8 bits in sRGB, transparent parts white, no longer than `side` pixels."""
    parts = [part for part in (photo.pixels, photo.alpha) if part is not None]
    # Every n-th pixel first where an image has far more of them than will be seen: filters take time and memory.
    step = max(1, max(photo.pixels.shape[:2]) // (4 * side))
    parts = [part[::step, ::step] for part in parts]
    parts = [in_8_bits(part) if part.dtype == np.uint16 else np.ascontiguousarray(part) for part in parts]
    image = Image.fromarray(parts[0])
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    if photo.icc:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):  # a profile without what a conversion needs
            profile = ImageCms.ImageCmsProfile(io.BytesIO(photo.icc))
            image = ImageCms.profileToProfile(image, profile, ImageCms.createProfile('sRGB'), outputMode='RGB')
    image = image.convert('RGB')
    if len(parts) > 1:
        alpha = Image.fromarray(parts[1]).resize(image.size, Image.Resampling.BOX)
        image = Image.composite(image, Image.new('RGB', image.size, 'white'), alpha)
    return image
