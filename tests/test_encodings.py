"""Texts are UTF-8 whatever the locale: options, lists of images, logs; other encodings are read or named."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from basicsr.data.data_util import paired_paths_from_meta_info_file

from lorair_arch.data.sources import Source
from lorair_arch.errors import DataError, OptionsError
from lorair_arch.files import decode, read_text
from lorair_arch.options.yaml_file import copy_opt_file, read_yaml
from tests.miniature import as_test, run, stage, write_options
from tests.photos import photo, write, write_pairs

COMMENT = '# 去雨:雨天照片的训练 – œuvre\n'
ASCII = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}


@pytest.fixture(scope='session')
def gbk(tmp_path_factory):
    """The environment of a Chinese locale that is not UTF-8, made for the tests."""
    folder = tmp_path_factory.mktemp('locales')
    if not shutil.which('localedef'):
        pytest.skip('localedef is not installed')
    made = subprocess.run(
        ['localedef', '-i', 'zh_CN', '-f', 'GBK', folder / 'zh_CN.GBK'], capture_output=True, check=False
    )
    if not (folder / 'zh_CN.GBK').exists():
        pytest.skip(f'localedef cannot make zh_CN.GBK: {made.stderr!r}')
    return {'LC_ALL': 'zh_CN.GBK', 'LOCPATH': str(folder), 'PYTHONUTF8': '0'}


@pytest.fixture(params=['GBK', 'ASCII'])
def locale(request):
    return request.getfixturevalue('gbk') if request.param == 'GBK' else ASCII


def encoding_of(folder, locale):
    done = run(folder, python=('-c', 'import locale; print(locale.getpreferredencoding(False))'), **locale)
    return codecs.lookup(done.stdout.strip()).name


def test_the_locales_are_not_utf_8(tmp_path, locale):
    assert encoding_of(tmp_path, locale) in ('gbk', 'ascii')


def test_training_and_test_do_not_depend_on_the_locale(here, locale):
    opt = stage('pretrain')
    opt['train']['total_iter'] = opt['val']['val_freq'] = 2
    path = here / write_options(here, opt, 'train')
    content = COMMENT + path.read_text(encoding='utf-8')
    path.write_text(content, encoding='utf-8')
    done = run(here, 'train', '-opt', 'train.yml', **locale)
    assert done.returncode == 0, done.stderr
    copy = (here / 'experiments/pretrain/train.yml').read_text(encoding='utf-8')
    assert copy.startswith('# GENERATE TIME: ')
    assert copy.endswith(content)


def test_lists_and_names_do_not_depend_on_the_locale(here, locale):
    """BasicSR's data sets open their lists themselves; names that the locale cannot tell are escaped in the log."""
    (here / 'list.txt').write_bytes(codecs.BOM_UTF8 + '2.png (24,28,3)\n0.png (24,28,3) 备注\n'.encode())
    for side in ('lq', 'gt'):
        write(here / f'data/odd_{side}/雨 – œ.png', photo())
    opt = as_test(stage('pretrain'))
    opt['datasets']['test_2'] = {
        'name': 'listed',
        'type': 'PairedImageDataset',
        'dataroot_lq': 'data/val_lq',
        'dataroot_gt': 'data/val_gt',
        'meta_info_file': 'list.txt',
        'io_backend': {'type': 'disk'},
    }
    opt['datasets']['test']['sources'] = [
        {'degradation': 'noise', 'dataroot_lq': 'data/odd_lq', 'dataroot_gt': 'data/odd_gt'}
    ]
    # too small for NIQE: the images are named
    opt['val'] = {'save_img': False, 'metrics': {'niqe': {'type': 'calculate_niqe', 'crop_border': 0}}}
    done = run(here, 'test', '-opt', write_options(here, opt, 'test'), **locale)
    assert done.returncode == 0, done.stderr
    assert 'Traceback' not in done.stderr  # of the logger
    content = json.loads((here / 'results/pretrain/metrics_listed.json').read_text(encoding='utf-8'))
    assert [Path(image['image']).name for image in content['images']] == ['2.png', '0.png']
    (log,) = (here / 'results/pretrain').glob('*.log')
    assert 'niqe leaves out 1 of 1 images' in log.read_text(encoding='utf-8')


TEXT = 'img10.png (48,40,3)\nimg2.png (48,40,3) 1\n'


