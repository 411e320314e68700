"""LMDBs: written here and by BasicSR, read by both; damaged ones."""

import multiprocessing
import runpy
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest

from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.data.images.reading import decode_image
from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.data.stores import open_store
from lorair_arch.errors import DataError
from tests.photos import photo, write, write_pairs

# BasicSR can be imported from here on.
# isort: split
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.lmdb_util import make_lmdb_from_imgs

MAKE_LMDB = str(Path(__file__).parents[1] / 'scripts' / 'data_preparation' / 'make_lmdb.py')


def write_lmdb(path, keys=('a', 'b', 'c')):
    with LmdbWriter(str(path)) as writer:
        for seed, key in enumerate(keys):
            writer.put(key, photo(seed))
    return str(path)


def make_lmdb(*arguments):
    """Runs the script; gives its exit code."""
    before, sys.argv = sys.argv, [MAKE_LMDB, *map(str, arguments)]
    try:
        runpy.run_path(MAKE_LMDB, run_name='__main__')
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = before
    return 0


def all_in_one(lq, gt):
    sources = [{'degradation': 'rain', 'dataroot_lq': str(lq), 'dataroot_gt': str(gt)}]
    return AllInOneDataset({'name': 'x', 'phase': 'val', 'sources': sources})


def paired(lq, gt):
    roots = {'dataroot_lq': str(lq), 'dataroot_gt': str(gt)}
    return PairedImageDataset({'phase': 'val', 'scale': 1, 'io_backend': {'type': 'lmdb'}, **roots})


def test_basicsr_reads_what_make_lmdb_writes(tmp_path):
    roots = write_pairs(tmp_path, ('img1', 'img2', 'sub/img.10'))
    assert make_lmdb('--lq', roots['dataroot_lq'], '--gt', roots['dataroot_gt'], '--out', tmp_path / 'set') == 0
    dataset = paired(tmp_path / 'set_lq.lmdb', tmp_path / 'set_gt.lmdb')
    read = {sample['gt_path']: sample for sample in (dataset[i] for i in range(len(dataset)))}
    assert set(read) == {'img1', 'img2', 'sub/img_10'}
    for seed, key in enumerate(('img1', 'img2', 'sub/img_10')):
        assert np.array_equal(read[key]['gt'].permute(1, 2, 0).numpy(), photo(seed).astype(np.float32) / 255)
        assert np.array_equal(read[key]['lq'].permute(1, 2, 0).numpy(), photo(seed)[::-1].astype(np.float32) / 255)


def test_all_in_one_reads_what_basicsr_writes(tmp_path, capsys):
    roots = write_pairs(tmp_path)
    keys = ['img1', 'img2', 'img10']
    for side in ('lq', 'gt'):
        path = tmp_path / f'{side}.lmdb'
        make_lmdb_from_imgs(roots[f'dataroot_{side}'], str(path), [f'{key}.png' for key in keys], keys)
    dataset = all_in_one(tmp_path / 'lq.lmdb', tmp_path / 'gt.lmdb')
    assert [dataset[i]['gt_path'] for i in range(3)] == [f'{tmp_path}/gt.lmdb/{key}.png' for key in keys]
    assert np.array_equal(dataset[1]['gt'].permute(1, 2, 0).numpy(), photo(1).astype(np.float32) / 255)
    assert np.array_equal(dataset[1]['lq'].permute(1, 2, 0).numpy(), photo(1)[::-1].astype(np.float32) / 255)


def test_keys_with_dots_spaces_and_other_letters(tmp_path):
    keys = ['0001_0.8_0.2', 'ein Bild (2)', 'größe.v2', 'sub/x.y']
    store = open_store(write_lmdb(tmp_path / 'x.lmdb', keys))
    assert sorted(store.keys) == sorted(keys)
    for seed, key in enumerate(keys):
        assert np.array_equal(store.load(key), photo(seed))


