"""Comparison sheets: every image and every word has its place."""

from __future__ import annotations

import numpy as np
import pytest

from lorair_arch.data.sheets import Row, comparison_sheet

COLOURS = [(200, 30, 30), (30, 160, 60), (40, 60, 200), (190, 160, 20)]


def flat(colour, height=40, width=60):
    return np.full((height, width, 3), colour, np.uint8)


def boxes(sheet, colour):
    """Bounds (top, bottom, left, right) of the pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(-1))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_images_form_an_even_grid():
    rows = [
        Row('noise', [flat(COLOURS[0]), flat(COLOURS[1])], ['10 dB', '20 dB']),
        Row('rain', [flat(COLOURS[2], 90), flat(COLOURS[3], 90)], ['11 dB', '21 dB']),
    ]
    sheet = comparison_sheet('Title', 'Subtitle', ['input', 'restored'], rows, cell=120)
    a, b, c, d = (boxes(sheet, colour) for colour in COLOURS)
    for (top, bottom, left, right), height in zip((a, b, c, d), (80, 80, 180, 180)):
        assert (bottom - top, right - left) == (height, 120)
    assert a[:2] == b[:2]
    assert c[:2] == d[:2]
    assert a[2:] == c[2:]
    assert b[2:] == d[2:]
    assert b[2] - a[3] == d[2] - c[3] > 0
    assert a[1] < c[0]
    pixels = np.asarray(sheet)
    border = [pixels[:10], pixels[-10:], pixels[:, :10], pixels[:, -10:]]
    assert all((part == 255).all() for part in border)


def test_captions_stand_below_their_own_images():
    def caption_rows(first, second):
        row = Row('', [flat(COLOURS[0], first), flat(COLOURS[1], second)], ['', '20 dB'])
        sheet = np.asarray(comparison_sheet('', '', ['', ''], [row], cell=60))
        left = boxes(sheet, COLOURS[1])[2]
        ink = np.flatnonzero((sheet[:, left:] < 255).any(-1).any(-1))
        return boxes(sheet, COLOURS[1])[1], ink.max()

    bottom, lowest = caption_rows(90, 40)
    assert 0 < lowest - bottom < 10
    assert caption_rows(40, 40) == (bottom, lowest)


def test_image_at_its_own_width_is_not_resampled():
    image = np.random.default_rng(0).integers(0, 200, (50, 70, 3), np.uint8)
    pixels = np.asarray(comparison_sheet('', '', ['input'], [Row('noise', [image], [''])], cell=70))
    patches = np.lib.stride_tricks.sliding_window_view(pixels, image.shape)[:, :, 0]
    assert (patches == image).all((2, 3, 4)).sum() == 1


@pytest.mark.parametrize('place', ['title', 'subtitle', 'column', 'label', 'caption'])
def test_every_text_is_drawn(place):
    words = {'title': '', 'subtitle': '', 'column': '', 'label': ' ', 'caption': ''}

    def ink(words):
        row = Row(words['label'], [flat((255, 255, 255))], [words['caption']])
        sheet = comparison_sheet(words['title'], words['subtitle'], [words['column']], [row])
        return (np.asarray(sheet) < 255).any(-1).sum()

    assert ink(words) == 0
    assert ink({**words, place: 'Übergröße 12.34 dB'}) > 100


def test_refuses_uneven_rows():
    with pytest.raises(ValueError, match="row 'noise' has 1 images and 1 captions, but there are 2 columns"):
        comparison_sheet('', '', ['input', 'restored'], [Row('noise', [flat(COLOURS[0])], [''])])
    with pytest.raises(ValueError, match='at least one row'):
        comparison_sheet('', '', ['input'], [])
