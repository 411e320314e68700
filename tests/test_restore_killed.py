"""A run of `lorair restore` that is killed, stopped or started twice, as real processes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from lorair_arch.restoring.folders import restore_paths
from tests import tiny
from tests.miniature import REPO
from tests.photos import photo
from tests.runs import files, lines

KILLS = int(os.environ.get('LORAIR_KILLS', '3'))  # more of them take some seconds each


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


_DRIVER = """
import sys, zlib
from lorair_arch import cli
from lorair_arch.restoring.restorer import Restorer
def restore(self, image, *args, do=Restorer.restore):
    with open('calls', 'a') as file:
        file.write(f'{zlib.crc32(image.tobytes())}\\n')
    return do(self, image, *args)
Restorer.restore = restore
sys.exit(cli.lorair(sys.argv[1:]))
"""


def start(folder, *more):
    """Starts `lorair restore photos -o out`; each image that is restored is noted in `calls`."""
    command = [sys.executable, '-c', _DRIVER, 'restore', 'photos', '--weights', 'weights', '--device', 'cpu', *more]
    env = os.environ | {'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)


def finished(process):
    with process:
        err = process.communicate(timeout=120)[1]
    assert process.returncode == 0, err
    return err


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """A folder with photographs and weights, and what becomes of them."""
    folder = tmp_path_factory.mktemp('undisturbed')
    tiny.save_weights(folder / 'weights')
    for i in range(30):
        (folder / 'photos' / str(i % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(i, 150, 200)).save(folder / f'photos/{i % 3}/{i}.png')
    restore_paths(folder / 'photos', folder / 'out', folder / 'weights', device='cpu')
    return folder, {name: (folder / 'out' / name).read_bytes() for name in files(folder / 'out')}


@pytest.fixture
def photographs(undisturbed, here):
    """Those, to be restored here; gives what is expected."""
    folder, expected = undisturbed
    for name in ('photos', 'weights'):
        shutil.copytree(folder / name, here / name)
    return expected


def results(root='out'):
    return {name: Path(root, name).read_bytes() for name in files(root) if not name.endswith('.tmp')}


def wait_for(count, process):
    """Waits until so many images are being, or have been, restored."""
    deadline = time.time() + 60
    while len(calls()) < count and process.poll() is None and time.time() < deadline:
        time.sleep(0.001)


def calls():
    return Path('calls').read_text().split() if Path('calls').exists() else []


def test_killed_and_continued(photographs, here):
    rng = random.Random(int(os.environ.get('LORAIR_SEED', '0')))
    seen, restored, again = {}, set(), 0
    for number in range(KILLS + 1):
        before = calls()
        process = start(here, '-o', 'out', '--log', 'log.jsonl')
        if number == KILLS:
            finished(process)
        else:
            # Either while it starts, or at a random moment after a random number of images.
            wanted = rng.randint(0, max(1, 30 // KILLS))
            wait_for(len(before) + wanted, process)
            time.sleep(rng.uniform(0, 0.1 if wanted else 3))
            process.kill()
            process.communicate()
        now = calls()[len(before) :]
        twice = restored.intersection(now)
        assert len(twice) <= 2 and len(set(now)) == len(now)  # the one being restored and the one being written
        again += len(twice)
        restored.update(now)
        assert results().items() <= photographs.items()
        for name in results():
            status = Path('out', name).stat()
            assert seen.setdefault(name, (status.st_ino, status.st_mtime_ns)) == (status.st_ino, status.st_mtime_ns)
    assert results() == photographs
    done = [line['output'] for line in lines() if line['status'] == 'restored']
    assert len(done) == len(set(done))
    assert len(calls()) == 30 + again
    sys.stderr.write(f'{KILLS} kills: {again} images were being restored or written, and restored again\n')


def test_two_processes_lose_nothing(photographs, here):
    for process in [start(here, '-o', 'out', '--log', 'log.jsonl') for _ in range(2)]:
        finished(process)
    assert results() == photographs
    found = lines()
    assert len(found) == 60 and all(line['status'] in ('restored', 'skipped') for line in found)
    assert len({line['output'] for line in found if line['status'] == 'restored'}) == 30


def test_stopped_and_continued(photographs, here):
    process = start(here, '-o', 'out', '--report', 'page.html')
    wait_for(3, process)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130, err
    done = len(results())
    message = f'interrupted: {done} of 30 images are restored, the same command goes on from there'
    assert err.splitlines()[-1] == message
    assert len(files('out')) == done < 30
    assert results().items() <= photographs.items()
    assert Path('page.html').read_text().count('<article>') == done
    restore_paths('photos', 'out', 'weights', device='cpu', report='page.html')
    assert results() == photographs
    assert Path('page.html').read_text().count('<article>') == 30
