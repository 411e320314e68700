"""`lorair data prepare` as it runs: killed and continued, and what is stored of which file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from PIL import Image

from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.data.prepare import prepare as module
from lorair_arch.data.prepare.prepare import prepare
from lorair_arch.data.stores import open_store
from lorair_arch.errors import DataError, OutputError
from tests.disks import disk
from tests.photos import photo, write, write_pairs
from tests.prepared import contents

NAMES = tuple(f'{i:02}' for i in range(40))
# Prepares, and is killed while it reads the pair whose number is given; every image is on the disk at once.
KILLED = """
import os, signal, sys
from lorair_arch.data import parallel
from lorair_arch.data.prepare import prepare as module

read, module._BATCH, parallel._AHEAD, parallel._MAX_THREADS = module.read_image, (0, 0.0), (0, 0), 2
left = int(sys.argv[1])
def count(files, name):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(files, name)
module.read_image = count
module.prepare('folder', 'x', 'out')
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with pairs in `x`, where the test runs."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / 'x', NAMES, height=12, width=10)
    return tmp_path


@pytest.fixture
def reads(monkeypatch):
    """The names of images that are read."""
    names, read = [], module.read_image
    monkeypatch.setattr(module, 'read_image', lambda files, name: names.append(name) or read(files, name))
    return names


def files(side: str) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in Path('x', side).iterdir()}


def test_killed_and_continued(here, reads):
    killed = 0
    for number in (30, 20, 3):
        run = subprocess.run([sys.executable, '-c', KILLED, str(number)], capture_output=True, text=True)
        assert run.returncode == -signal.SIGKILL, run.stderr
        done = len(contents('out/images_gt.lmdb.partial'))
        assert done >= killed and not Path('out/images_gt.lmdb').exists()
        killed = done
    assert killed > 0
    prepare('folder', 'x', 'out')
    assert 0 < len(reads) <= 2 * (len(NAMES) - killed)
    for side in ('lq', 'gt'):
        assert contents(f'out/images_{side}.lmdb') == files(side)
        lines = Path(f'out/images_{side}.lmdb/meta_info.txt').read_text().splitlines()
        assert sorted(lines) == [f'{name}.png (12,10,3) 1' for name in NAMES]
    assert sorted(path.name for path in Path('out').iterdir()) == ['images_gt.lmdb', 'images_lq.lmdb']
    reads.clear()
    prepare('folder', 'x', 'out')  # complete
    assert reads == []


def test_a_writer_that_was_cut_within_a_line(tmp_path):
    path = str(tmp_path / 'x.lmdb')
    with pytest.raises(KeyboardInterrupt), LmdbWriter(path, source='a') as writer:
        writer.put('one', photo(1))
        writer.put('two', photo(2))
        raise KeyboardInterrupt
    meta = tmp_path / 'x.lmdb.partial/meta_info.txt'
    meta.write_text(meta.read_text()[:-8] + '\n')
    with meta.open('a') as file:
        file.write('gone.png (48,40,3) 1\nhalf.png (48')
    with LmdbWriter(path, source='a') as writer:
        assert writer.done == {'one'}
        for seed, key in ((2, 'two'), (3, 'three')):
            writer.put(key, photo(seed))
        with pytest.raises(DataError, match="^two images would have the key 'one' in"):
            writer.put('one', photo(1))
    store = open_store(path)
    assert store.keys == ['one', 'three', 'two'] and store.mistakes == []
    with LmdbWriter(path, source='a') as writer:
        assert writer.complete and writer.done == set(store.keys)
    with pytest.raises(OutputError, match='exists already'):
        LmdbWriter(path, source='b')


def test_what_another_source_has_begun_is_not_continued(tmp_path):
    path = str(tmp_path / 'x.lmdb')
    with pytest.raises(KeyboardInterrupt), LmdbWriter(path, source='a') as writer:
        writer.put('one', photo(1))
        raise KeyboardInterrupt
    with LmdbWriter(path, source='b') as writer:
        assert writer.done == set()
        writer.put('two', photo(2))
    assert set(contents(path)) == {'two'}


