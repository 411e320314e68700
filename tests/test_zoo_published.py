"""The zoo beside what was published: measured as the published numbers were, and what may not be compared is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lorair_arch import Restorer
from lorair_arch.evaluating.report import evaluate
from lorair_arch.metrics.published import benchmarks
from tests.photos import photo, write
from tests.scoring import means


def sections(page: str) -> dict[str, tuple[dict[str, list[str]], list[str]]]:
    """Gives the rows of each set's table by their first cells, and the notes below it."""
    found = {}
    for part in page.split('## ')[1:]:
        lines = part.splitlines()
        rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines if line.startswith('|')]
        found[lines[0]] = {row[0]: row[1:] for row in rows[2:]}, [line[2:] for line in lines if line.startswith('- ')]
    return found


@pytest.fixture
def page(zoo):
    write(Path('data/denoise/CBSD68/gt/a.png'), photo(40))
    code, page, errors = zoo('--weights', 'weights', script='zoo_published')
    assert code == 0
    return sections(page), errors


def test_ours_is_what_lorair_evaluate_gives(page):
    rows, notes = page[0]['rain100l, measured by `airnet`']
    restorer = Restorer.from_pretrained('weights', 'cpu')
    for i in range(3):
        write(Path(f'results/{i}.png'), restorer(photo(i)[::-1]))
        write(Path(f'input/{i}.png'), photo(i)[::-1])
        write(Path(f'truth/{i}.png'), photo(i))
    for name, folder in (('(the input)', 'input'), ('weights', 'results')):
        expected = means(evaluate(folder, 'truth', 'airnet', style='json'))
        assert rows[name][0].startswith(f'{expected["psnr"]:.2f} (')
        assert rows[name][1].startswith(f'{expected["ssim"]:.3f} (')
        low, mean, high = (float(rows[name][0].translate({40: 32, 41: 32}).split()[i]) for i in (1, 0, 3))
        assert low < mean < high
    assert rows['weights'][3] == 'noise, rain, haze'
    assert notes == ['3 images were measured, but Rain100L has 100: not comparable']


def test_every_published_row_stands_there_with_its_setting_and_what_is_odd(page):
    rows = page[0]['rain100l, measured by `airnet`'][0]
    assert rows['EvoIR (2025)'][:4] == ['39.07', '0.985', '36.68 M', 'Three tasks (noise, rain, haze)']
    assert rows['HINet (2021)'][3] == 'Five tasks (noise, rain, haze, blur, low light)'
    assert rows['InstructIR-3D (2024)'][4] == 'measured by rgb'
    numbers = [number for name in ('three_task', 'five_task') for number in benchmarks()[f'{name}/rain100l'].numbers]
    assert {f'{number.method} ({number.year})' for number in numbers} == rows.keys() - {'(the input)', 'weights'}


def test_sets_without_published_numbers_and_those_that_are_not_there(page):
    found, errors = page
    rows, notes = found['classic5_20, measured by `rgb`']
    assert list(rows) == ['(the input)', 'weights']
    assert re.fullmatch(r'\d+\.\d\d', rows['weights'][0])  # of one image there is no interval
    assert notes == []
    assert "skipped outdoor_rain: folder 'data/derain_dehaze/OutdoorRain/lq' does not exist" in errors
    assert not any(name.startswith('val_') for name in found)


def test_noise_that_is_clipped_is_said(page):
    notes = page[0]['cbsd68_25, measured by `airnet`'][1]
    assert notes == [
        '1 image was measured, but CBSD68 σ 25 has 68: not comparable',
        'the noise is clipped to black and white and rounded here, in most papers it is not',
    ]


def test_an_image_that_has_no_value_is_named(zoo):
    write(Path('data/derain/Rain100L/gt/img2.png'), photo(1)[::-1])
    _, page, _ = zoo('--weights', 'weights', '--only', 'rain100l', script='zoo_published')
    (_, notes), *_ = sections(page).values()
    assert notes[1] == "psnr leaves out 1 of 3 images: 'img2' (40 x 48 pixels: infinite)"


@pytest.mark.parametrize('sets', [('rain100l', 2), ('val_rain', 1)])
def test_parts_of_sets(zoo, sets):
    name, limit = sets
    code, page, _ = zoo('--weights', 'weights', '--only', name, '--limit', str(limit), script='zoo_published')
    assert code == 0
    assert page.startswith(f'## {name}, measured by ')
    assert page.splitlines()[2] == f'Images: {limit}'


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--only', 'rain100'], "--only: there is no set 'rain100'; did you mean 'rain100l'?"),
        (['--only', 'lol_low'], '--only: lol_low has no ground truth to measure by'),
        (['--limit', '0'], '--limit is 0, but at least one image must be measured'),
        (['--data', 'nowhere'], "--data: 'nowhere' is no folder; scripts/benchmark/zoo_sets.py says what it must hold"),
        (['--data', 'weights'], "--data: none of the sets is in 'weights'; scripts/benchmark/zoo_sets.py says what it"),
    ],
)
def test_mistakes_are_named(zoo, args, message):
    code, page, errors = zoo('--weights', 'weights', *args, script='zoo_published')
    assert (code, page) == (2, '')
    assert errors.splitlines()[-1].startswith(f'error: {message}')


def test_every_benchmark_of_a_set_is_there_and_has_its_protocol(load):
    for names in load('zoo_published').BENCHMARKS.values():
        assert len({benchmarks()[name].protocol for name in names}) == 1
