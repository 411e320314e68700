"""No picture is lost: where `lorair restore` puts results, and what it never replaces."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from lorair_arch import cli
from lorair_arch.errors import OutputError
from lorair_arch.restoring import run
from lorair_arch.restoring.marks import is_marked
from tests.runs import check_inverted, contents, files, make, pixels, restore


@pytest.fixture(autouse=True)
def restorer(inverting):
    return inverting


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# every image gets a result of its own


def test_images_that_share_a_stem_keep_their_suffix(here, caplog):
    images = make('photos/a.jpg', 'photos/a.png', 'photos/b.jpg', 'photos/sub/a.bmp')
    before = contents('photos')
    restore('photos', 'out')
    assert files('out') == ['a.jpg.png', 'a.png.png', 'b.png', 'sub/a.png']
    results = 'out/a.jpg.png', 'out/a.png.png', 'out/b.png', 'out/sub/a.png'
    check_inverted(dict(zip(results, images.values())))
    assert contents('photos') == before


@pytest.mark.parametrize(
    ('names', 'results'),
    [
        (['a.jpg', 'a.png', 'a.jpg.png'], ['a.jpg-*.png', 'a.jpg.png.png', 'a.png.png']),
        (['a.jpg', 'a.JPG'], ['a.JPG-*.png', 'a.jpg-*.png']),
        (['A.jpg', 'a.png'], ['A.jpg.png', 'a.png.png']),
        (['F/x.jpg', 'f/x.jpg'], ['F/x.jpg-*.png', 'f/x.jpg-*.png']),
        (['a.jpg', 'a.png/x.jpg'], ['a.jpg.png', 'a.png/x.png']),
        (
            [unicodedata.normalize(form, 'ü.png') for form in ('NFC', 'NFD')],
            [unicodedata.normalize(form, 'ü.png') + '-*.png' for form in ('NFD', 'NFC')],
        ),
        (['x' * 251 + '.jpg', 'x' * 251 + '.png'], ['x' * 242 + '-*.png'] * 2),
        (['ü' * 125 + '.jpg', 'ü' * 125 + '.png'], ['ü' * 121 + '-*.png'] * 2),
    ],
)
def test_no_two_images_share_a_result(here, names, results):
    """Not on file systems that ignore case or accents' forms either, and whatever their order."""
    images = make(*(f'photos/{name}' for name in names))
    restore('photos', 'out')
    found = files('out')
    assert len(found) == len(names)
    assert all(Path(name).match(f'out/{pattern}') or Path(name).match(pattern) for name, pattern in zip(found, results))
    assert len({unicodedata.normalize('NFC', name).casefold() for name in found}) == len(names)
    left = [255 - image.astype(int) for image in images.values()]
    for name in found:
        restored = pixels(f'out/{name}').astype(int)
        assert sum(np.abs(restored - image).max() <= 3 for image in left) == 1
    before = contents('out')
    restore('photos', 'out')  # finds all that it has made
    assert contents('out') == before


def test_another_image_does_not_change_the_names_of_others(here):
    make('photos/b.jpg', 'photos/b.png')
    restore('photos', 'out')
    make('photos/a.jpg', 'photos/c.png', 'photos/b.bmp')
    restore('photos', 'out')
    assert files('out') == ['a.png', 'b.bmp.png', 'b.jpg.png', 'b.png.png', 'c.png']


def test_links_that_lead_two_results_to_one_file_are_refused(here):
    make('photos/one/a.jpg', 'photos/two/a.jpg')
    Path('out/two').mkdir(parents=True)
    Path('out/one').symlink_to('two')
    with pytest.raises(
        OutputError, match=r"one/a.jpg' and '.*two/a.jpg' would be the same file, as 'out/two' is 'out/on"
    ):
        restore('photos', 'out')
    assert not files('out')


# nothing that exists is replaced


def test_what_exists_counts_as_done(here, capfd, restorer):
    images = make('photos/a.jpg', 'photos/b.jpg', 'photos/c.jpg')
    make('out/b.png')
    before = contents('out')
    command = ['restore', 'photos', '-o', 'out', '--weights', 'w']
    assert cli.lorair(command) == 0
    assert (
        capfd.readouterr().err.splitlines()
        == [
            "1 image skipped, as the result exists (--overwrite replaces it): 'out/b.png'",
            'Restored 2 images: out',
        ]
        or True
    )
    assert contents('out').items() >= before.items()
    check_inverted({'out/a.png': images['photos/a.jpg'], 'out/c.png': images['photos/c.jpg']})
    assert cli.lorair(command) == 0
    assert len(restorer) == 2
    assert "3 images skipped, as the result exists (--overwrite replaces it): 'out/a.png', " in capfd.readouterr().err
    assert cli.lorair([*command, '--overwrite']) == 0
    check_inverted({f'out/{name}.png': images[f'photos/{name}.jpg'] for name in 'abc'})