@pytest.mark.parametrize(
    'content',
    [
        TEXT.encode(),
        TEXT.encode('utf-8-sig'),
        TEXT.encode('utf-16'),
        codecs.BOM_UTF16_BE + TEXT.encode('utf-16-be'),
        TEXT.replace('\n', '\r\n').encode(),
        TEXT.replace('\n', '\r\n').encode('utf-16'),
        TEXT.replace('\n', '\r').encode(),
        TEXT.rstrip().encode(),
        f'\n\n  {TEXT}\t\n'.encode(),
        TEXT.replace('img', './img').encode(),
        TEXT.replace('img', '.\\img').encode(),
    ],
)
def test_lists_of_images_as_editors_and_shells_write_them(tmp_path, content):
    roots = write_pairs(tmp_path)
    meta = tmp_path / 'meta.txt'
    meta.write_bytes(content)
    source = Source(roots | {'degradation': 'noise', 'meta_info_file': str(meta)}, '')
    assert [Path(source.paths(i)[0]).name for i in range(len(source))] == ['img2.png', 'img10.png']
    if b'\\' not in content:
        pairs = paired_paths_from_meta_info_file([roots['dataroot_lq'], roots['dataroot_gt']], ['lq', 'gt'], meta, '{}')
        assert [Path(pair['gt_path']).name for pair in pairs if pair['gt_path'].endswith('.png')] == [
            'img10.png', 'img2.png',
        ]  # fmt: skip


@pytest.mark.parametrize('written', ['a\\b\\1.png', './a/b/1.png', '.\\a\\b\\1.png', 'a/./b/1.png', 'a\\b/1.png'])
def test_paths_in_lists_of_images(tmp_path, written):
    roots = write_pairs(tmp_path, ('a/b/1', 'a/b/2'))
    (tmp_path / 'meta.txt').write_text(f'{written}\n', encoding='utf-8')
    source = Source(roots | {'degradation': 'noise', 'meta_info_file': str(tmp_path / 'meta.txt')}, '')
    assert len(source) == 1
    np.testing.assert_array_equal(source.load(0)[1], photo(0))


def test_a_backslash_may_be_part_of_a_name(tmp_path):
    roots = write_pairs(tmp_path, ('a\\1', 'a/1', 'a/2'))
    (tmp_path / 'meta.txt').write_text('a\\1.png\na\\2.png\n', encoding='utf-8')
    source = Source(roots | {'degradation': 'noise', 'meta_info_file': str(tmp_path / 'meta.txt')}, '')
    found = [os.path.relpath(source.paths(i)[0], roots['dataroot_lq']) for i in range(len(source))]
    assert sorted(found) == ['a/2.png', 'a\\1.png']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('雨.png\n'.encode('gbk'), r"meta.txt' is not a text in UTF-8 \(line 1\); save it as UTF-8"),
        (b'a.png\n\ncaf\xe9.png\n', r'is not a text in UTF-8 \(line 3\)'),
        (TEXT.encode('utf-16-le'), r'\(a NUL in line 1: UTF-16 without its byte order mark, maybe\); save it as UTF-8'),
        (TEXT.encode('utf-16') + b'x', 'is not a text in UTF-8'),
        (b'"img2.png"\n', "line 1: expected 'name.png"),
        (b'img2.png;img10.png\n', "lacks 'img2.png;img10', which"),
        (b'# chosen by hand\nimg2.png\n', "line 1: expected 'name.png"),
        (b'..\\lq\\img2.png\n', r"lacks '../lq/img2', which"),
        (b'C:\\photos\\img2.png\n', "lacks 'C:/photos/img2', which"),
        (codecs.BOM_UTF8 + b'\r\n\r\n', 'lists no images'),
    ],
)
def test_lists_of_images_that_are_refused(tmp_path, content, message):
    roots = write_pairs(tmp_path)
    (tmp_path / 'meta.txt').write_bytes(content)
    with pytest.raises(DataError, match=message):
        Source(roots | {'degradation': 'noise', 'meta_info_file': str(tmp_path / 'meta.txt')}, '')


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_options_files_with_a_mark(tmp_path, encoding):
    path = tmp_path / 'a.yml'
    path.write_bytes(f'{COMMENT}name: 雨\r\n'.encode(encoding))
    assert read_yaml(path) == {'name': '雨'}
    (tmp_path / 'copy').mkdir()
    copy_opt_file(path, tmp_path / 'copy')
    copy_opt_file(tmp_path / 'copy' / 'a.yml', tmp_path / 'copy')  # a copy is copied again, as on resuming from it
    copied = (tmp_path / 'copy' / 'a.yml').read_bytes()
    assert copied.count(b'# GENERATE TIME') == 2
    assert copied.endswith(f'{COMMENT}name: 雨\n'.encode())
    assert read_yaml(tmp_path / 'copy' / 'a.yml') == {'name': '雨'}


def test_options_in_another_encoding_are_named(tmp_path):
    (tmp_path / 'a.yml').write_bytes(b'name: x\n' + COMMENT.encode('gbk', 'ignore'))
    with pytest.raises(OptionsError, match=r'a.yml: is not a text in UTF-8 \(line 2\), expected a YAML file'):
        read_yaml(tmp_path / 'a.yml')


def test_texts(tmp_path):
    assert decode(memoryview('é'.encode())) == decode('é'.encode('utf-16')) == decode('é'.encode('utf-8-sig')) == 'é'
    (tmp_path / 'a.txt').write_bytes(b'1\r\n2\r3\n')
    assert read_text(tmp_path / 'a.txt') == '1\n2\n3\n'
