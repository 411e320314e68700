"""Folders, pairing and the options of a source."""

import errno
import os
import re
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from lorair_arch.data import stores
from lorair_arch.data.sources import Source
from lorair_arch.data.stores import natural_sort, open_store
from lorair_arch.errors import DataError, OptionsError
from tests.photos import photo, write, write_pairs


def source(options, **more):
    return Source({'degradation': 'rain', **options, **more}, 'sources[0]')


def raises(error, message, options, **more):
    with pytest.raises(error) as caught:
        source(options, **more)
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)


def test_pairs_from_folders_in_natural_order(tmp_path):
    pairs = source(write_pairs(tmp_path))
    assert [os.path.basename(pairs.paths(i)[1]) for i in range(len(pairs))] == ['img1.png', 'img2.png', 'img10.png']
    lq, gt = pairs.load(2)
    assert np.array_equal(gt, photo(2)) and np.array_equal(lq, photo(2)[::-1])


def test_natural_sort():
    assert natural_sort(['b', 'a10b2', 'a2', 'a10b10', '10', '9']) == ['9', '10', 'a2', 'a10b2', 'a10b10', 'b']


def test_extensions_may_differ(tmp_path):
    write(tmp_path / 'lq' / 'A.JPG', photo())
    write(tmp_path / 'gt' / 'A.bmp', photo())
    pairs = source({'dataroot_lq': str(tmp_path / 'lq'), 'dataroot_gt': str(tmp_path / 'gt')})
    assert pairs.paths(0) == (str(tmp_path / 'lq' / 'A.JPG'), str(tmp_path / 'gt' / 'A.bmp'))


def test_subfolders_other_files_links_and_odd_names(tmp_path):
    odd = 'Größe 日本 & (1).v2'
    roots = write_pairs(tmp_path, ('a/1', 'b/1', odd, 'x' * 200))
    (tmp_path / 'lq' / 'Thumbs.db').write_bytes(b'')
    (tmp_path / 'lq' / '._a.png').write_bytes(b'')
    (tmp_path / 'lq' / 'a' / 'again').symlink_to(tmp_path / 'lq')
    (tmp_path / 'linked').symlink_to(tmp_path / 'gt')
    pairs = source(roots, dataroot_gt=str(tmp_path / 'linked'))
    assert [os.path.relpath(pairs.paths(i)[0], tmp_path / 'lq') for i in range(len(pairs))] == [
        f'{odd}.png', 'a/1.png', 'b/1.png', f'{"x" * 200}.png'
    ]  # fmt: skip
    assert np.array_equal(pairs.load(0)[1], photo(2))


def test_one_folder_may_stand_for_several_by_links(tmp_path):
    for seed, name in enumerate(('haze/1', 'rain/1')):
        write(tmp_path / 'lq' / f'{name}.png', photo(seed))
    write(tmp_path / 'clear' / '1.png', photo(9))
    (tmp_path / 'gt').mkdir()
    for name in ('haze', 'rain'):
        (tmp_path / 'gt' / name).symlink_to(tmp_path / 'clear')
    pairs = source({'dataroot_lq': str(tmp_path / 'lq'), 'dataroot_gt': str(tmp_path / 'gt')})
    assert [os.path.relpath(pairs.paths(i)[1], tmp_path / 'gt') for i in range(2)] == ['haze/1.png', 'rain/1.png']


def test_letters_written_in_two_ways_are_the_same(tmp_path):
    one, two = (unicodedata.normalize(form, 'größe') for form in ('NFC', 'NFD'))
    write(tmp_path / 'lq' / f'{one}.png', photo())
    write(tmp_path / 'gt' / f'{two}.png', photo())
    (tmp_path / 'list.txt').write_text(f'{one}.png\n')
    roots = {'dataroot_lq': str(tmp_path / 'lq'), 'dataroot_gt': str(tmp_path / 'gt')}
    for more in ({}, {'meta_info_file': str(tmp_path / 'list.txt')}, {'match': f'({one})'}):
        pairs = source(roots, **more)
        assert [pairs.paths(0)] == [(f'{tmp_path}/lq/{one}.png', f'{tmp_path}/gt/{two}.png')]
        assert np.array_equal(pairs.load(0)[1], photo())