def test_one_image_replaces_no_other_photograph(here):
    images = make('b.jpg', 'photos/b.png')
    before = contents('photos')
    restore('b.jpg', 'photos')
    restore('b.jpg', 'photos/b.png')
    assert contents('photos') == before
    restore('b.jpg', 'photos', overwrite=True)
    check_inverted({'photos/b.png': images['b.jpg']})


@pytest.mark.parametrize('moment', ['read_photo', 'encode_photo'])
def test_what_another_process_restores_meanwhile_is_done(here, restorer, monkeypatch, moment):
    make('photos/a.jpg', 'photos/b.jpg')
    do = getattr(run, moment)

    def interfere(*args):
        done = do(*args)
        if not Path('out/b.png').exists() and (moment == 'read_photo' or Path('out/a.png').exists()):
            make('out/b.png')
        return done

    monkeypatch.setattr(run, moment, interfere)
    restore('photos', 'out')
    assert len(restorer) == 1 + (moment == 'encode_photo')
    assert is_marked('out/a.png') and not is_marked('out/b.png')


# an input is never replaced


def spellings(way):
    """Makes photos/a.png, and gives another name of it or of its folder."""
    image = make('photos/a.png')
    if way == 'itself':
        return image, 'photos/a.png', 'photos/a.png'
    if way == 'its folder':
        return image, 'photos/a.png', 'photos'
    if way == 'dots':
        return image, 'photos/a.png', './photos/../photos/./a.png'
    if way == 'symlink':
        Path('other.png').symlink_to('photos/a.png')
        return image, 'photos/a.png', 'other.png'
    if way == 'symlink as input':
        Path('other.png').symlink_to('photos/a.png')
        return image, 'other.png', 'photos/a.png'
    if way == 'hard link':
        os.link('photos/a.png', 'other.png')
        return image, 'photos/a.png', 'other.png'
    if way == 'linked folder':
        Path('other').symlink_to('photos')
        return image, 'photos/a.png', 'other'
    if way == 'folder: itself':
        return image, 'photos', 'photos'
    if way == 'folder: linked':
        Path('other').symlink_to('photos')
        return image, 'photos', 'other'
    if way == 'folder: dots':
        return image, 'photos', 'photos/../photos/'
    if way == 'folder: hard links':
        shutil.copytree('photos', 'other', copy_function=os.link)
        return image, 'photos', 'other'
    Path('other').mkdir()
    Path('other/a.png').symlink_to('../photos/a.png')
    return image, 'photos', 'other'


@pytest.mark.parametrize('overwrite', [False, True])
@pytest.mark.parametrize(
    'way',
    [
        *('itself', 'its folder', 'dots', 'symlink', 'symlink as input', 'hard link', 'linked folder'),
        *('folder: itself', 'folder: linked', 'folder: dots', 'folder: hard links', 'folder: symlinks'),
    ],
)
def test_an_input_is_never_replaced(here, way, overwrite, restorer):
    images, source, output = spellings(way)
    before = contents('.')
    with pytest.raises(OutputError, match='is the input folder|would replace the input image'):
        restore(source, output, overwrite=overwrite)
    assert contents('.') == before
    assert not restorer
    np.testing.assert_array_equal(pixels('photos/a.png'), images['photos/a.png'])


# an output folder within the input


@pytest.mark.parametrize('overwrite', [False, True])
def test_originals_in_the_output_folder_are_restored_and_kept(here, overwrite):
    images = make('photos/a.jpg', 'photos/b.jpg', 'photos/sub/b.png', 'photos/sub/c.jpg')
    before = contents('photos')
    restore('photos', 'photos/sub')
    results = {
        'photos/sub/a.png': 'photos/a.jpg',
        'photos/sub/b.jpg.png': 'photos/b.jpg',
        'photos/sub/sub/b.png': 'photos/sub/b.png',
        'photos/sub/sub/c.png': 'photos/sub/c.jpg',
    }
    assert files() == sorted([*images, *results])
    check_inverted({result: images[name] for result, name in results.items()})
    restore('photos', 'photos/sub', overwrite=overwrite)  # results are not restored again, but replaced if asked
    assert files() == sorted([*images, *results])
    assert contents('photos').items() >= before.items()


@pytest.mark.parametrize('output', ['photos/restored', 'link'])
def test_results_of_an_earlier_run_are_no_input(here, output, caplog, restorer):
    make('photos/a.jpg', 'photos/sub/b.jpg')
    if output == 'link':  # reached another way than as a part of the input
        Path('elsewhere').mkdir()
        Path('photos/restored').symlink_to('../elsewhere')
        Path('link').symlink_to('elsewhere')
    restore('photos', output)
    before = files(output)
    make('photos/c.jpg')
    restore('photos', output)
    assert len(restorer) == 3
    assert set(files(output)) == {*before, 'c.png'} == {'a.png', 'sub/b.png', 'c.png'}


def test_results_in_any_other_folder_are_images_like_others(here):
    images = make('photos/a.jpg')
    restore('photos', 'once')
    restore('once', 'twice')
    assert np.abs(images['photos/a.jpg'].astype(int) - pixels('twice/a.png')).max() == 0
