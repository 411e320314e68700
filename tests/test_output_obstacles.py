"""What stands in the way of results, and paths that are odd, is told before `lorair restore` does anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lorair_arch.errors import DataError, OutputError
from tests.runs import check_inverted, files, make, restore


@pytest.fixture(autouse=True)
def restorer(inverting):
    return inverting


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def obstacle(kind):
    if kind == 'a file for the folder':
        Path('out').write_bytes(b'x')
    elif kind == 'a file for a subfolder':
        make('out/x.png')
        Path('out/sub').write_bytes(b'x')
    elif kind == 'a folder for a file':
        Path('out/a.png').mkdir(parents=True)
    elif kind == 'a dangling link':
        Path('out').mkdir()
        Path('out/a.png').symlink_to('nowhere')
    elif kind == 'a dangling folder':
        Path('out').symlink_to('nowhere')
    elif kind == 'a loop':
        Path('out').mkdir()
        Path('out/a.png').symlink_to('a.png')
    elif kind == 'a pipe':
        Path('out').mkdir()
        os.mkfifo('out/a.png')


@pytest.mark.parametrize('overwrite', [False, True])
@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('a file for the folder', "output 'out' is no folder, but one is needed"),
        ('a file for a subfolder', 'out/sub/b.png cannot be written: Not a directory; move away the file'),
        ('a folder for a file', "output 'out/a.png' is a folder: choose another name"),
        ('a dangling link', "output 'out/a.png' is a link to 'nowhere', which does not exist: remove it"),
        ('a dangling folder', "output 'out' is no folder, but one is needed"),
        (
            'a loop',
            'out/a.png cannot be written: Too many levels of symbolic links; remove the links that',
        ),
        ('a pipe', "output 'out/a.png' is a pipe: choose another name"),
    ],
)
def test_what_stands_in_the_way_is_told_first(here, kind, message, overwrite, restorer):
    make('photos/a.jpg', 'photos/sub/b.jpg')
    obstacle(kind)
    with pytest.raises(OutputError, match=message):
        restore('photos', 'out', overwrite=overwrite)
    assert not restorer


@pytest.mark.parametrize(
    ('source', 'output', 'message'),
    [
        ('', 'out', 'input is empty: name a file or a folder'),
        ('photos', '', 'output is empty'),
        ('dangling.png', 'out', "input 'dangling.png' is a link to 'nowhere', which does not exist"),
        ('loop.png', 'out', "input 'loop.png' cannot be read: Too many levels of symbolic links"),
        ('photos/a.jpg/x.png', 'out', "input 'photos/a.jpg/x.png' cannot be read: Not a directory"),
        ('x' * 300, 'out', 'cannot be read: File name too long'),
        ('/dev/zero', 'out', "input '/dev/zero' is a device: name an image or a folder"),
        ('pipe.png', 'out', "input 'pipe.png' is a pipe: name an image or a folder"),
        ('empty', 'out', "input 'empty' holds no images"),
        ('photos/a.jpg', 'x' * 300 + '.png', 'cannot be written: File name too long; choose a shorter name'),
        ('photos', 'x' * 300, 'cannot be written: File name too long; choose a shorter name'),
        ('photos/a.jpg', '/dev/null', "output '/dev/null' is no folder, but one is needed"),
    ],
)
def test_odd_paths(here, source, output, message, restorer):
    make('photos/a.jpg')
    Path('empty').mkdir()
    Path('dangling.png').symlink_to('nowhere')
    Path('loop.png').symlink_to('loop.png')
    os.mkfifo('pipe.png')
    with pytest.raises(DataError, match=message):
        restore(source, output)
    assert not restorer


@pytest.mark.parametrize('output', ['out.png/', 'out.v2/', '~/out', 'there.png'])
def test_folders_of_any_name(here, monkeypatch, output):
    image = make('photos/a.jpg')['photos/a.jpg']
    Path('there.png').mkdir()
    monkeypatch.setenv('HOME', str(here / 'home'))
    for source in ('photos', 'photos/a.jpg'):
        restore(source, output, overwrite=True)
        check_inverted({Path(os.path.expanduser(output), 'a.png'): image})


def test_images_that_are_no_files_are_named_and_the_others_restored(here):
    image = make('photos/c.jpg')['photos/c.jpg']
    os.mkfifo('photos/a.png')
    Path('photos/b.png').symlink_to('nowhere')
    with pytest.raises(DataError) as error:
        restore('photos', 'out')
    first, second, third = str(error.value).splitlines()
    assert first == '2 of 3 images could not be restored:'
    assert second == "cannot read 'photos/a.png': it is no file"
    assert third == "cannot read 'photos/b.png': No such file or directory"
    assert files('out') == ['c.png']
    check_inverted({'out/c.png': image})
