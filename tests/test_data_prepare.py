"""`lorair data prepare`: every benchmark in miniature, as its authors distribute it, and what may be wrong with it."""

from __future__ import annotations

import os
import re
import runpy
import sys
import zipfile
from pathlib import Path

import lmdb
import numpy as np
import pytest
import yaml

from lorair_arch import cli
from lorair_arch.data.images.reading import decode_image, read_bytes
from lorair_arch.data.prepare.prepare import BENCHMARKS, prepare
from lorair_arch.data.stores import open_store
from lorair_arch.errors import DataError, OptionsError
from lorair_arch.metrics.protocols import PROTOCOLS
from tests.releases import BESIDE, RELEASES, TEXTS, put, release

# BasicSR can be imported from here on.
# isort: split
from basicsr.data.paired_image_dataset import PairedImageDataset


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch):
    monkeypatch.setattr(os, 'fsync', lambda descriptor: None)
    opened = lmdb.open
    monkeypatch.setattr(lmdb, 'open', lambda *args, **options: opened(*args, **{**options, 'sync': False}))


PAIRED = [name for name, parts in RELEASES.items() if all(lq for pairs in parts.values() for lq, _ in pairs)]


def lmdbs(report, part: str) -> dict[str, str]:
    """Gives the LMDBs of a part, as the report lists them for an options file."""
    sources = yaml.safe_load(report.text.split('\n\n')[1])['sources']
    source = sources[[row[0] for row in report.rows].index(part)]
    return {key[-2:]: root for key, root in source.items() if key.startswith('dataroot')}


def stored(root: str) -> list[np.ndarray]:
    store = open_store(root)
    return [store.load(key) for key in store.keys]


def look(path: Path) -> np.ndarray:
    return decode_image(read_bytes(path), str(path))