def test_16_bit_images_survive(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    with LmdbWriter(str(tmp_path / 'x.lmdb')) as writer:
        writer.put('deep', deep)
    assert np.array_equal(open_store(str(tmp_path / 'x.lmdb')).load('deep'), deep)


def read_in_child(store, queue):
    queue.put(store.load('b').sum())


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_other_processes_can_read_an_open_lmdb(tmp_path, method):
    store = open_store(write_lmdb(tmp_path / 'x.lmdb'))
    expected = store.load('b').sum()
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(store, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join()
    assert store.load('b').sum() == expected


def test_a_locked_lmdb_is_read(tmp_path):
    """No lock is taken: it may be on a read-only disk, and another process may be writing to it."""
    path = write_lmdb(tmp_path / 'x.lmdb')
    (tmp_path / 'x.lmdb/lock.mdb').unlink(missing_ok=True)
    (tmp_path / 'x.lmdb/lock.mdb').mkdir()
    assert np.array_equal(open_store(path).load('b'), photo(1))
    path = write_lmdb(tmp_path / 'y.lmdb')
    writing = (
        'import lmdb, sys\n'
        'transaction = lmdb.open(sys.argv[1]).begin(write=True)\n'
        'transaction.put(b"b", b"nothing")\n'
        'print("writing", flush=True)\n'
        'sys.stdin.read()'
    )
    with subprocess.Popen([sys.executable, '-c', writing, path], stdin=-1, stdout=-1, text=True) as writer:
        assert writer.stdout.readline() == 'writing\n'
        assert np.array_equal(open_store(path).load('b'), photo(1))
        writer.stdin.close()


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_uncompressed(tmp_path, dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (20, 30, 3), dtype)
    with LmdbWriter(str(tmp_path / 'x.lmdb'), compressed=False) as writer:
        writer.put('a', image)
    store = open_store(f'{tmp_path}/x.lmdb')
    assert np.array_equal(store.load('a'), image)
    assert (tmp_path / 'x.lmdb/meta_info.txt').read_text() == 'a.png (20,30,3) 0\n'
    with store.opened('a') as content:
        assert len(content) > image.nbytes
    roots = write_pairs(tmp_path)
    assert make_lmdb('--gt', roots['dataroot_gt'], '--out', tmp_path / 'flat', '--uncompressed') == 0
    assert np.array_equal(open_store(f'{tmp_path}/flat_gt.lmdb').load('img2'), photo(1))


def test_what_is_stored_is_seen_without_a_copy(tmp_path):
    store, seen = open_store(write_lmdb(tmp_path / 'x.lmdb')), []
    image = store.load('c', lambda content: seen.append((type(content), bytes(content))))
    assert seen[0][0] is memoryview
    assert np.array_equal(image, photo(2)) and image.base is not None
    assert np.array_equal(decode_image(seen[0][1], 'c'), image)


def test_one_lmdb_in_several_sources(tmp_path):
    first, second = open_store(write_lmdb(tmp_path / 'x.lmdb')), open_store(f'{tmp_path}/x.lmdb/')
    assert np.array_equal(first.load('a'), second.load('a'))


def test_data_sets_of_both_kinds_share_an_lmdb(tmp_path):
    lq, gt = write_lmdb(tmp_path / 'lq.lmdb'), write_lmdb(tmp_path / 'gt.lmdb')
    ours, theirs, again = all_in_one(lq, gt)[1], paired(lq, gt)[1], paired(lq, gt)[1]
    assert (ours['lq'] == theirs['lq']).all() and (again['gt'] == theirs['gt']).all()


def test_an_interrupted_lmdb_does_not_appear(tmp_path):
    with pytest.raises(KeyboardInterrupt), LmdbWriter(str(tmp_path / 'x.lmdb')) as writer:
        writer.put('a', photo())
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'x.lmdb.partial').mkdir()
    assert open_store(write_lmdb(tmp_path / 'x.lmdb')).keys == ['a', 'b', 'c']


def test_writer_refuses(tmp_path):
    with pytest.raises(DataError, match=r"must end in '\.lmdb', found 'x'"):
        LmdbWriter('x')
    path = write_lmdb(tmp_path / 'x.lmdb')
    with pytest.raises(DataError, match='exists already; remove it or choose another name'):
        LmdbWriter(path)
    with pytest.raises(DataError, match="two images would have the key 'a' in"):
        write_lmdb(tmp_path / 'y.lmdb', ('a', 'a'))
    with pytest.raises(DataError, match=f"cannot write '{'k' * 600}' to"):
        write_lmdb(tmp_path / 'y.lmdb', ('k' * 600,))
    (tmp_path / 'file').write_text('')
    with pytest.raises(DataError, match='^cannot write '):
        write_lmdb(tmp_path / 'file' / 'y.lmdb')


def test_missing_keys_and_files(tmp_path):
    path = tmp_path / 'x.lmdb'
    write_lmdb(path)
    with (path / 'meta_info.txt').open('a') as meta:
        meta.write('gone.png (48,40,3) 1\n')
    with pytest.raises(DataError, match=r"^LMDB '.*x\.lmdb' lacks 'gone', which its meta_info.txt lists; make it"):
        open_store(str(path))
    (path / 'meta_info.txt').write_text('a.png (48,40,3) 1\nwhat is this\n')
    with pytest.raises(DataError, match=r"meta_info.txt', line 2: expected 'name.png .* found 'what is this'"):
        open_store(str(path))
    (path / 'meta_info.txt').unlink()
    with pytest.raises(DataError, match=r"^LMDB '.*x\.lmdb' has no meta_info.txt; make it with"):
        open_store(str(path))


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda content: content[: len(content) // 2], r'is cut short: data.mdb has \d+ of \d+ bytes; make it again$'),
        (lambda content: b'', "^cannot open LMDB '.*': .*; make it again$"),
        (lambda content: b'hello' * 1000, "^cannot open LMDB '.*': .*; make it again$"),
    ],
)
def test_damaged_lmdb(tmp_path, damage, message):
    path = tmp_path / 'x.lmdb'
    write_lmdb(path)
    data = path / 'data.mdb'
    data.write_bytes(damage(data.read_bytes()))
    with pytest.raises(DataError, match=message):
        open_store(str(path))