def test_a_writer_that_cannot_go_on_keeps_what_is_done(tmp_path, monkeypatch):
    path = str(tmp_path / 'x.lmdb')
    with pytest.raises(KeyboardInterrupt), LmdbWriter(path, source='a') as writer:
        writer.put('one', photo(1))
        raise KeyboardInterrupt
    source = (tmp_path / 'x.lmdb.partial/source.txt').stat()
    with monkeypatch.context() as patch:
        patch.setattr(lmdb, 'open', lambda *_, **__: (_ for _ in ()).throw(lmdb.Error('mdb_env_open: No memory')))
        with pytest.raises(OutputError) as error, LmdbWriter(path, source='a'):
            pass
        assert str(error.value) == (
            f"cannot go on with '{path}.partial': mdb_env_open: No memory; mend that, or remove it to begin again"
        )
        with pytest.raises(OutputError, match="^cannot write '.*/y.lmdb': mdb_env_open: No memory$"):
            LmdbWriter(str(tmp_path / 'y.lmdb'), source='a').__enter__()
    assert not (tmp_path / 'y.lmdb.partial').exists()
    with LmdbWriter(path, source='a') as writer:
        assert writer.done == {'one'}
        again = (tmp_path / 'x.lmdb.partial/source.txt').stat()
        assert (again.st_ino, again.st_mtime_ns) == (source.st_ino, source.st_mtime_ns)


def test_a_failure_at_the_end_keeps_what_is_done(tmp_path, monkeypatch):
    path = str(tmp_path / 'x.lmdb')
    monkeypatch.setattr(LmdbWriter, '_publish', lambda _: (_ for _ in ()).throw(OSError('no room')))
    with pytest.raises(OutputError, match='no room'), LmdbWriter(path, source='a') as writer:
        writer.put('one', photo(1))
    monkeypatch.undo()
    with LmdbWriter(path, source='a') as writer:
        assert writer.done == {'one'}
    assert [file.name for file in tmp_path.iterdir()] == ['x.lmdb']


def test_a_failure_before_the_first_image(tmp_path):
    with pytest.raises(DataError) as error, LmdbWriter(str(tmp_path / 'x.lmdb')) as writer:
        writer._environment.close()  # as a disk that is gone
        writer.put_encoded([])
    assert str(error.value).startswith(f"cannot write to '{tmp_path}/x.lmdb': ")


def test_one_side_that_is_missing_is_made_again(here, reads):
    prepare('folder', 'x', 'out')
    before = Path('out/images_lq.lmdb/data.mdb').stat()
    Path('out/images_gt.lmdb').rename('elsewhere')
    prepare('folder', 'x', 'out')
    after = Path('out/images_lq.lmdb/data.mdb').stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert contents('out/images_gt.lmdb') == contents('elsewhere')


def test_nothing_is_replaced_unless_wanted(here):
    prepare('folder', 'x', 'out')
    os.utime(write(here / 'x/gt/00.png', photo(99, 12, 10)), (0, 0))
    before = contents('out/images_gt.lmdb')
    with pytest.raises(OutputError) as error:
        prepare('folder', 'x', 'out')
    assert str(error.value) == (
        "'out/images_gt.lmdb' exists already, made of something else: choose another --out, or --overwrite to replace "
        'it'
    )
    assert contents('out/images_gt.lmdb') == before
    prepare('folder', 'x', 'out', overwrite=True)
    assert contents('out/images_gt.lmdb') == files('gt') != before
    assert sorted(path.name for path in Path('out').iterdir()) == ['images_gt.lmdb', 'images_lq.lmdb']