def same_images(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return sorted(image.tobytes() for image in some) == sorted(image.tobytes() for image in others)


def check_pairs(report, files) -> None:
    assert {row[0] for row in report.rows} == set(files)
    for part, pairs in files.items():
        roots = lmdbs(report, part)
        both = [np.stack([look(path) for path in pair if path]) for pair in pairs]
        if 'lq' in roots:
            assert open_store(roots['lq']).keys == open_store(roots['gt']).keys
            found = [np.stack(pair) for pair in zip(stored(roots['lq']), stored(roots['gt']), strict=True)]
        else:
            found = [image[None] for image in stored(roots['gt'])]
        assert same_images(found, both), part


def test_every_benchmark_has_a_miniature():
    assert set(RELEASES) == set(BENCHMARKS)
    for name, benchmark in BENCHMARKS.items():
        assert set(RELEASES[name]) == {part.name for part in benchmark.parts}, name


def test_protocols_are_those_of_evaluating():
    assert {benchmark.protocol for benchmark in BENCHMARKS.values()} <= {*PROTOCOLS, None, 'not established'}


@pytest.mark.parametrize('name', RELEASES)
def test_a_release(tmp_path, name):
    files = release(tmp_path / 'downloads', name)
    report = prepare(name, str(tmp_path / 'downloads'), str(tmp_path / 'out'))
    assert report.mistakes == []
    check_pairs(report, files)
    for row, part in zip(sorted(report.rows), sorted(BENCHMARKS[name].parts, key=lambda part: part.name), strict=True):
        assert row[:4] == (part.name, len(files[part.name]), part.pairs or '?', len(files[part.name]))
        what = 'pairs' if name in PAIRED else 'images'
        counted = f"'{part.name}' has {len(files[part.name])} of {part.pairs} {what}"
        assert (counted in report.notes) == (part.pairs is not None)
    for path in BESIDE.get(name, []):
        assert any(f'{path}.' in f'{note}.' or path in note for note in report.notes)


@pytest.mark.parametrize('name', RELEASES)
def test_its_archive(tmp_path, name):
    files = release(tmp_path / 'downloads', name)
    with zipfile.ZipFile(tmp_path / 'release.zip', 'w') as archive:
        for path in sorted((tmp_path / 'downloads').rglob('*.*')):
            if path.is_file():
                archive.write(path, path.relative_to(tmp_path / 'downloads'))
    report = prepare(name, str(tmp_path / 'release.zip'), str(tmp_path / 'out'))
    assert report.mistakes == []
    check_pairs(report, files)
    assert not [path for path in (tmp_path / 'out').iterdir() if path.suffix != '.lmdb']
    content = (tmp_path / 'release.zip').read_bytes()
    (tmp_path / 'release.zip').write_bytes(content[: len(content) // 2])
    with pytest.raises(
        DataError, match=r"^archive '.*release\.zip' is cut short or damaged \(.*\); download it again$"
    ):
        prepare(name, str(tmp_path / 'release.zip'), str(tmp_path / 'again'))


def first_pair(files) -> tuple[Path | None, Path]:
    return next(pairs[0] for pairs in files.values())


@pytest.mark.parametrize('name', PAIRED)
def test_a_missing_ground_truth(tmp_path, name):
    files = release(tmp_path / 'x', name)
    alone, gone = first_pair(files)
    gone.unlink()
    report = prepare(name, str(tmp_path / 'x'), str(tmp_path / 'out'))
    told = [mistake for mistake in report.mistakes if f"'{alone.relative_to(tmp_path)}'" in mistake]
    assert len(told) == 1 and told[0].startswith("no ground truth '")
    lacking = [lq for pairs in files.values() for lq, gt in pairs if not gt.exists()]
    assert len(report.mistakes) == len(set(lacking))
    left = {part: [pair for pair in pairs if pair[1].exists()] for part, pairs in files.items()}
    check_pairs(report, {part: pairs for part, pairs in left.items() if pairs})


@pytest.mark.parametrize('name', PAIRED)
def test_a_missing_degraded_image(tmp_path, name):
    files = release(tmp_path / 'x', name)
    gone, alone = first_pair(files)
    gone.unlink()
    report = prepare(name, str(tmp_path / 'x'), str(tmp_path / 'out'))
    shared = any(gt == alone for pairs in files.values() for lq, gt in pairs if lq != gone)
    told = [line for line in report.mistakes + report.notes if f"'{alone.relative_to(tmp_path)}'" in line]
    # a list that comes along says which pairs there are
    assert len(told) == (0 if shared or name == 'realblur' else 1)
    left = {part: [pair for pair in pairs if pair[0].exists()] for part, pairs in files.items()}
    check_pairs(report, {part: pairs for part, pairs in left.items() if pairs})


@pytest.mark.parametrize('name', RELEASES)
def test_an_extra_image(tmp_path, name):
    files = release(tmp_path / 'x', name)
    beside = first_pair(files)[1]
    extra = put(beside.with_name(f'surely (1) no{beside.suffix}'))
    report = prepare(name, str(tmp_path / 'x'), str(tmp_path / 'out'))
    told = [line for line in report.mistakes + report.notes if f"'{extra.relative_to(tmp_path)}'" in line]
    assert len(told) == 1
    check_pairs(report, files)


@pytest.mark.parametrize('name', PAIRED)
def test_a_wrong_size(tmp_path, name):
    files = release(tmp_path / 'x', name)
    lq, gt = first_pair(files)
    put(lq, (48, 39))
    report = prepare(name, str(tmp_path / 'x'), str(tmp_path / 'out'))
    parts = [part for part, pairs in files.items() if (lq, gt) in pairs and len(pairs) > 1]
    lq, gt = (path.relative_to(tmp_path) for path in (lq, gt))
    rule = 'the images of a pair must have the same size'
    told = f"'{lq}' is 39 x 48 pixels but its ground truth '{gt}' is 40 x 48; {rule}"
    assert set(report.mistakes) == {told} and len(parts) <= len(report.mistakes)


@pytest.mark.parametrize('name', RELEASES)
def test_a_damaged_image(tmp_path, name):
    files = release(tmp_path / 'x', name)
    damaged = first_pair(files)[1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    report = prepare(name, str(tmp_path / 'x'), str(tmp_path / 'out'))
    assert report.mistakes
    assert all(f"'{damaged.relative_to(tmp_path)}'" in mistake for mistake in report.mistakes)
    left = {part: [pair for pair in pairs if pair[1] != damaged] for part, pairs in files.items()}
    assert sum(row[3] for row in report.rows) == sum(map(len, left.values()))


@pytest.mark.parametrize('name', RELEASES)
def test_another_benchmark(tmp_path, name):
    other = 'polyu' if name == 'lol_v1' else 'lol_v1'
    release(tmp_path / 'x', other)
    with pytest.raises(DataError) as error:
        prepare(name, str(tmp_path / 'x'), str(tmp_path / 'out'))
    message = str(error.value)
    assert message.startswith(f"'{tmp_path}/x' is not {name}: found '")
    assert f'what looks like {other} ({BENCHMARKS[other].title}); expected ' in message
    assert '\n' not in message and not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', RELEASES)
def test_upper_case(tmp_path, name):
    files = release(tmp_path / 'x', name)
    lq, gt = first_pair(files)
    gt.rename(gt.with_name(gt.name.upper()))
    if name in TEXTS or sum(pair[1] == gt for pairs in files.values() for pair in pairs) > 1:
        return
    report = prepare(name, str(tmp_path / 'x'), str(tmp_path / 'out'))
    assert report.mistakes == []
    renamed = (lq, gt.with_name(gt.name.upper()))
    check_pairs(report, {p: [renamed if pair == (lq, gt) else pair for pair in v] for p, v in files.items()})


@pytest.mark.parametrize('name', PAIRED)
def test_a_folder_too_low(tmp_path, name):
    """One sentence says so, and what it names is right."""
    files = release(tmp_path / 'x', name)
    low = first_pair(files)[0].parent
    if low == first_pair(files)[1].parent:  # both images of a pair, which is enough
        return
    with pytest.raises(DataError) as error:
        prepare(name, str(low), str(tmp_path / 'out'))
    before, rest = f"'{low}' is not {name}: found ", 'get these too, or name the folder above both with --from'
    advice = re.fullmatch(f"{before}what belongs below '(.*)', so name that folder with --from", str(error.value))
    assert advice or re.fullmatch(
        f"{before}images '.*' but none '.*' that belongs to one of them: {rest}", str(error.value)
    )
    if name not in TEXTS:
        assert prepare(name, advice[1] if advice else str(low.parent), str(tmp_path / 'out')).rows


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
