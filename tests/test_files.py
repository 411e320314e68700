"""What is written is there whole, or nothing of it; what exists is replaced only if the user asks for it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from lorair_arch import cli
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.writing import encode_photo, write_photo
from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.errors import CheckpointError, DataError, OutputError
from lorair_arch.files import check_folder, check_output, fitting, write_file, write_json, writing
from lorair_arch.restoring.folders import restore_paths
from lorair_arch.restoring.plan import LONGEST_SIDES
from lorair_arch.weights.files import save_file
from tests import tiny
from tests.disks import disk, fill

NOISE = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
WRITERS = {
    'bytes': (lambda path: write_file(path, bytes(300_000)), OutputError),
    'JSON': (lambda path: write_json(path, ['x'] * 60_000), OutputError),
    'image.png': (lambda path: write_photo(path, Photo(NOISE, None)), OutputError),
    'weights.pth': (lambda path: save_file({'params': {'w': torch.rand(99_000)}}, path), CheckpointError),
    'weights.safetensors': (lambda path: save_file({'params': {'w': torch.rand(99_000)}}, path), CheckpointError),
}


@pytest.mark.parametrize('name', WRITERS)
@pytest.mark.parametrize('old', [b'old', None])
def test_nothing_is_left_on_a_full_disk(tmp_path, name, old):
    write, error = WRITERS[name]
    with disk(tmp_path / 'small', '200k'):
        path = tmp_path / 'small' / name
        if old:
            path.write_bytes(old)
        free = os.statvfs(path.parent).f_bavail
        with pytest.raises(error, match=f'{name} cannot be written: No space left on device; free some space'):
            write(path)
        assert os.listdir(path.parent) == ([name] if old else [])
        assert not old or path.read_bytes() == old
        assert os.statvfs(path.parent).f_bavail == free


@pytest.mark.parametrize('name', WRITERS)
def test_nothing_is_left_where_files_may_not_grow(tmp_path, name):
    write, error = WRITERS[name]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(error, match=f'{name} cannot be written: File too large; raise the limit on the size'):
            write(tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('name', WRITERS)
@pytest.mark.parametrize('moment', ['fsync', 'replace'])
def test_nothing_is_left_after_an_interruption(tmp_path, monkeypatch, name, moment):
    path = tmp_path / name
    path.write_bytes(b'old')

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        WRITERS[name][0](path)
    assert os.listdir(tmp_path) == [name]
    assert path.read_bytes() == b'old'


def test_what_exists_is_replaced_whole_and_a_link_not_followed(tmp_path):
    other, link = tmp_path / 'other', tmp_path / 'link'
    other.write_bytes(b'old')
    link.symlink_to(other)
    with writing(link) as file:
        file.write(b'new')
        assert link.read_bytes() == b'old'
    assert (other.read_bytes(), link.read_bytes(), link.is_symlink()) == (b'old', b'new', False)


@pytest.mark.parametrize('name', ['x' * 255, 'ü' * 127, os.fsdecode(b'\xff\xfe.png')])
def test_the_longest_and_oddest_names_are_written(tmp_path, name):
    write_file(tmp_path / name, b'new')
    assert os.listdir(tmp_path) == [name]


def test_names_that_are_too_long_are_cut_and_still_differ():
    assert fitting('a', '.png') == 'a.png'
    assert fitting('x' * 251, '.png') == 'x' * 251 + '.png'
    names = [fitting(letter * 130 + end, '_200000.png') for letter in 'xü' for end in ('', 'a' * 126, 'b' * 126)]
    assert len(set(names)) == 6
    assert all(len(name.encode()) <= 255 and name.endswith('_200000.png') for name in names)


def test_where_nothing_can_be_written_is_told_before(tmp_path):
    file = tmp_path / 'file'
    file.write_bytes(b'x')
    check_folder(tmp_path / 'new/folder')
    with pytest.raises(OutputError, match="folder '.*file/sub' cannot be made: '.*file' is no folder"):
        check_folder(file / 'sub')
    if subprocess.run(['chattr', '+i', tmp_path], capture_output=True).returncode:
        pytest.skip('a folder that root cannot write needs chattr')
    try:
        with pytest.raises(OutputError, match=f'{tmp_path} cannot be written: Permission denied; make'):
            check_output(tmp_path / 'x.png', overwrite=False)
    finally:
        subprocess.run(['chattr', '-i', tmp_path], check=True)


@pytest.mark.parametrize('where', ['open', 'sync', 'meta'])
def test_an_lmdb_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, where):
    with disk(tmp_path / 'small', '64k'):
        if where == 'open':
            fill(tmp_path / 'small')
        with (
            pytest.raises(DataError, match=r"cannot write '.*x\.lmdb'|cannot write 'k+\d*' to"),
            LmdbWriter(str(tmp_path / 'small/x.lmdb')) as writer,
        ):
            for i in range(3000):
                writer.put('k' * 400 + str(i), NOISE if where == 'sync' else NOISE[:1, :1])
        assert [name for name in os.listdir(tmp_path / 'small') if name != 'ballast'] == []


# limits of formats


@pytest.mark.parametrize(('suffix', 'longest'), LONGEST_SIDES.items())
def test_the_limits_are_those_of_the_encoders(suffix, longest):
    for shape in ((1, longest, 3), (longest, 1, 3)):
        assert encode_photo(Photo(np.zeros(shape, np.uint8), None), suffix)
    for shape in ((1, longest + 1, 3), (longest + 1, 1, 3)):
        with pytest.raises(DataError, match=f'{shape[1]} x {shape[0]} pixels'):
            encode_photo(Photo(np.zeros(shape, np.uint8), None), suffix)


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.tiff', '.bmp', '.ppm'])
def test_other_formats_hold_more(suffix):
    assert encode_photo(Photo(np.zeros((1, 70_000, 3), np.uint8), None), suffix)


@pytest.fixture
def restorer(inverting):
    return inverting


@pytest.mark.parametrize(('suffix', 'longest'), LONGEST_SIDES.items())
def test_an_image_too_large_for_a_format_is_refused_before_it_is_restored(tmp_path, restorer, suffix, longest):
    Image.new('RGB', (1, longest + 1)).save(tmp_path / 'a.png')
    message = rf"a.png' has 1 x {longest + 1} pixels, but a {suffix} file at most {longest} a side: take .png or .tif"
    with pytest.raises(DataError, match=message):
        restore_paths(tmp_path / 'a.png', tmp_path / f'out{suffix.upper()}', 'w')
    assert not restorer
    restore_paths(tmp_path / 'a.png', tmp_path / 'out.png', 'w')
    assert Image.open(tmp_path / 'out.png').size == (1, longest + 1)


def test_a_full_disk_ends_a_run_that_then_goes_on(tmp_path, restorer):
    (tmp_path / 'photos').mkdir()
    for i in range(6):
        Image.fromarray(NOISE).save(tmp_path / f'photos/{i}.png')
    with disk(tmp_path / 'out', '700k'):
        message = r'2.png cannot be written: No space left on device; free some space; 2 of 6 images are restored'
        with pytest.raises(OutputError, match=message):
            restore_paths(tmp_path / 'photos', tmp_path / 'out', 'w')
        assert sorted(os.listdir(tmp_path / 'out')) == ['0.png', '1.png']
        assert len(restorer) in (3, 4)  # one may have been restored while the last was written
        before = len(restorer)
        subprocess.run(['mount', '-o', 'remount,size=5m', tmp_path / 'out'], check=True)
        restore_paths(tmp_path / 'photos', tmp_path / 'out', 'w')
        assert sorted(os.listdir(tmp_path / 'out')) == [f'{i}.png' for i in range(6)]
        assert len(restorer) == before + 4


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_whole_files(tmp_path, restorer, monkeypatch, capsys, number, code):
    (tmp_path / 'photos').mkdir()
    for i in range(6):
        Image.fromarray(NOISE).save(tmp_path / f'photos/{i}.png')
    write = os.fsync

    def interrupt(descriptor):
        monkeypatch.setattr(os, 'fsync', write)  # once: a second signal ends the process at once
        os.kill(os.getpid(), number)
        write(descriptor)

    monkeypatch.setattr(os, 'fsync', interrupt)
    command = ['restore', str(tmp_path / 'photos'), '-o', str(tmp_path / 'out'), '--weights', 'w']
    assert cli.lorair(command) == code
    left = sorted(os.listdir(tmp_path / 'out'))
    assert left == [f'{i}.png' for i in range(len(left))] and 1 <= len(left) <= 3
    message = f'interrupted: {len(left)} of 6 images are restored, the same command goes on from there'
    assert capsys.readouterr().err.splitlines()[-1] == message
    assert cli.lorair(command) == 0
    assert sorted(os.listdir(tmp_path / 'out')) == [f'{i}.png' for i in range(6)]
    assert all((255 - np.asarray(Image.open(file)) == NOISE).all() for file in (tmp_path / 'out').iterdir())


# every verb


@pytest.fixture
def weights(tmp_path):
    return tiny.save_weights(tmp_path / 'weights')


@pytest.mark.parametrize('verb', ['convert', 'export'])
def test_verbs_replace_nothing_unless_asked(tmp_path, weights, capsys, verb):
    more = ['--degradation', 'rain'] if verb == 'export' else []
    sources = [str(weights / name) for name in ('base.pth', 'experts.pth')]
    output = tmp_path / 'out.pth'
    output.write_bytes(b'something dear')
    command = [verb, *sources, str(output), *more]
    assert cli.lorair(command) == 2
    assert capsys.readouterr().err == (
        f"error: output '{output}' exists already: choose another name, or --overwrite to replace it\n"
    )
    assert output.read_bytes() == b'something dear'
    assert cli.lorair([*command, '--overwrite']) == 0
    assert torch.load(output)['lorair']['kind'] == 'restorer'


@pytest.mark.parametrize('verb', ['convert', 'export'])
@pytest.mark.parametrize('way', ['itself', 'symlink', 'hard link'])
def test_verbs_never_replace_an_input(tmp_path, weights, capsys, verb, way):
    output = tmp_path / 'other.pth'
    if way == 'symlink':
        output.symlink_to(weights / 'base.pth')
    elif way == 'hard link':
        os.link(weights / 'base.pth', output)
    else:
        output = weights / 'base.pth'
    before = output.read_bytes()
    sources = [str(weights / name) for name in ('base.pth', 'experts.pth')]
    more = ['--degradation', 'rain'] if verb == 'export' else []
    assert cli.lorair([verb, *sources, str(output), '--overwrite', *more]) == 2
    assert f"output '{output}' would replace the input" in capsys.readouterr().err
    assert (weights / 'base.pth').read_bytes() == before
