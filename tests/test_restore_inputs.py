"""Which images the inputs of `lorair restore` lead to, and what their results are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorair_arch.errors import DataError, OutputError
from lorair_arch.restoring.folders import restore_paths
from tests.runs import contents, files, lorair, make


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ('inputs', 'results'),
    [
        (['photos/a.png', 'more/c.png'], ['a.png', 'c.png']),
        (['photos', 'more'], ['a.png', 'c.png', 'sub/b.png', 'x/d.png']),
        (['photos', 'more/c.png'], ['a.png', 'c.png', 'sub/b.png']),
        (['photos/*.png'], ['a.png']),
        (['photos/*'], ['a.png', 'sub/b.png']),
        (['photos/**/*.png'], ['a.png', 'sub/b.png']),
        (['photos/**'], ['a.png', 'sub/b.png']),
        (['*/*/*.png'], ['more/x/d.png', 'photos/sub/b.png']),
        (['photos/s?b/*', './more'], ['b.png', 'c.png', 'sub/b.png', 'x/d.png'][1:]),
        (['[p]hotos/a.png'], ['photos/a.png']),
        (['odd[1].png', 'photos/a.png'], ['a.png', 'odd[1].png']),
        (['photos/*/../a.png'], ['a.png']),
    ],
)
def test_inputs_of_every_kind(here, inverting, inputs, results):
    make('photos/a.png', 'photos/sub/b.png', 'more/c.png', 'more/x/d.png', 'odd[1].png')
    Path('photos/notes.txt').write_text('x')
    for _ in range(2):
        restore_paths(inputs, 'out', 'w')
        assert files('out') == results
        assert len(inverting) == len(results)


def test_names_of_several_folders_differ_and_are_found_again(here, inverting):
    make('one/a.png', 'one/b.png', 'two/a.png', 'two/c.png')
    restore_paths(['one', 'two'], 'out', 'w')
    names = files('out')
    assert len(names) == 4 and names[2:] == ['b.png', 'c.png'] and names[0].startswith('a.png-')
    before = contents('out')
    restore_paths([here / 'two', './one/', 'one/*'], 'out', 'w')  # whatever the order and the spelling
    assert contents('out') == before and len(inverting) == 4


@pytest.mark.parametrize('inputs', [['photos', 'photos/sub'], ['photos/sub', 'photos'], ['photos/sub/b.png', 'photos']])
def test_an_image_of_several_inputs_is_restored_once(here, inverting, inputs, capsys):
    make('photos/a.png', 'photos/sub/b.png')
    assert lorair(*inputs) == 0
    assert files('out') == ['a.png', 'sub/b.png']
    message = "1 image restored once, though several inputs lead there: 'photos/sub/b.png'"
    assert message in capsys.readouterr().err


def test_an_output_that_the_shell_names_as_an_input(here, inverting):
    make('photos/a.png', 'photos/b.png')
    for _ in range(2):
        restore_paths(sorted(Path('photos').iterdir()), 'photos/restored', 'w')
    assert files('photos/restored') == ['a.png', 'b.png'] and len(inverting) == 2
    make('photos/restored/mine.png')
    with pytest.raises(OutputError, match='is the input folder'):
        restore_paths(sorted(Path('photos').iterdir()), 'photos/restored', 'w')


@pytest.mark.parametrize(
    ('inputs', 'output', 'message'),
    [
        (['photos/*.tif'], 'out', r"input 'photos/\*.tif' holds no images: check the paths"),
        (['empty', 'empty2'], 'out', "inputs 'empty', 'empty2' hold no images"),
        (['photos', 'gone'], 'out', "input 'gone' does not exist: check the path"),
        (
            ['photos', 'photos/a.png'],
            'out.png',
            "output 'out.png' is the name of an image, but input 'photos' and 1 more",
        ),
        (['photos/*'], 'out.png', r"input 'photos/\*' is a pattern: name a folder"),
    ],
)
def test_wrong_inputs(here, inverting, inputs, output, message):
    make('photos/a.png', 'photos/b.png')
    Path('empty').mkdir()
    Path('empty2').mkdir()
    with pytest.raises(DataError, match=message):
        restore_paths(inputs, output, 'w')
    assert not inverting


def test_results_beside_their_images_replace_none(here, inverting):
    make('photos/a.jpg', 'photos/b.png')
    before = contents('photos')
    for more in ({}, {'overwrite': True}):
        restore_paths(sorted(Path('photos').iterdir()), 'photos', 'w', **more)
        assert files('photos') == ['a.jpg', 'a.png', 'b.png', 'b.png.png']
        assert contents('photos').items() >= before.items()
