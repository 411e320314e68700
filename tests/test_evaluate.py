"""`lorair evaluate`: pairs by name, tables, published numbers beside them, one sentence for each mistake."""

from __future__ import annotations

import json
import os
import re

import cv2
import numpy as np
import pytest

from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.data.stores import open_store
from lorair_arch.evaluating.report import FORMATS, evaluate
from lorair_arch.evaluating.scores import score
from lorair_arch.metrics.protocols import PROTOCOLS
from tests.photos import photo, write
from tests.scoring import means, noisy, run


def test_a_table_of_images_and_means(folders, capfd):
    code, out, err = run(capfd, 'ours', 'gt', '--protocol', 'airnet', '--per-image')
    lines = [re.split(r'  +', line.strip()) for line in out.splitlines()]
    assert (code, err) == (0, [])
    assert lines[0] == ['airnet', 'psnr', 'ssim']
    assert [line[0] for line in lines[1:]] == [*(f'ours/{i}.png' for i in range(4)), 'ours', '95 % interval', 'images']
    values = [float(line[1]) for line in lines[1:5]]
    assert float(lines[5][1]) == pytest.approx(sum(values) / 4, abs=1e-4)
    low, high = map(float, lines[6][1].split(' to '))
    assert min(values) <= low < float(lines[5][1]) < high <= max(values)
    assert lines[7][1:] == ['4', '4']


@pytest.mark.parametrize('style', FORMATS)
def test_formats(folders, capfd, style):
    args = ('ours', 'gt', '--protocol', 'airnet', '--format', style, '--compare', 'three_task/rain100l')
    code, out, _ = run(capfd, *args)
    beginning = {'text': 'airnet ', 'markdown': '| airnet ', 'latex': r'\begin{tabular}', 'json': '{'}[style]
    assert code == 0
    assert out.startswith(beginning)
    assert 'PromptIR' in out
    if style == 'json':
        content = json.loads(out)
        assert content['metrics']['psnr']['images'] == 4
        assert content['notes'] == ['4 images were measured, but Rain100L has 100: not comparable']
        assert content['unreadable'] == []
        assert 'images' not in content
    if style == 'latex':
        assert r'95 \% interval' in out


def test_equal_images_do_not_poison_the_mean(folders, capfd):
    write(folders / 'ours/2.png', photo(2, 40, 50))
    code, out, err = run(capfd, 'ours', 'gt', '--protocol', 'airnet', '--format', 'json', '--per-image')
    content = json.loads(out)
    assert code == 0
    assert content['metrics']['psnr']['images'] == 3
    assert content['metrics']['ssim']['images'] == 4
    assert content['images'][2]['left_out'] == {'psnr': '50 x 40 pixels: infinite'}
    assert err == ["warning: psnr leaves out 1 of 4 images: 'ours/2.png' (50 x 40 pixels: infinite)"]


def test_a_damaged_ground_truth_is_said_once(folders, capfd):
    (folders / 'gt/1.png').write_bytes(b'')
    args = ('--against', 'theirs', '--suffix=_net', '--compare', 'all_weather/raindrop_a')
    code, out, err = run(capfd, 'ours', 'gt', *args)
    assert code == 1
    assert [line.split() for line in out.splitlines() if line.startswith('images')] == [['images', '3', '3']] * 3
    assert err[0] == 'warning: 3 images were measured, but RainDrop A has 58: not comparable'
    assert err[1:] == [
        'error: 1 image could not be read and is left out:',
        "error: image 'gt/1.png' is empty; copy it again or remove it",
    ]


def test_damaged_images_are_named_and_left_out(folders, capfd):
    (folders / 'ours/1.png').write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(30))
    code, out, err = run(capfd, 'ours', 'gt', '--protocol', 'airnet')
    assert code == 1
    assert out.splitlines()[-1].split() == ['images', '3', '3']
    assert err[0] == 'error: 1 image could not be read and is left out:'
    assert "'ours/1.png'" in err[1]


def test_other_sizes_are_refused_each_named(folders, capfd):
    for i in (1, 3):
        write(folders / f'ours/{i}.png', photo(i, 40, 48))
    code, out, err = run(capfd, 'ours', 'gt', '--protocol', 'airnet')
    assert (code, out) == (2, '')
    assert err == [
        f"error: 'ours/{i}.png' is 48 x 40 pixels but its ground truth 'gt/{i}.png' is 50 x 40; "
        'the images of a pair must have the same size'
        for i in (1, 3)
    ]


def test_names_with_a_suffix(folders, capfd):
    code, out, err = run(capfd, 'theirs', 'gt', '--protocol', 'airnet')
    assert (code, out) == (2, '')
    assert err == ["error: every result in 'theirs' ends in '_net', no ground truth does: give --suffix=_net"]
    one = run(capfd, 'theirs', 'gt', '--protocol', 'airnet', '--suffix=_net')
    two = run(capfd, 'theirs', 'gt', '--protocol', 'airnet', '--match', r'^(\d+)')
    assert one == two
    assert one[0] == 0


def test_several_results_of_a_ground_truth(folders):
    write(folders / 'ours/2_a.png', noisy(photo(2, 40, 50), 5))
    records, _ = score(open_store('ours'), open_store('gt'), PROTOCOLS['airnet'].metrics, re.compile(r'^(\d+)'))
    assert [record['image'] for record in records] == [f'ours/{name}.png' for name in ('0', '1', '2', '2_a', '3')]
    report = evaluate('ours', 'gt', 'airnet', match=r'^(\d+)', against='ours', style='json')
    assert json.loads(report.text)['against']['difference']['psnr'] == {'mean': 0, 'interval': [0, 0], 'images': 5}