def test_damaged_image_in_an_lmdb(tmp_path):
    path = write_lmdb(tmp_path / 'x.lmdb')
    with lmdb.open(path) as environment, environment.begin(write=True) as transaction:
        transaction.put(b'b', transaction.get(b'b')[:100])
    with pytest.raises(DataError, match=r"^image '.*x\.lmdb/b\.png' is cut short"):
        open_store(path).load('b')


def test_lmdbs_with_different_keys(tmp_path):
    lq, gt = write_lmdb(tmp_path / 'lq.lmdb'), write_lmdb(tmp_path / 'gt.lmdb', ('a', 'b', 'd'))
    with pytest.raises(DataError, match=f"^no partner in '{gt}' for 'c' of '{lq}'"):
        all_in_one(lq, gt)


def test_make_lmdb_of_clean_images_and_by_match(tmp_path):
    roots = write_pairs(tmp_path)
    assert make_lmdb('--gt', roots['dataroot_gt'], '--out', tmp_path / 'clean') == 0
    assert open_store(f'{tmp_path}/clean_gt.lmdb').keys == ['img1', 'img2', 'img10']

    for name in ('1_0.8', '1_0.9', '2_0.8'):
        write(tmp_path / 'hazy' / f'{name}.jpg', photo())
    for name in ('1', '2'):
        write(tmp_path / 'clear' / f'{name}.png', photo())
    folders = '--lq', tmp_path / 'hazy', '--gt', tmp_path / 'clear'
    assert make_lmdb(*folders, '--out', tmp_path / 'haze', '--match', r'^(\d+)') == 0
    for side in ('lq', 'gt'):
        assert open_store(f'{tmp_path}/haze_{side}.lmdb').keys == ['1_0_8', '1_0_9', '2_0_8']


def test_make_lmdb_says_what_is_wrong(tmp_path, capsys):
    roots = write_pairs(tmp_path)
    write(tmp_path / 'lq' / 'img2.png', photo(0, 10, 10))
    arguments = '--lq', roots['dataroot_lq'], '--gt', roots['dataroot_gt'], '--out', tmp_path / 'x'
    assert make_lmdb(*arguments) == 2
    assert f"error: '{tmp_path}/lq/img2.png' is 10 x 10 pixels but its ground truth" in capsys.readouterr().err
    assert not list(tmp_path.glob('*.lmdb*'))
