"""`lorair data check`."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lorair_arch import cli
from lorair_arch.data.check import check_data
from lorair_arch.data.foreign import NamedDataset
from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.errors import OptionsError
from tests.miniature import stage, write_options
from tests.photos import photo, write

TRAIN, NOISE = "data set 'tiny_train', noise: ", Path('data/train_lq/4.png')


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with sound data, of which no image is in two sets."""
    monkeypatch.chdir(tmp_path)
    for part, seeds in (('train', range(7)), ('val', range(7, 10))):
        for seed in seeds:
            image = photo(seed, 24, 28 + 2 * seed)
            write(Path(f'data/{part}_gt/{seed}.png'), image)
            write(Path(f'data/{part}_lq/{seed}.png'), image // 2)
            write(Path(f'data/{part}_half/{seed}.png'), image[::2, ::2])
    return tmp_path


def check(opt=None):
    return check_data(write_options(Path(), opt or stage('router')))


def test_sound_data(here, capsys):
    assert cli.lorair(['data', 'check', '-opt', write_options(here, stage('router'))]) == 0
    out, err = capsys.readouterr()
    assert out == (
        '| data set   | source   | images   | pairs   | smallest   | median   | largest   | kinds   |\n'
        '|------------|----------|----------|---------|------------|----------|-----------|---------|\n'
        '| tiny_train | noise    | 14       | 7       | 28 x 24    | 34 x 24  | 40 x 24   | 14 PNG  |\n'
        '| tiny_train | rain     | 7        | 0       | 28 x 24    | 34 x 24  | 40 x 24   | 7 PNG   |\n'
        '| tiny_val   | noise    | 6        | 3       | 42 x 24    | 44 x 24  | 46 x 24   | 6 PNG   |\n'
        '| tiny_val   | rain     | 3        | 0       | 42 x 24    | 44 x 24  | 46 x 24   | 3 PNG   |\n'
    )
    assert err == '20 images read: 0 mistakes, 0 warnings\n'


def test_everything_is_found_at_once(here, capsys):
    Path('data/train_lq/0.png').write_bytes(b'')
    Path('data/train_gt/1.png').unlink()
    write(Path('data/train_lq/2.png'), photo(2, 24, 20))
    write(Path('data/train_gt/3.png'), photo(3, 24, 15))
    write(Path('data/val_lq/alone.png'), photo(20))
    write(Path('data/val_lq/too.png'), photo(21))
    assert cli.lorair(['data', 'check', '-opt', write_options(here, stage('router'))]) == 2
    partner = '; the names of a pair must agree except for the extension, or set match'
    small = ' (15 x 24 pixels) is smaller than gt_size (16); remove it, lower gt_size or set pad_small'
    same = '; the images of a pair must have the same size'
    assert capsys.readouterr().err.splitlines() == [
        '21 images read: 7 mistakes, 0 warnings',
        f"error: no partner in 'data/train_gt' for '1' of 'data/train_lq'{partner}",
        f"error: no partner in 'data/val_gt' for 'alone' of 'data/val_lq'{partner}",
        f"error: no partner in 'data/val_gt' for 'too' of 'data/val_lq'{partner}",
        "error: image 'data/train_lq/0.png' is empty; copy it again or remove it",
        f"error: 'data/train_lq/2.png' is 20 x 24 pixels but its ground truth 'data/train_gt/2.png' is 32 x 24{same}",
        f"error: 'data/train_lq/3.png' is 34 x 24 pixels but its ground truth 'data/train_gt/3.png' is 15 x 24{same}",
        f"error: 'data/train_gt/3.png'{small}",
    ]


def test_padded_and_whole_images_may_be_small(here):
    opt = stage('router')
    opt['datasets']['train'] |= {'gt_size': 25, 'pad_small': True}
    assert check(opt).problems == []
    opt['datasets']['train'] |= {'gt_size': None, 'pad_small': False}
    assert check(opt).problems == []
    opt['datasets']['train']['gt_size'] = 25
    assert len(check(opt).problems) == 7


def encoded(mode, suffix='PNG', **options):
    stream = io.BytesIO()
    Image.fromarray(photo(4, 24, 36) // 2).convert(mode).save(stream, suffix, **options)
    return stream.getvalue()


def rotated(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


@pytest.mark.parametrize(
    ('content', 'warning', 'kind'),
    [
        (encoded('L'), f"{TRAIN}grey images, whose three channels will be the same: '{NOISE}'", 'PNG grey'),
        (encoded('RGBA'), f"{TRAIN}images with an alpha channel, which will be dropped: '{NOISE}'", 'PNG alpha'),
        (encoded('CMYK', 'JPEG'), None, 'JPEG CMYK'),
        (
            encoded('RGB', 'MPO', save_all=True, append_images=[Image.new('RGB', (8, 8))]),
            f"{TRAIN}files of several images, of which the first will be used: '{NOISE}'",
            'MPO',
        ),
        (
            encoded('RGB', 'JPEG', exif=rotated(3)),
            f"{TRAIN}images that EXIF data turn but not their partners, which is ignored: '{NOISE}'",
            'JPEG',
        ),
        (cv2.imencode('.png', np.zeros((24, 36, 3), np.uint16))[1].tobytes(), None, 'PNG 16 bits'),
        (
            cv2.imencode('.png', photo(4, 24, 36)[..., ::-1])[1].tobytes(),
            f"{TRAIN}degraded images that are the same as their ground truth: '{NOISE}'",
            None,
        ),
    ],
)
def test_what_may_be_meant_is_a_warning(here, content, warning, kind):
    NOISE.write_bytes(content)
    report = check()
    assert report.problems == []
    assert report.warnings == ([warning] if warning else [])
    assert kind is None or f'13 PNG, 1 {kind} ' in report.table


def test_leaks_are_found_whatever_the_name_and_the_format(here):
    write(Path('data/val_gt/7.bmp'), photo(5, 24, 38))
    Path('data/val_gt/7.png').unlink()
    write(Path('data/val_lq/7.png'), photo(30, 24, 38))
    assert check().warnings == [
        "data set 'tiny_val' has images of the training set, its results will look too good: "
        "'data/val_gt/7.bmp' is 'data/train_gt/5.png'"
    ]


def lmdb_options(path):
    with LmdbWriter(path) as writer:
        for seed in range(3):
            writer.put(f'{seed}', photo(seed, 24, 28))
    opt = stage('router')
    opt['datasets']['train']['sources'] = [{'dataroot_gt': path, 'degrade': {'type': 'noise'}}]
    del opt['datasets']['val']
    return opt


def test_lmdbs(here):
    opt = lmdb_options('data/x.lmdb')
    assert check(opt)[1:] == ([], [], 3)
    meta = Path('data/x.lmdb/meta_info.txt')
    meta.write_text('0.png (24,28,3) 1\n1.png (50,60,3) 1\nx.png (24,28,3) 1\n')
    report = check(opt)
    assert report.problems == [
        "LMDB 'data/x.lmdb' lacks 'x', which its meta_info.txt lists; make it again",
        "'data/x.lmdb/1.png' is 28 x 24 pixels, its meta_info.txt says 60 x 50; make the LMDB again",
    ]
    assert report.warnings == [
        "LMDB 'data/x.lmdb' holds 1 images that its meta_info.txt does not list; they are not used"
    ]
    meta.write_text('\ufeff0.png\r\n1.png 1\r\n2.png (24,28,3)\r\n', encoding='utf-8')
    assert check(opt)[1:] == ([], [], 3)


def test_missing_folders_do_not_hide_the_rest(here):
    shutil.rmtree('data/train_lq')
    Path('data/val_gt/8.png').write_bytes(b'')
    problems = check().problems
    assert problems[0].startswith("folder 'data/train_lq' does not exist")
    assert problems[1:] == ["image 'data/val_gt/8.png' is empty; copy it again or remove it"]


def test_weights_need_not_be_there_but_the_options_of_the_data_must_be_right(here):
    opt = stage('finetune')
    opt['path']['pretrain_network_g'] = 'gone.pth'
    del opt['train'], opt['logger']
    assert check(opt).problems == []
    opt['datasets']['train'] |= {'gt_size': 0, 'use_hflop': True}
    with pytest.raises(OptionsError) as caught:
        check(opt)
    assert str(caught.value).splitlines()[1] == (
        "finetune.yml: datasets.train.use_hflop: unknown key; did you mean 'use_hflip'?"
    )
    with pytest.raises(OptionsError, match='x.yml: datasets: found null, expected a mapping'):
        check({'model_type': 'SRModel', 'name': 'x'})


def test_data_sets_of_basicsr(here):
    write(Path('data/val_half/7.png'), photo(7, 12, 20))  # BasicSR cuts the ground truths of validations
    assert check(stage('sr'))[1:] == ([], [], 20)
    Path('data/train_half/0.png').write_bytes(b'')
    write(Path('data/train_half/2.png'), photo(2, 12, 17))
    assert check(stage('sr')).problems == [
        "image 'data/train_half/0.png' is empty; copy it again or remove it",
        "'data/train_half/2.png' is 17 x 12 pixels but its ground truth 'data/train_gt/2.png' is 32 x 24; "
        'it must be 2 times as large',
    ]
    Path('data/train_half/3.png').rename('data/train_half/three.png')
    partner = 'the names of a pair must agree except for the extension, or set match'
    problems = check(stage('sr')).problems
    assert problems[:3] == [
        'data set tiny_train: 3.png is not in lq_paths.',
        f"no partner in 'data/train_gt' for 'three' of 'data/train_half'; {partner}",
        f"no partner in 'data/train_half' for '3' of 'data/train_gt'; {partner}",
    ]
    assert len(problems) == 5


def test_lmdbs_of_basicsr_data_sets(here):
    opt = lmdb_options('data/gt.lmdb')
    shutil.copytree('data/gt.lmdb', 'data/lq.lmdb')
    roots = {'dataroot_lq': 'data/lq.lmdb', 'dataroot_gt': 'data/gt.lmdb', 'io_backend': {'type': 'lmdb'}}
    del opt['datasets']['train']['sources']
    opt['datasets']['train'] |= {'type': 'PairedImageDataset', **roots}
    report = check(opt)
    same = "'data/lq.lmdb/0.png', 'data/lq.lmdb/1.png', 'data/lq.lmdb/2.png'"
    assert report.problems == [] and report.images == 6
    assert report.warnings == [
        "data set 'tiny_train', PairedImageDataset: degraded images that are the same as their ground truth: " + same
    ]


def test_other_data_sets_are_read_sample_by_sample(here, monkeypatch):
    class Dataset:
        opt = {'name': 'tiny_train'}

        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 1:
                raise ValueError('bad luck')

    monkeypatch.setattr('lorair_arch.data.check.parts.build_dataset', lambda options: NamedDataset(Dataset()))
    opt = stage('sr')
    del opt['datasets']['val']
    report = check(opt)
    assert report.problems == ['data set tiny_train: sample 1 cannot be used (ValueError: bad luck); check the files']
    assert '| tiny_train | PairedImageDataset | 3 ' in report.table
