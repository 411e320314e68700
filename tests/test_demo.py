"""`lorair demo`, as its visitors meet it in a browser, and as whoever starts it does; the page of --report too."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorair_arch import Restorer, cli
from lorair_arch.data.images.reading import decode_photo, read_photo
from lorair_arch.errors import DataError
from lorair_arch.restoring import demo
from lorair_arch.restoring.demo import restore_upload
from lorair_arch.restoring.examples import write_examples
from lorair_arch.restoring.marks import is_marked
from tests import tiny
from tests.browser import Visitor, browser  # noqa: F401  a fixture
from tests.miniature import REPO
from tests.odd_images import png, saved
from tests.photos import photo, write

# The queue is shorter than the real one, so that it can be filled.
WAITING = 10
SERVER = f"""
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests in the background have inherited as ignored
from lorair_arch.restoring import demo
demo.WAITING = {WAITING}
from lorair_arch.cli import lorair
sys.exit(lorair(sys.argv[1:]))
"""


def python_with_gradio() -> str:
    """Gradio has an environment of its own beside the pinned one, see scripts/setup_env.sh."""
    apart = REPO / '.venv/demo/bin/python'
    if find_spec('gradio'):
        return sys.executable
    if apart.exists():
        return str(apart)
    pytest.skip("needs Gradio (pip install 'lorair[demo]')")


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    import torch

    torch.manual_seed(0)
    return tiny.save_weights(tmp_path_factory.mktemp('weights'))


@pytest.fixture(scope='module')
def server(weights, tmp_path_factory):
    """The address of a demo; at the end Ctrl-C leaves nothing behind."""
    folder = tmp_path_factory.mktemp('files')
    env = os.environ | {'PYTHONPATH': str(REPO), 'TMPDIR': str(folder)}
    command = [python_with_gradio(), '-c', SERVER, 'demo', '--weights', weights, '--device', 'cpu', '--port', '0']
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    try:
        first = process.stderr.readline()
        assert (address := re.fullmatch(r'(http://127\.0\.0\.1:\d+) \(Ctrl-C ends it\)\n', first)), first
        yield address[1]
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
        assert (process.returncode, rest) == (130, 'interrupted\n')  # no traceback of any visitor's
        assert not list(folder.iterdir())
    finally:
        process.kill()


@pytest.fixture
def visit(server, browser):  # noqa: F811
    """Opens the page for one more visitor."""
    visitors = []

    def visit(width: int = 1280) -> Visitor:
        visitors.append(visitor := Visitor(browser, width))
        visitor.page.goto(server)
        visitor.page.get_by_text('Drop a photograph').wait_for()
        return visitor

    yield visit
    for visitor in visitors:
        visitor.page.close()


def drop(visitor: Visitor, path: Path) -> str:
    """Uploads a file, and gives what the page says of it."""
    visitor.page.locator('input[type=file]').set_input_files(path)
    message = visitor.page.locator('#message p')
    message.wait_for()
    return message.inner_text()


def download(visitor: Visitor, tmp_path: Path) -> Path:
    with visitor.page.expect_download() as event:
        visitor.page.get_by_text('Download the result').click()
    path = tmp_path / event.value.suggested_filename
    event.value.save_as(path)
    return path


def again(visitor: Visitor) -> None:
    """Waits for a result that is under way after a change."""
    with visitor.page.expect_response(re.compile('/file=.*after.webp')):
        visitor.page.get_by_role('button', name='Restore', exact=True).click()


def same(path: Path, expected: np.ndarray) -> bool:
    return np.abs(np.asarray(Image.open(path)).astype(int) - expected).max() <= 1


def test_before_and_after_and_the_result(visit, weights, tmp_path):
    given = write(tmp_path / 'my photo.png', photo(0, 60, 90))
    visitor = visit()
    assert re.fullmatch(r'90 × 60 pixels; restored in \d+\.\d s', drop(visitor, given))
    restorer = Restorer.from_pretrained(weights, 'cpu')
    expected = restorer(photo(0, 60, 90))
    for name, image in (('before.webp', photo(0, 60, 90)), ('after.webp', expected)):
        Image.fromarray(image).save(tmp_path / name, quality=92, method=2)
        picture = decode_photo(shown(visitor, name), name).pixels
        assert np.abs(picture - read_photo(tmp_path / name).pixels.astype(int)).mean() < 2
    result = download(visitor, tmp_path)
    assert result.name == 'my photo_restored.png'
    assert is_marked(result)
    assert same(result, expected)
    bars = visitor.page.locator('#result').inner_text()
    name, most = max(restorer.degradations(photo(0, 60, 90)).items(), key=lambda item: item[1])
    assert re.search(rf'{name}\s*{most:.0%}', bars)
    assert all(name in bars for name in tiny.NAMES)
    visitor.check()


def shown(visitor: Visitor, name: str) -> bytes:
    return visitor.page.request.get(visitor.page.locator(f'img[src*="{name}"]').first.get_attribute('src')).body()


def test_the_slider_moves(visit, tmp_path):
    visitor = visit()
    drop(visitor, write(tmp_path / 'in.png', photo(0, 60, 90)))
    place = "document.querySelector('#result .inner').getBoundingClientRect().x"
    visitor.page.wait_for_function(f"{place} > document.querySelector('#result').getBoundingClientRect().x + 200")
    start = visitor.page.locator('#result .inner').bounding_box()
    middle = start['x'] + start['width'] / 2, start['y'] + start['height'] / 2
    visitor.page.mouse.move(*middle)
    visitor.page.mouse.down()
    visitor.page.mouse.move(middle[0] + 100, middle[1], steps=5)
    visitor.page.mouse.up()
    visitor.page.wait_for_function(f'{place} > {start["x"] + 50}')
    visitor.check()


def test_experts_and_strength_by_hand(visit, weights, tmp_path):
    restorer, image = Restorer.from_pretrained(weights, 'cpu'), photo(0, 60, 90)
    visitor = visit()
    drop(visitor, write(tmp_path / 'in.png', image))
    for name in tiny.NAMES:
        visitor.page.get_by_label('Experts').click()
        visitor.page.get_by_role('option', name=name).click()
        # of itself; the result before may still be on its way
        expected, until = restorer(image, name), time.monotonic() + 60
        while not same(download(visitor, tmp_path), expected) and time.monotonic() < until:
            visitor.page.wait_for_timeout(100)
        assert same(download(visitor, tmp_path), expected)
    visitor.page.get_by_label('number input for Strength').fill('0.5')
    again(visitor)
    assert same(download(visitor, tmp_path), restorer(image, tiny.NAMES[-1], 0.5))
    visitor.check()


def test_an_example(visit, tmp_path):
    visitor = visit()
    visitor.page.locator('.gallery-item').first.click()
    assert visitor.page.locator('#message p').inner_text().startswith('640 × 427 pixels')
    assert download(visitor, tmp_path).name == 'haze_restored.png'
    visitor.check()


def test_files_that_cannot_be_restored_are_named(visit, tmp_path):
    visitor = visit()
    drop(visitor, write(tmp_path / 'in.png', photo()))
    for name, content, says in (
        ('notes.txt', b'words', "cannot decode image 'notes.txt': it is damaged or not an image; copy it again or"),
        ('cut.jpg', saved(photo(), 'JPEG')[:-300], "image 'cut.jpg' is cut short; copy it again or remove it"),
        ('empty.png', b'', "image 'empty.png' is empty; copy it again or remove it"),
        ('camera.nef', b'II*\0', "'camera.nef' is a camera's raw file"),
        ('large.png', png(size=(5001, 5000)), "image 'large.png' claims to have 5001 x 5000 pixels, at most 25000000"),
    ):
        visitor.page.get_by_label('Clear').click()
        visitor.page.locator('#message').wait_for(state='hidden')
        (tmp_path / name).write_bytes(content)
        assert drop(visitor, tmp_path / name).startswith(says)
        assert not visitor.page.locator('img[src*="after.webp"]').count()  # nothing of the one before
        assert visitor.page.get_by_role('button', name='Download the result').is_disabled()
    visitor.check()


def test_a_file_that_is_too_large_is_not_even_sent(visit, tmp_path):
    with (tmp_path / 'large.png').open('wb') as file:
        file.truncate(demo.MOST_MEGABYTES * 2**20 + 1)
    visitor = visit()
    visitor.page.locator('input[type=file]').set_input_files(tmp_path / 'large.png')
    visitor.page.get_by_text('exceed the maximum allowed size of 50').wait_for()


def test_ten_visitors_at_once(visit, weights, tmp_path):
    restorer = Restorer.from_pretrained(weights, 'cpu')
    visitors = [visit() for _ in range(10)]
    for i, visitor in enumerate(visitors):
        path = write(tmp_path / f'{i}.png', photo(i, 60, 90))
        visitor.page.locator('input[type=file]').set_input_files(path)
    for i, visitor in enumerate(visitors):
        visitor.page.locator('#message p').wait_for()
        assert same(download(visitor, tmp_path), restorer(photo(i, 60, 90)))
        visitor.check()


def test_a_full_queue_says_so(visit, tmp_path):
    from playwright.sync_api import TimeoutError  # only where there is a browser

    visitor = visit()
    drop(visitor, write(tmp_path / 'in.png', photo(0, 300, 450)))
    with visitor.page.expect_request(re.compile('/queue/join')) as event:
        again(visitor)
    # The same for many who do not wait for each other, and in the same moment as they the visitor once more.
    many = """async ([url, body, round]) => {
      const join = i => fetch(url, {method: 'POST', headers: {'Content-Type': 'application/json'},
        body: JSON.stringify({...JSON.parse(body), session_hash: 'other' + round + '-' + i})});
      const answers = (await Promise.all([...Array(20).keys()].map(join))).map(answer => answer.status);
      [...document.querySelectorAll('button')].find(button => button.textContent.trim() === 'Restore').click();
      return answers;
    }"""
    busy = visitor.page.get_by_text('currently busy. Please try again').first
    for number in range(10):  # a quick machine may have room again at once
        answers = visitor.page.evaluate(many, [event.value.url, event.value.post_data, number])
        with contextlib.suppress(TimeoutError):
            busy.wait_for(timeout=3000)
            break
    assert busy.is_visible()
    assert answers.count(200) >= WAITING


def test_a_phone(visit, tmp_path):
    visitor = visit(375)
    visitor.check()
    drop(visitor, write(tmp_path / 'in.png', photo(0, 300, 450)))
    # what is below all the rest is scrolled into view
    visitor.page.wait_for_function("Math.abs(document.querySelector('#result').getBoundingClientRect().top - 40) < 60")
    visitor.check()


@pytest.mark.parametrize('width', [1280, 375])
def test_the_report_of_a_folder(browser, weights, tmp_path, width):  # noqa: F811
    for i in range(3):
        write(tmp_path / f'photos/{i}{"-long" * 20}.png', photo(i, 60, 90))
    page = tmp_path / 'report.html'
    command = ['restore', tmp_path / 'photos', '-o', tmp_path / 'out', '--weights', weights, '--report', page]
    assert cli.lorair([*map(str, command), '--device=cpu']) == 0
    visitor = Visitor(browser, width)
    visitor.page.goto(page.as_uri())
    assert visitor.page.evaluate('[...document.images].every(image => image.complete && image.naturalWidth)')
    pair = visitor.page.locator('.pair').nth(1)
    pair.scroll_into_view_if_needed()
    box = pair.bounding_box()
    visitor.page.mouse.move(box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)
    visitor.page.mouse.down()
    visitor.page.mouse.move(box['x'] + box['width'] / 4, box['y'] + box['height'] / 2, steps=5)
    visitor.page.mouse.up()
    assert abs(float(pair.evaluate("one => parseFloat(one.style.getPropertyValue('--x'))")) - 25) < 2
    visitor.check()
    visitor.page.close()


def test_results_are_those_of_the_command(weights, tmp_path):
    """16 bits, transparency, what had to be changed."""
    given = np.random.default_rng(0).integers(0, 2**16, (40, 30, 4), np.uint16)
    path = write(tmp_path / 'deep.png', given[..., :3])
    restorer = Restorer.from_pretrained(weights, 'cpu')
    for image, name in ((path.read_bytes(), 'deep.png'), (inks(), 'inks.jpg')):
        (tmp_path / name).write_bytes(image)
        shown = restore_upload(restorer, str(tmp_path / name), 'rain', 0.7, tmp_path)
        command = ['restore', tmp_path / name, '-o', tmp_path / f'out-{name}.png', '--weights', weights]
        assert cli.lorair([*map(str, command), '--device=cpu', '--degradation=rain', '--strength=0.7']) == 0
        assert Path(shown.result).read_bytes() == (tmp_path / f'out-{name}.png').read_bytes()
        assert shown.facts[2:] == read_notes(tmp_path / name)
    assert shown.facts[2].startswith('its CMYK colours became sRGB')


def inks() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(photo()).convert('CMYK').save(stream, 'JPEG')
    return stream.getvalue()


def read_notes(path: Path) -> list[str]:
    return list(read_photo(path).notes)


def test_files_that_were_deleted_or_are_too_large(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="^'gone.png' is not here any more: drop it again$"):
        restore_upload(None, str(tmp_path / 'gone.png'), 'auto', 1, tmp_path)
    monkeypatch.setattr(demo, 'MOST_MEGABYTES', 1)
    (tmp_path / 'a.png').write_bytes(bytes(1_300_000))
    with pytest.raises(DataError, match=r"^'a.png' has 1.2 MB, at most 1 are taken$"):
        restore_upload(None, str(tmp_path / 'a.png'), 'auto', 1, tmp_path)


def test_examples_are_those_that_the_weights_are_for(tmp_path):
    some = write_examples(tmp_path / 'some', ['noise', 'snow', 'haze'])
    assert [path.name for path in some] == ['haze.png', 'noise.png']
    every = write_examples(tmp_path / 'all', ['moire'])
    assert len(every) == 6
    assert all(max(Image.open(path).size) <= 800 for path in every)


def start(*more):
    return cli.lorair(['demo', *more])


def test_mistakes_of_whoever_starts_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    assert start() == 2
    expected = "error: lorair demo needs Gradio, which is not installed: pip install 'lorair[demo]'\n"
    assert capsys.readouterr().err == expected
    monkeypatch.setitem(sys.modules, 'gradio', sys)  # found, but never asked
    for arguments, says in {
        ('--port', '99999'): '--port: found 99999, expected 0 to 65535',
        ('--host', 'no.such.address.invalid'): '--host, --port: cannot listen on no.such.address.invalid, port 7860 (',
    }.items():
        assert start(*arguments) == 2
        assert capsys.readouterr().err.startswith(f'error: {says}')
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        assert start('--port', str(port)) == 2
    says = f'cannot listen on 127.0.0.1, port {port} (Address already in use); choose others\n'
    assert capsys.readouterr().err == f'error: --host, --port: {says}'