def test_lmdbs_and_names_that_are_no_text(folders, capfd):
    name = os.fsdecode(b'\xff\xe9')
    for folder in ('ours', 'gt'):
        os.rename(f'{folder}/0.png', f'{folder}/{name}.png')
    with LmdbWriter('gt.lmdb') as lmdb:
        for key in (name, '1', '2', '3'):
            lmdb.put(key, cv2.imdecode(np.fromfile(f'gt/{key}.png', np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
    for style in FORMATS:
        args = ('--protocol', 'airnet', '--format', style, '--per-image')
        code, out, err = run(capfd, 'ours', 'gt.lmdb', *args)
        assert (code, err) == (0, [])
        assert out == run(capfd, 'ours', 'gt', *args)[1].replace(': "gt"', ': "gt.lmdb"')
        assert r'\udcff' in out


def test_sixteen_bits_are_rounded_to_eight(folders):
    write(folders / 'deep/0.png', np.minimum(photo(0, 40, 50).astype(int) * 257 + 100, 65535).astype(np.uint16))
    write(folders / 'one/0.png', noisy(photo(0, 40, 50), 5))
    write(folders / 'eight/0.png', photo(0, 40, 50))
    assert evaluate('one', 'deep', 'airnet').text == evaluate('one', 'eight', 'airnet').text


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('ours', 'gt'), '--protocol: missing, expected one of rgb, y, airnet'),
        (
            ('ours', 'gt', '--protocol', 'airnets'),
            "--protocol: found 'airnets', expected a protocol; did you mean 'airnet'?",
        ),
        (('ours', 'gt', '--compare', 'real_weather/spa'), 'as the sources of real_weather/spa do not say theirs'),
        (
            ('ours', 'gt', '--compare', 'three_task/rain100'),
            "--compare: found 'three_task/rain100', expected SETTING/SET; did you mean 'three_task/rain100l'?",
        ),
        (('ours',), 'RESULTS and GT: found one or neither, expected two folders'),
        (('nowhere', 'gt', '--protocol', 'rgb'), "folder 'nowhere' does not exist"),
        (('ours', 'empty', '--protocol', 'rgb'), "'empty' holds no images"),
        (('ours', 'few', '--protocol', 'rgb'), "no partner in 'few' for '1', '2', '3' of 'ours'; the names of a pair"),
        (('few', 'gt', '--protocol', 'rgb'), 'or give --suffix or --match'),
        (('ours', 'gt', '--protocol', 'rgb', '--match', '('), "--match: found '(', expected a regular expression"),
        (('ours', 'gt', '--protocol', 'rgb', '--match', '.*'), "--match: found '.*', expected a regular expression"),
        (
            ('ours', 'gt', '--protocol', 'rgb', '--match', 'x(.)'),
            "--match: 'x(.)' finds nothing in '0', '1', '2' and 1",
        ),
        (('ours', 'gt', '--protocol', 'rgb', '--match', '(.)', '--suffix=_a'), '--suffix: found beside --match'),
        (('ours', 'gt', '--protocol', 'airnet', '--against', 'theirs'), "'theirs' ends in '_net'"),
        (('ours', 'gt', '--protocol', 'airnet', '--against', 'few'), "no partner in 'few' for '1', '2', '3' of 'gt'"),
    ],
)
def test_mistakes_are_one_sentence(folders, capfd, args, message):
    (folders / 'empty').mkdir()
    write(folders / 'few/0.png', photo(0, 40, 50))
    code, out, err = run(capfd, *args)
    assert (code, out, len(err)) == (2, '', 1)
    assert err[0].startswith('error: ')
    assert message in err[0]


def test_the_difference_of_two_methods(folders, capfd):
    args = ('ours', 'gt', '--protocol', 'airnet', '--against', 'theirs', '--suffix=_net')
    code, out, _ = run(capfd, *args, '--format', 'json')
    content = json.loads(out)
    ours, theirs = content['metrics']['psnr'], content['against']['metrics']['psnr']
    difference = content['against']['difference']['psnr']
    assert code == 0
    assert difference['mean'] == pytest.approx(ours['mean'] - theirs['mean'])
    assert 0 < difference['interval'][0] < difference['mean'] < difference['interval'][1]
    assert run(capfd, *args)[1].splitlines()[7].split()[:2] == ['difference', f'{difference["mean"]:+.4f}']


def test_a_mismatch_of_protocols_is_named(folders, capfd):
    pytest.importorskip('basicsr')
    code, out, err = run(capfd, 'ours', 'gt', '--protocol', 'y', '--compare', 'three_task/rain100l')
    assert code == 0
    assert err[0].startswith("warning: measured by y (luma (Y of YCbCr, as MATLAB's), whole images")
    assert 'but three_task/rain100l was published by airnet (RGB, cut around the centre' in err[0]
    assert err[0].endswith('not comparable, measure with --protocol airnet')
    assert err[1:] == ['warning: 4 images were measured, but Rain100L has 100: not comparable']
    assert next(line for line in out.splitlines() if line.startswith('PromptIR ')).count('measured by airnet') == 1


def test_compare_measures_as_the_numbers_were(folders, capfd):
    _, out, err = run(capfd, 'ours', 'gt', '--compare', 'three_task/rain100l')
    assert out.startswith('airnet ')
    assert err == ['warning: 4 images were measured, but Rain100L has 100: not comparable']
    rows = [re.split(r'  +', line.strip()) for line in out.split('\n\n')[1].splitlines()[1:]]
    values = [float(row[2]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert rows[values.index(pytest.approx(means(evaluate('ours', 'gt', 'airnet', style='json'))['psnr'], abs=1e-4))][
        :2
    ] == ['ours', 'here']
    assert next(row for row in rows if row[0] == 'InstructIR-3D')[5] == 'measured by rgb'
