"""The page of `lorair restore --report`: what is on it, that it needs nothing else, and which files it replaces."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from lorair_arch import cli
from lorair_arch.data.images.photo import Photo
from lorair_arch.restoring import comparing
from lorair_arch.restoring.comparing import thumbnail
from lorair_arch.restoring.plan import Job
from lorair_arch.restoring.report import card
from lorair_arch.restoring.run import Outcome
from tests.photos import photo

EVIL = '<script>alert(1)<\\script> & "x" \'y\'.png'


@pytest.fixture
def here(tmp_path, monkeypatch, inverting):
    monkeypatch.chdir(tmp_path)
    Path('photos/sub').mkdir(parents=True)
    Image.fromarray(photo(0, 40, 60)).save('photos/a.png')
    Image.fromarray(photo(1, 40, 60)).save('photos/sub/b.jpg')
    Image.fromarray(photo(2, 40, 60)).save(Path('photos', EVIL))
    return tmp_path


class Page(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.images = [], '', []
        self.feed(Path(path).read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == 'img':
            head, _, content = dict(attributes)['src'].partition(',')
            assert head == 'data:image/webp;base64'
            self.images.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))))

    def handle_data(self, data):
        self.text += data

    def named(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def restore(*more):
    return cli.lorair(
        ['restore', 'photos', '-o', 'out', '--weights', 'some', 'weights', '--report', 'page.html', *more]
    )


def test_before_and_after_of_each_image(here):
    Path('photos/bad<i>.png').write_bytes(b'x')
    assert restore('--degradation=rain=.5,noise=1') == 1
    page = Page('page.html')
    assert len(page.named('article')) == 3 and len(page.images) == 6
    for before, after in zip(page.images[::2], page.images[1::2]):
        assert np.abs(255 - before.astype(int) - after).mean() < 6
    sliders = page.named('input')
    assert [slider['type'] for slider in sliders] == ['range'] * 3
    assert sliders[0]['aria-label'] == f'original or restored: {EVIL}'
    for text in (
        *('4 images', EVIL, 'sub/b.jpg', '60 × 40', 'some, weights', 'rain 0.5, noise 1', 'images/s', 'cpu, fp32'),
        *('75 %', '25 %', "cannot decode image 'photos/bad<i>.png': it is damaged or not an image"),
    ):
        assert text in page.text, text
    assert len(page.named('script')) == 1 and len(page.named('i')) == 6  # the bars; names are no tags


def test_a_page_asks_for_nothing_else(here):
    assert restore() == 0
    text = Path('page.html').read_text()
    assert not re.search(r'https?:|url\(|@import|<link|<iframe|<object', text)
    assert "default-src 'none'" in text
    assert all(image['src'].startswith('data:') for image in Page('page.html').named('img'))


def test_images_of_earlier_runs_are_on_the_page(here, inverting):
    assert cli.lorair(['restore', 'photos/sub', '-o', 'out/sub', '--weights', 'w']) == 0
    for earlier in (1, 3):
        assert restore() == 0
        page = Page('page.html')
        assert len(page.images) == 6
        assert page.text.count('restored in an earlier run') == earlier + 1  # and in the summary
    assert len(inverting) == 3
    Path('out/a.png').write_bytes(b'damaged')
    assert restore() == 0
    page = Page('page.html')
    assert len(page.images) == 4
    assert "its result is not compared: cannot decode image 'out/a.png'" in page.text


def test_an_own_page_is_replaced_and_another_file_not(here, capsys):
    assert restore() == restore() == 0
    Path('page.html').write_text('<!DOCTYPE html>\nmine')
    assert restore() == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: output 'page.html' exists already")
    assert Path('page.html').read_text() == '<!DOCTYPE html>\nmine'
    assert restore('--overwrite') == 0
    assert len(Page('page.html').images) == 6
    assert restore('--log', 'page.html') == 2
    assert sorted(path.name for path in here.iterdir()) == ['out', 'page.html', 'photos']


def test_thumbnails_are_bounded(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (900, 1400, 3), np.uint8)
    small = thumbnail(Photo(noise))
    assert len(small) <= comparing._THUMBNAIL_BYTES
    assert 200 * (2 * len(small) * 4 / 3 + 3000) < 25e6
    size = Image.open(io.BytesIO(small)).size
    assert size[0] >= 200 and abs(size[0] / size[1] - 1400 / 900) < 0.02
    assert Image.open(io.BytesIO(thumbnail(Photo(noise[:1, :1])))).size == (1, 1)
    assert Image.open(io.BytesIO(thumbnail(Photo(np.zeros((10, 60_000), np.uint8))))).size == (640, 1)


@pytest.mark.parametrize('grey', [False, True])
@pytest.mark.parametrize('deep', [False, True])
def test_thumbnails_show_what_viewers_show(grey, deep):
    pixels = np.full((20, 30, 3), 100, np.uint8)
    alpha = np.full((20, 30), 255, np.uint8)
    alpha[:, 15:] = 0
    pixels = pixels[..., 0] if grey else pixels
    if deep:
        pixels, alpha = pixels.astype(np.uint16) * 257, alpha.astype(np.uint16) * 257
    icc = None if grey else ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    found = np.asarray(Image.open(io.BytesIO(thumbnail(Photo(pixels, alpha, icc)))).convert('RGB')).astype(int)
    assert np.abs(found[:, :10] - 100).max() <= 3 and np.abs(found[:, 20:] - 255).max() <= 3


def test_the_page_of_200_photographs_is_small():
    pictures = (bytes(comparing._THUMBNAIL_BYTES),) * 2
    job = Job(Path('x'), Path('y'), 'a' * 200)
    degradations = {f'degradation {i}': 0.1 for i in range(10)}
    entry = card(Outcome(job, size=(800, 600), seconds=1, degradations=degradations, pictures=pictures))
    assert 200 * len(entry) < 25e6
    assert entry.count('<li>') == 6
