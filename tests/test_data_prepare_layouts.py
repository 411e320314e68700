"""`lorair data prepare` where folders, names and images are not as expected, and as a command."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from lorair_arch import cli
from lorair_arch.data.prepare.prepare import BENCHMARKS, prepare
from lorair_arch.data.prepare.wrong import not_found
from lorair_arch.errors import DataError, OptionsError
from tests.photos import photo, write
from tests.prepared import check_pairs, contents, lmdbs, look, same_images, stored
from tests.releases import put, release

# BasicSR can be imported from here on.
# isort: split
from basicsr.data.paired_image_dataset import PairedImageDataset


def test_a_folder_too_low_and_too_high(tmp_path):
    release(tmp_path / 'x', 'lol_v1')
    with pytest.raises(DataError) as error:
        prepare('lol_v1', str(tmp_path / 'x/LOLdataset/our485/low'), str(tmp_path / 'out'))
    above = tmp_path / 'x/LOLdataset/our485'
    assert str(error.value) == (
        f"'{above}/low' is not lol_v1: found what belongs below '{above}', so name that folder with --from"
    )
    report = prepare('lol_v1', str(above), str(tmp_path / 'out'))
    assert [row[0] for row in report.rows] == ['train']
    assert report.notes[0] == "'test' is not there, looked for 'eval15/low/{id}'"
    release(tmp_path / 'copy', 'lol_v1')
    with pytest.raises(DataError) as error:
        prepare('lol_v1', str(tmp_path), str(tmp_path / 'out'))
    assert str(error.value).startswith("'our485/low/{id}' of lol_v1 is there more than once, in '")
    with pytest.raises(DataError) as error:
        prepare('gopro', str(tmp_path / 'x'), str(tmp_path / 'out'))
    assert 'looks like lol_v1' in str(error.value)


def test_half_a_benchmark(tmp_path):
    for i in (1, 2):
        put(tmp_path / f'x/our485/low/{i}')
    with pytest.raises(DataError) as error:
        prepare('lol_v1', str(tmp_path / 'x'), str(tmp_path / 'out'))
    assert str(error.value) == (
        f"'{tmp_path}/x' is not lol_v1: found images 'our485/low/{{id}}' but none 'our485/high/{{id}}' that belongs to "
        'one of them: get these too, or name the folder above both with --from'
    )
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match=r"^'.*/empty' holds no images: expected 'our485/low/\{id\}' and 'our485/high/"):
        prepare('lol_v1', str(tmp_path / 'empty'), str(tmp_path / 'out'))
    with pytest.raises(DataError, match=r"^'.*/nothing' does not exist \(looked for from '.*'\); check --from$"):
        prepare('lol_v1', str(tmp_path / 'nothing'), str(tmp_path / 'out'))
    with pytest.raises(OptionsError, match="^NAME: found 'lolv1', expected a benchmark; did you mean 'lol_v1'"):
        prepare('lolv1', str(tmp_path / 'x'))


def test_the_lists_of_realblur(tmp_path):
    release(tmp_path / 'x', 'realblur')
    (tmp_path / 'x/RealBlur_J_test_list.txt').unlink()
    report = prepare('realblur', str(tmp_path / 'x'), str(tmp_path / 'out'))
    assert [row[0] for row in report.rows] == ['j_train', 'r_train', 'r_test']
    assert report.notes[0] == "'j_test' is not there, needs 'RealBlur_J_test_list.txt' beside it"
    for path in (tmp_path / 'x').glob('*.txt'):
        path.unlink()
    with pytest.raises(DataError) as error:
        prepare('realblur', str(tmp_path / 'x'), str(tmp_path / 'out'))
    assert str(error.value) == (
        f"'{tmp_path}/x' is not realblur: found its images but no 'RealBlur_J_train_list.txt', which says what is "
        "'j_train': put it beside them"
    )


def test_a_list_in_another_encoding(tmp_path):
    files = release(tmp_path / 'x', 'snow100k')
    path = tmp_path / 'x/allweather.txt'
    text = path.read_text()
    path.write_text(text, encoding='utf-16')  # with its mark, as Windows writes it
    check_pairs(prepare('snow100k', str(tmp_path / 'x'), str(tmp_path / 'out')), files)
    path.write_text(text, encoding='utf-16-le')
    with pytest.raises(DataError) as error:
        prepare('snow100k', str(tmp_path / 'x'), str(tmp_path / 'again'))
    assert str(error.value) == (
        "'x/allweather.txt' is not a text in UTF-8 (a NUL in line 1: UTF-16 without its byte order mark, maybe); save "
        'it as UTF-8'
    )


def test_some_parts_alone(tmp_path):
    files = release(tmp_path / 'x', 'gopro')
    files['train'][0][1].unlink()
    report = prepare('gopro', str(tmp_path / 'x'), str(tmp_path / 'out'), parts=['test'])
    assert report.mistakes == [] and not [note for note in report.notes if 'train' in note and 'elsewhere' not in note]
    check_pairs(report, {'test': files['test']})
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['test_gt.lmdb', 'test_lq.lmdb']
    with pytest.raises(OptionsError, match="^--parts: found 'tset', expected parts of gopro; did you mean 'test'"):
        prepare('gopro', str(tmp_path / 'x'), str(tmp_path / 'out'), parts=['tset'])
    release(tmp_path / 'y', 'realblur')
    (tmp_path / 'y/RealBlur_J_test_list.txt').unlink()
    with pytest.raises(DataError, match=r"^'j_test' is not there, needs '.*' beside it\nnothing of '.*' can be used$"):
        prepare('realblur', str(tmp_path / 'y'), str(tmp_path / 'out'), parts=['j_test'])


def test_names_that_differ_in_a_space(tmp_path):
    files = release(tmp_path / 'x', 'raindrop')
    gt = files['test_a'][0][1]
    gt.rename(gt.with_name('0 _clean.png'))
    report = prepare('raindrop', str(tmp_path / 'x'), str(tmp_path / 'out'))
    assert report.mistakes == [
        "no ground truth 'test_a/gt/{id}_clean' for 'x/test_a/data/0_rain.png'",
        "left out 'x/test_a/gt/0 _clean.png', whose names do not fit 'test_a/gt/{id}_clean'; rename or remove them",
    ]


def test_two_images_of_one_name(tmp_path):
    files = release(tmp_path / 'x', 'folder')
    lq = files['images'][0][0]
    put(lq.with_suffix('.jpg'))
    put(tmp_path / 'x/lq/a_b')
    put(tmp_path / 'x/gt/a_b')
    report = prepare('folder', str(tmp_path / 'x'), str(tmp_path / 'out'))
    assert report.mistakes == [
        "'x/lq/a/1.jpg' has the key 'a/1' already, so left out is 'x/lq/a/1.png'; remove one of them",
        "'x/lq/a.b.png' has the key 'a_b' already, so left out is 'x/lq/a_b.png'; remove one of them",
    ]


@pytest.mark.parametrize(
    ('lqs', 'gts', 'pairs'),
    [
        (('A', 'a'), ('A', 'a'), {'A': 'A', 'a': 'a'}),
        (('A', 'a'), ('A',), {'A': 'A'}),
        (('a',), ('A', 'a'), {'a': 'a'}),
        (('Ab',), ('aB',), {'Ab': 'aB'}),
        (('AB', 'ab', 'x'), ('Ab', 'x'), {'x': 'x'}),  # whose is it?
    ],
)
def test_names_that_differ_in_case_alone(tmp_path, lqs, gts, pairs):
    names = {'lq': lqs, 'gt': gts}
    files = {side: {name: put(tmp_path / f'x/{side}/{name}') for name in names[side]} for side in names}
    if len(list(tmp_path.rglob('*.png'))) < len(lqs) + len(gts):
        pytest.skip('the disk does not tell cases apart')
    report = prepare('folder', str(tmp_path / 'x'), str(tmp_path / 'out'))
    roots = lmdbs(report, 'images')
    assert contents(roots['lq']) == {lq: files['lq'][lq].read_bytes() for lq in pairs}
    assert contents(roots['gt']) == {lq: files['gt'][gt].read_bytes() for lq, gt in pairs.items()}
    alone = [f'x/lq/{name}.png' for name in lqs if name not in pairs]
    alone += [f'x/gt/{name}.png' for name in gts if name not in pairs.values()]
    told = report.mistakes + report.notes
    assert len(told) == len(alone) and all(any(f"'{name}'" in line for line in told) for name in alone)


def test_the_border_of_indoor_ground_truths(tmp_path):
    gt = put(tmp_path / 'x/nyuhaze500/gt/1400', (68, 60))
    put(tmp_path / 'x/nyuhaze500/hazy/1400_1')
    put(tmp_path / 'x/nyuhaze500/hazy/1400_2', (47, 40))
    report = prepare('sots', str(tmp_path / 'x'), str(tmp_path / 'out'))
    assert len(report.mistakes) == 1 and "'x/nyuhaze500/hazy/1400_2.png' is 40 x 47" in report.mistakes[0]
    assert np.array_equal(stored(lmdbs(report, 'indoor')['gt'])[0], look(gt)[10:-10, 10:-10])


def test_basicsr_reads_what_is_prepared(tmp_path):
    files = release(tmp_path / 'x', 'ots')
    roots = lmdbs(prepare('ots', str(tmp_path / 'x'), str(tmp_path / 'out')), 'train')
    options = {f'dataroot_{side}': root for side, root in roots.items()} | {'phase': 'val', 'scale': 1}
    dataset = PairedImageDataset({**options, 'io_backend': {'type': 'lmdb'}})
    assert len(dataset) == len(files['train'])
    found = [np.rint(dataset[i]['lq'].permute(1, 2, 0).numpy() * 255).astype(np.uint8) for i in range(len(dataset))]
    assert same_images(found, [look(lq) for lq, _ in files['train']])


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files = release(tmp_path / 'x', 'polyu')
    arguments = ['data', 'prepare', 'polyu', '--from', 'x']
    assert cli.lorair(arguments) == 0
    out, err = capsys.readouterr()
    roots = 'datasets/polyu/test_lq.lmdb, datasets/polyu/test_gt.lmdb'
    assert f'| test   | 2       | 100     | 2          | 40 x 48    | 40 x 48   | {roots} |\n' in out
    assert out.endswith(
        'sources:\n  - {degradation: noise, dataroot_lq: datasets/polyu/test_lq.lmdb, '
        'dataroot_gt: datasets/polyu/test_gt.lmdb}\n'
    )
    assert err.splitlines() == [
        "warning: 1 images elsewhere are left alone, such as 'x/OriginalImages/Canon5D2_chair/0001.JPG'",
        "warning: 'test' has 2 of 100 pairs",
        "warning: 'test' has 2 images that are not 512 x 512 pixels",
    ]
    files['test'][0][1].unlink()
    assert cli.lorair([*arguments, '--out', 'again']) == 1
    assert "error: no ground truth 'CroppedImages/{name}_mean' for 'x/Crop" in capsys.readouterr().err
    assert cli.lorair(['data', 'prepare', 'gopro', '--from', 'x']) == 2


def test_the_readme_is_up_to_date(monkeypatch):
    script = Path(__file__).parents[1] / 'scripts/data_preparation/datasets_readme.py'
    monkeypatch.setattr(sys, 'argv', [str(script), '--check'])
    runpy.run_path(str(script), run_name='__main__')


def test_one_folder_in_another_system(tmp_path):
    """A link for a folder, and an accent as a character of its own."""
    put(tmp_path / 'real/lq/e\u0301')
    put(tmp_path / 'real/gt/\u00e9')
    os.symlink(tmp_path / 'real', tmp_path / 'link')
    assert prepare('folder', str(tmp_path / 'link'), str(tmp_path / 'out')).mistakes == []


@pytest.mark.parametrize(
    ('name', 'part', 'lq', 'gt'),
    [
        ('rain100l', 'train', 'Train/Derain/rainy/rain-1.png', 'Train/Derain/gt/norain-1.png'),
        ('rain100l', 'train', 'RainTrainL/rain-1.png', 'RainTrainL/norain-1.png'),
        ('rain100l', 'test', 'test/derain/Rain100L/input/1.png', 'test/derain/Rain100L/target/1.png'),
        ('rain100h', 'test', 'Rain100H/rain-001.png', 'Rain100H/norain-001.png'),
        ('rain100h', 'test', 'Rain100H/rainy/rain-001.png', 'Rain100H/norain-001.png'),
        ('sots', 'outdoor', 'test/dehaze/input/0001_0.8_0.2.jpg', 'test/dehaze/target/0001.png'),
        ('ots', 'train', 'Train/Dehaze/synthetic/part1/0025_0.8_0.1.jpg', 'Train/Dehaze/original/0025.jpg'),
        (
            'outdoor_rain',
            'test1',
            'CVPR19RainTrain/test/data/im_0001_s80_a04.png',
            'CVPR19RainTrain/test/gt/im_0001.png',
        ),
        ('gopro', 'test', 'test/GoPro/input/GOPR0384_11_00-000001.png', 'test/GoPro/target/GOPR0384_11_00-000001.png'),
        ('hide', 'test', 'test/HIDE/input/1fromGOPR1096.png', 'test/HIDE/target/1fromGOPR1096.png'),
        ('realblur', 'j_test', 'test/RealBlur_J/input/scene001-1.png', 'test/RealBlur_J/target/scene001-1.png'),
    ],
)
def test_well_known_copies(tmp_path, name, part, lq, gt):
    write(tmp_path / 'x' / lq, photo(1))
    write(tmp_path / 'x' / gt, photo(2))
    report = prepare(name, str(tmp_path / 'x'), str(tmp_path / 'out'))
    assert [row[0] for row in report.rows] == [part]
    assert report.mistakes == []
    assert list(contents(str(tmp_path / f'out/{part}_gt.lmdb'))) == [Path(lq).stem.replace('.', '_')]


@pytest.mark.parametrize(
    ('other', 'names'),
    [
        ('rain13k', [f'Rain13K/{side}/{i}.jpg' for side in ('input', 'target') for i in range(4_001)]),
        (
            'ots',
            [f'haze/part1/{i:04}_{a}_0.{b}.jpg' for i in range(1_001) for a in (0.8, 1) for b in (1, 2, 3)]
            + [f'clear/{i:04}.jpg' for i in range(1_001)],
        ),
        (
            'gopro',
            [f'train/{scene}/{side}/{i}.png' for scene in range(22) for side in ('blur', 'sharp') for i in range(201)],
        ),
    ],
)
def test_a_large_release_of_another_benchmark(other, names):
    names = [f'x/{name}' for name in names]
    told = not_found(BENCHMARKS['lol_v1'], 'x', names, BENCHMARKS)
    assert f'what looks like {other} (' in told