def test_names_that_are_no_text_and_very_long_ones(tmp_path):
    names = [os.fsdecode(b'\xff\xfe'), 'x' * 250, '/'.join(['y' * 200] * 10)]
    for name in names:
        for side in ('lq', 'gt'):
            path = tmp_path / side / f'{name}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode('.png', photo())[1].tobytes())
    pairs = source({'dataroot_lq': str(tmp_path / 'lq'), 'dataroot_gt': str(tmp_path / 'gt')})
    assert len(pairs) == 3 and all(pairs.load(i)[0].shape == photo().shape for i in range(3))


def test_a_folder_that_cannot_be_entered(tmp_path, monkeypatch):
    roots = write_pairs(tmp_path, ('a/1', 'b/1'))
    scandir = os.scandir

    def refused(path):
        if str(path).endswith('gt/b'):
            raise PermissionError(errno.EACCES, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refused)
    raises(DataError, f"cannot read folder '{tmp_path}/gt/b': Permission denied; check its permissions", roots)


def test_match_pairs_by_what_names_share(tmp_path):
    for name in ('0001_0.8_0.2.jpg', '0001_0.9_0.1.jpg', '0002_0.8_0.2.jpg'):
        write(tmp_path / 'lq' / name, photo())
    for name in ('0001.png', '0002.png'):
        write(tmp_path / 'gt' / name, photo())
    roots = {'dataroot_lq': str(tmp_path / 'lq'), 'dataroot_gt': str(tmp_path / 'gt')}
    pairs = source(roots, match=r'^(\d+)')
    assert [os.path.basename(pairs.paths(i)[1]) for i in range(3)] == ['0001.png', '0001.png', '0002.png']
    raises(DataError, f"match: '_(x)' finds nothing in '0001', '0002' of '{tmp_path / 'gt'}'", roots, match='_(x)')
    raises(DataError, "would both be the ground truth of '000'", roots, match=r'(\d\d\d)')
    raises(
        OptionsError,
        "sources[0].match: found '(', expected a regular expression with one group, such as '^(\\d+)': missing",
        roots,
        match='(',
    )
    raises(OptionsError, "sources[0].match: found 'a', expected a regular expression with one group", roots, match='a')


def test_meta_info_file_selects(tmp_path):
    roots = write_pairs(tmp_path)
    (tmp_path / 'lq' / 'img1.png').unlink()
    meta = tmp_path / 'meta.txt'
    meta.write_text('img10.png (48,40,3)\nimg2.png (48,40,3)\n\n')
    chosen = source(roots, meta_info_file=str(meta))
    assert [os.path.basename(chosen.paths(i)[0]) for i in range(len(chosen))] == ['img2.png', 'img10.png']
    clean = source({'dataroot_gt': roots['dataroot_gt']}, degrade={'type': 'noise'}, meta_info_file=str(meta))
    assert len(clean) == 2

    meta.write_text('img1.png\nimg3.png\n')
    raises(DataError, f"'{tmp_path / 'gt'}' lacks 'img3', which '{meta}' lists", roots, meta_info_file=str(meta))
    meta.write_text('no extension\n')
    raises(DataError, f"'{meta}', line 1: expected 'name.png (height,width", roots, meta_info_file=str(meta))
    meta.write_text('')
    raises(DataError, f"'{meta}' lists no images", roots, meta_info_file=str(meta))
    raises(DataError, "cannot read 'none.txt': No such file", roots, meta_info_file='none.txt')


def test_clean_images_are_read_once(tmp_path, monkeypatch):
    roots = write_pairs(tmp_path)
    clean = source({'dataroot_gt': roots['dataroot_gt']}, degrade={'type': 'noise'})
    reads = []
    monkeypatch.setattr(stores, 'read_bytes', lambda path: reads.append(path) or Path(path).read_bytes())
    clean.load(0)
    assert len(reads) == 1


def test_degradation_defaults_to_the_type_of_degrade(tmp_path):
    root = write_pairs(tmp_path)['dataroot_gt']
    assert Source({'dataroot_gt': root, 'degrade': {'type': 'haze'}}, '').degradation == 'haze'
    assert Source({'dataroot_gt': root, 'degrade': {'type': 'haze'}, 'degradation': 'fog'}, '').degradation == 'fog'


def test_null_is_the_same_as_absent(tmp_path):
    assert len(source(write_pairs(tmp_path), meta_info_file=None, weight=None, match=None, degrade=None)) == 3


