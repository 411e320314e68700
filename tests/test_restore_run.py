"""A run of `lorair restore`: its flags, shards, comparisons, log, and the overlap of its steps."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorair_arch import cli
from lorair_arch.data.images.photo import Photo
from lorair_arch.errors import DataError, OptionsError
from lorair_arch.restoring import folders, run
from lorair_arch.restoring.folders import restore_paths
from lorair_arch.restoring.marks import is_comparison
from lorair_arch.restoring.plan import Job
from lorair_arch.restoring.records import Records
from lorair_arch.restoring.settings import Settings
from tests.runs import files, lines, lorair, make


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


WRONG = {
    '--strength=1.5': '--strength: found 1.5, expected 0 to 1',
    '--strength=nan': '--strength: found nan, expected 0 to 1',
    '--quality=0': '--quality: found 0, expected 1 to 100',
    '--suffix=a/b': "--suffix: found 'a/b', expected a part of a file name",
    '--suffix=' + 'x' * 101: '--suffix: found 101 letters, expected a few',
    '--tile=0': "--tile: found '0', expected 'auto' or a number of pixels, such as 512",
    '--tile=big': "--tile: found 'big', expected 'auto' or a number of pixels, such as 512",
    '--shard=0/3': '--shard: found 0/3, expected 1/n to n/n',
    '--shard=4/3': '--shard: found 4/3, expected 1/n to n/n',
    '--shard=2': "--shard: found '2', expected i/n, such as 1/4",
    '--degradation=rain=x': "--degradation: found 'rain=x', expected NAME=WEIGHT, as in rain=0.7,noise=0.3",
    '--degradation=rain=-1': "--degradation: found 'rain=-1', expected NAME=WEIGHT, as in rain=0.7,noise=0.3",
    '--degradation=rain=1,rain=2': "--degradation: found 'rain' twice",
    '--degradation=rain=0': "--degradation: found 'rain=0', expected a weight above 0",
    '--log=photos/a.png': "--log: 'photos/a.png' is the name of an image: choose another",
    '--log=notes.txt': "--log: 'notes.txt' exists and is no log of lorair restore: choose another name",
    '--report=out/a.png': "--report: 'out/a.png' is the name of no page: let it end in .html",
    '--report=notes.txt': "--report: 'notes.txt' is the name of no page: let it end in .html",
    '--report=mine.html': "output 'mine.html' exists already: choose another name, or --overwrite to replace it",
}


@pytest.mark.parametrize('flag', WRONG)
def test_wrong_values(here, monkeypatch, capsys, flag):
    monkeypatch.setattr('lorair_arch.restoring.folders.Restorer', None)  # no weights are loaded
    make('photos/a.png')
    for name in ('notes.txt', 'mine.html'):
        Path(name).write_text('dear')
    assert lorair('photos', flag) == 2
    assert capsys.readouterr().err == f'error: {WRONG[flag]}\n'
    assert Path('notes.txt').read_text() == 'dear' and not Path('out').exists()


def test_a_page_never_takes_the_place_of_weights(here, inverting):
    make('photos/a.png')
    Path('w.pth').write_bytes(b'weights')
    assert cli.lorair(['restore', 'photos', '-o', 'out', '--weights', 'w.pth', '--report', 'w.pth', '--overwrite']) == 2
    assert Path('w.pth').read_bytes() == b'weights'


def test_what_does_not_fit_the_name_of_one_result(here, inverting):
    make('a.png')
    with pytest.raises(OptionsError, match="--format: found 'jpg', but output 'b.png' ends in .png: leave one of them"):
        restore_paths('a.png', 'b.png', 'w', format='jpg')
    with pytest.raises(OptionsError, match="--suffix: output 'b.png' is already the name of the result"):
        restore_paths('a.png', 'b.png', 'w', suffix='_x')
    for output, kind in (('b.png', 'same'), ('b.tiff', 'tif'), ('b.JPEG', 'jpg')):
        restore_paths('a.png', output, 'w', format=kind)
        assert Path(output).exists()


# shards


def test_shards_are_disjoint_and_complete_whatever_is_done(here, inverting):
    names = [f'photos/{i}.{kind}' for i in range(15) for kind in ('jpg', 'png')] + ['photos/x/0.jpg', 'more/3.jpg']
    make(*names)
    restore_paths(['photos', 'more'], 'whole', 'w')
    make('photos/unread.png')
    Path('photos/unread.png').write_bytes(b'x')
    inverting.clear()
    shares, failed = [], 0
    for i in (3, 1, 4, 2):
        before = set(files('out'))
        failed += lorair('photos', 'more', f'--shard={i}/4', '--log=log.jsonl')
        shares.append(set(files('out')) - before)
    assert sorted(set().union(*shares)) == files('whole') == files('out')
    assert sum(map(len, shares)) == len(names) == len(inverting)
    assert all(shares) and failed == 1
    assert len({line['input'] for line in lines()}) == len(lines()) == len(names) + 1
    assert lorair('photos/0.jpg', '--shard=1/2') + lorair('photos/0.jpg', '--shard=2/2') == 0  # one has nothing to do


# pictures of before and after


def test_comparisons_stand_beside_results_and_are_no_input(here, inverting, capsys):
    make('photos/a.jpg', 'photos/sub/b.png')
    assert lorair('photos', '--compare') == 0
    expected = ['a.compare.png', 'a.png', 'sub/b.compare.png', 'sub/b.png']
    assert files('out') == expected
    sheet = np.asarray(Image.open('out/a.compare.png'))
    assert sheet.shape == (24, 20, 3)
    original = np.asarray(Image.open('photos/a.jpg')).astype(int)
    assert np.abs(sheet[-8:, :8] - original).max() <= 1 and np.abs(255 - sheet[-8:, -8:] - original).max() <= 1
    assert lorair('photos', '--compare') == 0
    assert files('out') == expected and len(inverting) == 2
    assert lorair('out', output='again') == 0  # results are images like others, these are not
    assert files('again') == ['a.png', 'sub/b.png']
    assert lorair('photos', '--compare', output='photos/out') == lorair('photos', output='photos/out') == 0
    assert files('photos/out') == expected and len(inverting) == 6


def test_comparisons_collide_with_nothing(here, inverting):
    make('photos/a.jpg', 'photos/a.compare.jpg', 'photos/b.png', 'photos/b.compare.png')
    for more in ((), ('--compare',)):  # the names of results are the same in both runs
        assert lorair('photos', *more) == 0
        results = [name for name in files('out') if not is_comparison(f'out/{name}')]
        assert results == ['a.compare.jpg.png', 'a.jpg.png', 'b.compare.png.png', 'b.png.png']
    assert len(files('out')) == 8 and len(inverting) == 4
    make('out/c.compare.png', 'photos/c.png')
    before = Path('out/c.compare.png').read_bytes()
    assert lorair('photos', '--compare') == 0
    assert Path('out/c.compare.png').read_bytes() == before  # something else of the user's


def test_comparisons_are_made_up_for_and_renewed(here, inverting):
    make('photos/a.jpg')
    assert lorair('photos') == 0
    assert lorair('photos', '--compare') == 0
    first = Path('out/a.compare.png').read_bytes()
    make('photos/bb.jpg')
    os.replace('photos/bb.jpg', 'photos/a.jpg')
    assert lorair('photos', '--compare', '--overwrite') == 0
    assert Path('out/a.compare.png').read_bytes() != first
    assert len(inverting) == 2


# the log


def test_the_log_has_a_line_for_each_image(here, inverting):
    make('photos/a.png', 'photos/c.png')
    Path('photos/b.png').write_bytes(b'x')
    Path('photos/d.svg').write_text('<svg></svg>')
    assert lorair('photos', '--log', 'logs/log.jsonl') == 1
    found = lines('logs/log.jsonl')
    assert [line['input'] for line in found] == ['photos/d.svg', 'photos/a.png', 'photos/b.png', 'photos/c.png']
    assert found[0]['output'] is None and found[0]['error'].endswith('is an SVG file; save it as PNG')
    assert found[1].pop('seconds') >= 0
    assert found[1] == {
        'input': 'photos/a.png',
        'output': 'out/a.png',
        'status': 'restored',
        'error': None,
        'width': 8,
        'height': 8,
        'tile': None,
        'degradations': {'noise': 0.25, 'rain': 0.75},
    }
    assert found[2]['status'] == 'failed' and found[2]['error'].startswith("cannot decode image 'photos/b.png'")
    Path('photos/b.png').unlink()
    Path('photos/d.svg').unlink()
    with open('logs/log.jsonl', 'a') as file:  # a power cut
        file.write('{"input": "photos/a')
    assert lorair('photos', '--log', 'logs/log.jsonl') == 0
    assert [line['status'] for line in lines('logs/log.jsonl')[4:]] == ['skipped', 'skipped']


def test_half_a_line_of_another_run_is_left_to_it(here, inverting):
    make('photos/a.png')
    assert lorair('photos', '--log=log.jsonl') == 0
    other = Records(Path('log.jsonl'))
    with open('log.jsonl', 'ab') as file:
        file.write(b'{"input": ')
    Records(Path('log.jsonl')).close()
    with open('log.jsonl', 'ab') as file:
        file.write(b'"b"}\n')
    other.close()
    Records(Path('log.jsonl')).close()
    assert [line['input'] for line in lines()] == ['photos/a.png', 'b']


def test_names_of_any_bytes_are_logged(here, inverting):
    name = os.fsdecode(b'photos/caf\xe9.png')
    make('photos/x.png')
    os.rename('photos/x.png', name)
    assert lorair('photos', '--log=log.jsonl', '--report=page.html') == 0
    assert lines()[0]['input'] == name


def test_exit_codes(here, inverting, capsys):
    make('photos/a.png')
    assert lorair('photos') == 0
    assert lorair('gone') == 2
    Path('photos/b.png').write_bytes(b'x')
    assert lorair('photos') == 1
    assert lorair('photos/b.png') == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: cannot decode image 'photos/b.png': it is dam")


def test_every_failure_names_its_image(here, inverting, monkeypatch, capsys):
    make('photos/a.png', 'photos/b.png')

    def fail(*_):
        raise DataError('an image of 8 x 8 pixels does not fit into the memory of this machine: end other programs')

    monkeypatch.setattr(folders.Restorer, 'restore', fail)
    assert lorair('photos') == 1
    assert "error: 'photos/b.png': an image of 8 x 8 pixels does not fit" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(run, 'encode_photo', fail)
    outcome = run.Steps(None, Settings()).write(
        run._Work(run.Outcome(Job(Path('photos/a.png'), Path('out/a.png'), 'a.png')), None, Photo(np.zeros((8, 8))))
    )
    assert outcome.error.startswith("'photos/a.png': an image of 8 x 8")


# reading, restoring and writing


def test_steps_overlap_in_bounded_memory(here, inverting, monkeypatch):
    make(*(f'photos/{i}.png' for i in range(6)))
    lock, counts, most, seen = threading.Lock(), [0, 0], [0, 0], threading.Event()

    def counted(function, place, step):
        def call(*args):
            with lock:
                counts[place] += step
                most[place] = max(most[place], counts[place])
                if counts[0] > 1:
                    seen.set()
            return function(*args)

        return call

    # Read and not yet written: one ahead, one being restored, one being written.
    monkeypatch.setattr(run, 'read_photo', counted(run.read_photo, 0, 1))
    monkeypatch.setattr(run, 'write_file', counted(run.write_file, 0, -1))
    monkeypatch.setattr(
        run.Steps, 'restore', lambda self, work, do=run.Steps.restore: (seen.wait(5), do(self, work))[1]
    )
    restore_paths('photos', 'out', 'w')
    assert 2 <= most[0] <= 3 and seen.is_set()
    assert len(files('out')) == 6


def test_abandoned_files_are_removed_and_no_others(here, inverting):
    make('photos/a.png', 'out/x.png')
    hours = time.time() - 7200
    for name in ('.12-0a1b2c3d.tmp', '.mine.tmp', '.12-0a1b2c3d.tmp2', '.13-0a1b2c3d.tmp'):
        Path('out', name).write_bytes(b'x')
        if name[:3] != '.13':
            os.utime(Path('out', name), (hours, hours))
    assert lorair('photos') == 0
    assert files('out') == ['.12-0a1b2c3d.tmp2', '.13-0a1b2c3d.tmp', '.mine.tmp', 'a.png', 'x.png']