def test_a_full_disk(here, monkeypatch):
    monkeypatch.setattr(module, '_BATCH', (0, 0.0))
    for i in range(40):
        write(here / f'noise/gt/{i}.png', np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with disk(here / 'small', '400k'):
        with pytest.raises(
            DataError, match=r"^cannot write '\d+' to 'small/out/images_gt.lmdb': .*; the disk is full: free"
        ):
            prepare('folder', 'noise', 'small/out')
        done = len(contents('small/out/images_gt.lmdb.partial'))
        subprocess.run(['mount', '-o', 'remount,size=4M', 'small'], check=True)
        assert 0 < done < 40
        prepare('folder', 'noise', 'small/out')
        assert len(contents('small/out/images_gt.lmdb')) == 40


def test_the_output_is_no_folder(here):
    Path('file').write_text('')
    with pytest.raises(OutputError, match="^output folder 'file/out' cannot be made: 'file' is no folder$"):
        prepare('folder', 'x', 'file/out')


def test_a_failure_leaves_what_was_there(here, monkeypatch):
    prepare('folder', 'x', 'out')
    before = contents('out/images_gt.lmdb')
    os.utime(write(here / 'x/gt/00.png', photo(99, 12, 10)), (0, 0))
    monkeypatch.setattr(LmdbWriter, 'put_encoded', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare('folder', 'x', 'out', overwrite=True)
    assert contents('out/images_gt.lmdb') == before


@pytest.fixture
def mixtures(tmp_path, monkeypatch):
    """Some of CDD-11, of which two subsets lack an image."""
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        for folder in ('clear', 'haze', 'low', 'rain'):
            write(tmp_path / f'CDD-11_test/{folder}/{i}.png', photo(i, 12, 10))
    (tmp_path / 'CDD-11_test/rain/0.png').write_bytes(b'no image')
    (tmp_path / 'CDD-11_test/haze/1.png').unlink()


def test_shared_ground_truths(mixtures):
    report = prepare('cdd11', 'CDD-11_test', 'out')
    assert [(row[0], row[1], row[3]) for row in report.rows] == [
        ('test_low', 3, 3),
        ('test_haze', 2, 2),
        ('test_rain', 3, 2),
    ]
    # Those of a part that lacks some are its own: BasicSR wants the same keys on both sides.
    expected = {'low': ('clear', '012'), 'haze': ('haze', '02'), 'rain': ('rain', '12')}
    for name, (clear, keys) in expected.items():
        assert f'dataroot_gt: out/test_{clear}_gt.lmdb' in next(line for line in report.sources if f': {name},' in line)
        assert open_store(f'out/test_{name}_lq.lmdb').keys == open_store(f'out/test_{clear}_gt.lmdb').keys == [*keys]


def test_some_parts_leave_the_shared_ground_truths_to_the_others(mixtures):
    prepare('cdd11', 'CDD-11_test', 'out', parts=['test_haze'])
    assert set(contents('out/test_clear_gt.lmdb')) == {*'012'}
    prepare('cdd11', 'CDD-11_test', 'out')
    prepare('cdd11', 'CDD-11_test', 'out', overwrite=True, parts=['test_haze'])
    for name, keys in {'low_lq': '012', 'clear_gt': '012', 'haze_lq': '02', 'haze_gt': '02', 'rain_gt': '12'}.items():
        assert set(contents(f'out/test_{name}.lmdb')) == {*keys}


def test_what_is_stored(tmp_path):
    clean = tmp_path / 'gt'
    eight, deep = photo(1), np.random.default_rng(0).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    for name in ('a.png', 'b.jpg', 'c.bmp', 'd.tif', 'e.webp'):
        write(clean / name, eight)
    write(clean / 'deep.png', deep)
    cv2.imwrite(str(clean / 'grey.png'), eight[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(eight).save(clean / 'turned.jpg', exif=exif)
    Image.fromarray(eight).convert('CMYK').save(clean / 'cmyk.jpg')
    prepare('folder', str(tmp_path), str(tmp_path / 'out'))
    root = str(tmp_path / 'out/images_gt.lmdb')
    written = contents(root)
    store, original = open_store(root), open_store(str(clean))
    assert all(np.array_equal(store.load(key), original.load(key)) for key in original.keys)
    kept = {key for key, content in written.items() if content == Path(original.path(key)).read_bytes()}
    assert kept - {'deep'} == {'a', 'b', 'grey'}  # of 16 bits our PNGs may be OpenCV's
    assert store.load('deep').dtype == np.uint16
    # BasicSR decodes by OpenCV, which turns what EXIF data say.
    for key, content in written.items():
        seen = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert seen.shape == original.load(key).shape
    assert store.sizes['turned'] == (40, 48)
