"""`lorair data prepare`: every benchmark in miniature, as its authors distribute it, and what may be wrong with it."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import lmdb
import pytest

from lorair_arch.data.prepare.prepare import BENCHMARKS, prepare
from lorair_arch.errors import DataError
from lorair_arch.metrics.protocols import PROTOCOLS
from tests.prepared import check_pairs
from tests.releases import BESIDE, RELEASES, TEXTS, put, release


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch):
    monkeypatch.setattr(os, 'fsync', lambda descriptor: None)
    opened = lmdb.open
    monkeypatch.setattr(lmdb, 'open', lambda *args, **options: opened(*args, **{**options, 'sync': False}))


PAIRED = [name for name, parts in RELEASES.items() if all(lq for pairs in parts.values() for lq, _ in pairs)]


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


def prepared(tmp_path: Path, name: str):
    return prepare(name, str(tmp_path / 'x'), str(tmp_path / 'out'))


def check_what_is_left(report, files) -> None:
    """Everything is prepared but the pairs that have lost an image."""
    left = {
        part: [pair for pair in pairs if all(path.exists() for path in pair if path)] for part, pairs in files.items()
    }
    check_pairs(report, {part: pairs for part, pairs in left.items() if pairs})


@pytest.mark.parametrize('name', PAIRED)
def test_a_missing_ground_truth(tmp_path, name):
    files = release(tmp_path / 'x', name)
    alone, gone = first_pair(files)
    gone.unlink()
    report = prepared(tmp_path, name)
    told = [mistake for mistake in report.mistakes if f"'{alone.relative_to(tmp_path)}'" in mistake]
    assert len(told) == 1 and told[0].startswith("no ground truth '")
    lacking = {lq for pairs in files.values() for lq, gt in pairs if not gt.exists()}
    assert len(report.mistakes) == len(lacking)
    check_what_is_left(report, files)


@pytest.mark.parametrize('name', PAIRED)
def test_a_missing_degraded_image(tmp_path, name):
    files = release(tmp_path / 'x', name)
    gone, alone = first_pair(files)
    gone.unlink()
    report = prepared(tmp_path, name)
    shared = any(gt == alone for pairs in files.values() for lq, gt in pairs if lq != gone)
    told = [line for line in report.mistakes + report.notes if f"'{alone.relative_to(tmp_path)}'" in line]
    # a list that comes along says which pairs there are
    assert len(told) == (0 if shared or name == 'realblur' else 1)
    check_what_is_left(report, files)


@pytest.mark.parametrize('name', RELEASES)
def test_an_extra_image(tmp_path, name):
    files = release(tmp_path / 'x', name)
    beside = first_pair(files)[1]
    extra = put(beside.with_name(f'surely (1) no{beside.suffix}'))
    report = prepared(tmp_path, name)
    told = [line for line in report.mistakes + report.notes if f"'{extra.relative_to(tmp_path)}'" in line]
    assert len(told) == 1
    check_pairs(report, files)


@pytest.mark.parametrize('name', PAIRED)
def test_a_wrong_size(tmp_path, name):
    files = release(tmp_path / 'x', name)
    lq, gt = first_pair(files)
    put(lq, (48, 39))
    report = prepared(tmp_path, name)
    names = [path.relative_to(tmp_path) for path in (lq, gt)]
    rule = 'the images of a pair must have the same size'
    assert report.mistakes == [f"'{names[0]}' is 39 x 48 pixels but its ground truth '{names[1]}' is 40 x 48; {rule}"]
    lq.unlink()
    check_what_is_left(report, files)


@pytest.mark.parametrize('name', RELEASES)
def test_a_damaged_image(tmp_path, name):
    files = release(tmp_path / 'x', name)
    damaged = first_pair(files)[1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    report = prepared(tmp_path, name)
    assert report.mistakes
    assert all(f"'{damaged.relative_to(tmp_path)}'" in mistake for mistake in report.mistakes)
    damaged.unlink()
    check_what_is_left(report, files)


@pytest.mark.parametrize('name', RELEASES)
def test_another_benchmark(tmp_path, name):
    other = 'polyu' if name == 'lol_v1' else 'lol_v1'
    release(tmp_path / 'x', other)
    with pytest.raises(DataError) as error:
        prepared(tmp_path, name)
    message = str(error.value)
    assert message.startswith(f"'{tmp_path}/x' is not {name}: found '")
    assert f'what looks like {other} ({BENCHMARKS[other].title}); expected ' in message
    assert '\n' not in message and not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', RELEASES)
def test_another_case(tmp_path, name):
    files = release(tmp_path / 'x', name)
    before = first_pair(files)[1]
    after = before.rename(before.with_name(before.name.swapcase()))
    assert after.name != before.name
    report = prepared(tmp_path, name)
    assert report.mistakes == []
    check_pairs(report, {part: [(lq, after if gt == before else gt) for lq, gt in files[part]] for part in files})


# Of PolyU, one folder holds both images of a pair, and is enough.
@pytest.mark.parametrize('name', [name for name in PAIRED if name != 'polyu'])
def test_a_folder_too_low(tmp_path, name):
    """One sentence says so, and what it names is right."""
    files = release(tmp_path / 'x', name)
    low = first_pair(files)[0].parent
    with pytest.raises(DataError) as error:
        prepare(name, str(low), str(tmp_path / 'out'))
    before, rest = f"'{low}' is not {name}: found ", 'get these too, or name the folder above both with --from'
    advice = re.fullmatch(f"{before}what belongs below '(.*)', so name that folder with --from", str(error.value))
    assert advice or re.fullmatch(
        f"{before}images '.*' but none '.*' that belongs to one of them: {rest}", str(error.value)
    )
    if name not in TEXTS:
        assert prepare(name, advice[1] if advice else str(low.parent), str(tmp_path / 'out')).rows