def test_unpaired_images(tmp_path):
    roots = write_pairs(tmp_path)
    for i in range(5):
        write(tmp_path / 'lq' / f'more{i}.png', photo())
    raises(
        DataError,
        f"no partner in '{tmp_path}/gt' for 'more0', 'more1', 'more2' and 2 more of '{tmp_path}/lq'; "
        'the names of a pair must agree except for the extension, or set match',
        roots,
    )
    (tmp_path / 'gt' / 'img1.png').unlink()
    for i in range(5):
        (tmp_path / 'lq' / f'more{i}.png').unlink()
    raises(DataError, f"no partner in '{tmp_path}/gt' for 'img1' of '{tmp_path}/lq'", roots)


def test_two_files_of_one_name(tmp_path):
    roots = write_pairs(tmp_path)
    write(tmp_path / 'gt' / 'img1.jpg', photo())
    raises(DataError, f"'{tmp_path}/gt' holds both 'img1.jpg' and 'img1.png'; keep one of them", roots)


def test_missing_and_empty_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    roots = write_pairs(tmp_path)
    message = f"folder 'gone' does not exist (looked for from '{tmp_path}'); check the path"
    raises(DataError, message, roots, dataroot_lq='gone')
    os.mkdir('empty')
    raises(DataError, "'empty' holds no images (.png, .jpg,", roots, dataroot_gt='empty')
    (tmp_path / 'empty' / 'data.mdb').write_bytes(b'')
    raises(DataError, "it is an LMDB: its name must end in '.lmdb'", roots, dataroot_gt='empty')


def test_pair_of_different_sizes(tmp_path):
    roots = write_pairs(tmp_path, ('a',))
    write(tmp_path / 'lq' / 'a.png', photo(0, 20, 30))
    with pytest.raises(DataError) as caught:
        source(roots).load(0)
    assert str(caught.value) == (
        f"'{tmp_path}/lq/a.png' is 30 x 20 pixels but its ground truth '{tmp_path}/gt/a.png' is 40 x 48; "
        'the images of a pair must have the same size'
    )


def test_a_file_that_vanishes(tmp_path):
    pairs = source(write_pairs(tmp_path))
    (tmp_path / 'lq' / 'img1.png').unlink()
    with pytest.raises(DataError, match=r"^cannot read '.*/lq/img1\.png': No such file or directory$"):
        pairs.load(0)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([1], 'sources[0]: found [1], expected a mapping'),
        ({'dataroot_gtt': 'x'}, "sources[0].dataroot_gtt: unknown key; did you mean 'dataroot_gt'?"),
        ({'dataroot_lq': 'x'}, 'sources[0].dataroot_gt: missing, expected a text'),
        ({'dataroot_gt': 'x'}, 'sources[0]: found neither, expected either dataroot_lq (pairs) or degrade'),
        (
            {'dataroot_gt': 'x', 'dataroot_lq': 'y', 'degrade': {'type': 'noise'}},
            'sources[0]: found both, expected either dataroot_lq',
        ),
        ({'dataroot_gt': 'x', 'dataroot_lq': 'x'}, "sources[0].dataroot_lq: found 'x', the folder of dataroot_gt"),
        ({'dataroot_gt': 3, 'dataroot_lq': 'x'}, 'sources[0].dataroot_gt: found 3, expected a text'),
        ({'dataroot_gt': 'x', 'dataroot_lq': 'y'}, 'sources[0].degradation: missing, expected the name'),
        ({'dataroot_gt': 'x', 'degrade': {'type': 'fog'}}, "sources[0].degrade.type: unknown degradation 'fog'"),
        (
            {'dataroot_gt': 'x', 'dataroot_lq': 'y', 'weight': 0},
            'sources[0].weight: found 0, expected a number above 0',
        ),
        (
            {'dataroot_gt': 'x', 'degrade': {'type': 'noise'}, 'match': '(a)'},
            'sources[0].match: found beside degrade, expected beside',
        ),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(OptionsError) as caught:
        Source(options, 'sources[0]')
    assert message in str(caught.value)


def test_store_of_a_folder(tmp_path):
    write_pairs(tmp_path)
    store = open_store(str(tmp_path / 'gt'))
    assert store.keys == ['img1', 'img2', 'img10']
    assert np.array_equal(store.load('img2'), photo(1))


def test_the_examples_of_the_readme_are_valid():
    text = (Path(__file__).parents[1] / 'datasets' / 'README.md').read_text()
    sources = [
        source
        for block in re.findall(r'```yaml\n(.*?)```', text, re.DOTALL)
        for phase in yaml.safe_load(block).get('datasets', {}).values()
        for source in phase['sources']
    ]
    assert len(sources) == 3
    for source in sources:
        with pytest.raises(DataError, match=r"^folder 'datasets/.*' does not exist"):
            Source(source, 'sources[0]')
