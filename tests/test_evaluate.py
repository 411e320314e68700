"""`lorair evaluate`: the arithmetic of the published numbers, pairs by name, one sentence for each mistake."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lorair_arch import cli
from lorair_arch.data.lmdb_writer import LmdbWriter
from lorair_arch.data.stores import open_store
from lorair_arch.evaluating.report import FORMATS, evaluate
from lorair_arch.evaluating.scores import score
from lorair_arch.metrics import lpips_metric, statistics
from lorair_arch.metrics.protocols import PROTOCOLS
from tests import miniature
from tests.golden import FOLDER, random
from tests.photos import photo, write

GOLDEN = json.loads((FOLDER / 'metrics.json').read_text())


def noisy(image, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Four photographs in gt/, noisy in ours/, noisier in theirs/ with '_net' behind their names."""
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        clean = photo(i, 40, 50)
        write(tmp_path / f'gt/{i}.png', clean)
        write(tmp_path / f'ours/{i}.png', noisy(clean, 8, i))
        write(tmp_path / f'theirs/{i}_net.png', noisy(clean, 9, 10 + i))
    return tmp_path


def means(report):
    return {name: values['mean'] for name, values in json.loads(report.text)['metrics'].items()}


def run(capfd, *args):
    """Runs the command; gives its exit code, what it prints and what it says."""
    code = cli.lorair(['evaluate', *map(str, args)])
    out, err = capfd.readouterr()
    return code, out, err.splitlines()


@pytest.mark.parametrize('case', GOLDEN, ids=[case['image'] for case in GOLDEN])
def test_golden_allweather_numbers(tmp_path, case):
    clean = cv2.imread(str(FOLDER / case['image']))
    noise = random(None, case['noise']).standard_normal(clean.shape)
    restored = np.clip(np.round(clean + case['sigma'] * noise), 0, 255).astype(np.uint8)
    write(tmp_path / 'gt/0.png', clean[..., ::-1])
    write(tmp_path / 'ours/0.png', restored[..., ::-1])
    report = evaluate(str(tmp_path / 'ours'), str(tmp_path / 'gt'), 'allweather')
    assert report.text.splitlines()[1].split()[-2:] == [f'{case["psnr"]:.4f}', f'{case["ssim"]:.4f}']


def cut(image):
    """`crop_img` of AirNet and PromptIR, with its base of 16."""
    height, width = image.shape[:2]
    rows, columns = height % 16, width % 16
    return image[rows // 2 : height - rows + rows // 2, columns // 2 : width - columns + columns // 2]


@pytest.mark.parametrize(
    ('protocol', 'prepare', 'options'),
    [
        ('airnet', cut, {}),
        ('onerestore', lambda image: image, {}),
        ('gaussian', lambda image: image, {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}),
    ],
)
@pytest.mark.parametrize('size', [(48, 64), (51, 77), (40, 39)])
def test_numbers_of_scikit_image(tmp_path, protocol, prepare, options, size):
    clean = photo(1, *size)
    restored = noisy(clean, 12)
    write(tmp_path / 'gt/0.png', clean)
    write(tmp_path / 'ours/0.png', restored)
    found = means(evaluate(str(tmp_path / 'ours'), str(tmp_path / 'gt'), protocol, style='json'))
    one, two = (prepare(image).astype(np.float32) / 255 for image in (clean, restored))
    assert found['psnr'] == pytest.approx(peak_signal_noise_ratio(one, two, data_range=1), abs=1e-9)
    ssim = structural_similarity(one, two, data_range=1, channel_axis=2, **options)
    assert found['ssim'] == pytest.approx(ssim, abs=1e-6)


@pytest.mark.parametrize('protocol', ['rgb', 'y'])
def test_numbers_of_basicsr(folders, protocol):
    metrics = pytest.importorskip('basicsr.metrics')
    found = means(evaluate('ours', 'gt', protocol, style='json'))
    for name in ('psnr', 'ssim'):
        function = getattr(metrics, f'calculate_{name}')
        pairs = [[cv2.imread(f'{folder}/{i}.png') for folder in ('ours', 'gt')] for i in range(4)]
        values = [function(*pair, crop_border=0, test_y_channel=protocol == 'y') for pair in pairs]
        assert found[name] == pytest.approx(sum(values) / 4, abs=1e-12)


def test_gaussian_is_rgb_but_for_rounding(folders):
    pytest.importorskip('basicsr')
    one, two = (means(evaluate('ours', 'gt', name, style='json')) for name in ('rgb', 'gaussian'))
    assert one == pytest.approx(two, abs=1e-5)


def test_protocols_differ_enough_to_be_named(folders):
    values = {name: means(evaluate('ours', 'gt', name, style='json'))['psnr'] for name in ('airnet', 'allweather')}
    assert values['allweather'] - values['airnet'] > 2


@pytest.mark.parametrize('name', PROTOCOLS)
def test_every_protocol_is_registered(name):
    registry = pytest.importorskip('basicsr.utils.registry')
    assert all(options['type'] in registry.METRIC_REGISTRY for options in PROTOCOLS[name].metrics.values())


def test_without_basicsr_only_its_own_metrics_are_missing(folders):
    code = """if True:
        import sys
        sys.modules['basicsr'] = None
        from lorair_arch.cli import lorair
        for name in ('airnet', 'allweather', 'rgb'):
            code = lorair(['evaluate', 'ours', 'gt', '--protocol', name])
            sys.stderr.write(f'{code}, torch: {"torch" in sys.modules}\\n')
    """
    result = miniature.run(folders, python=('-c', code))
    assert result.stderr.splitlines() == [
        '0, torch: False',
        '0, torch: False',
        "error: calculate_psnr is BasicSR's, which is not installed: pip install basicsr (Python 3.10 to 3.12)",
        '2, torch: False',
    ]


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


def test_a_difference_of_pairs_is_surer_than_two_means():
    difficulty = np.random.default_rng(0).normal(30, 4, 100)
    gain = np.random.default_rng(1).normal(0.2, 0.3, 100)
    ours = [{'psnr': value} for value in difficulty + gain]
    theirs = [{'psnr': value} for value in difficulty]
    assert statistics.interval([r['psnr'] for r in ours])[0] < 30
    low, high = statistics.interval(statistics.differences(ours, theirs, 'psnr'))
    assert 0 < low < high < 0.35
    assert statistics.differences([{}, {'psnr': 2}], [{'psnr': 1}, {'psnr': 1}], 'psnr') == [1]


def test_intervals_are_scipys_and_repeatable():
    scipy_stats = pytest.importorskip('scipy.stats')
    values = list(np.random.default_rng(0).normal(30, 2, 60))
    found = statistics.interval(values)
    theirs = scipy_stats.bootstrap((values,), np.mean, method='percentile').confidence_interval
    assert found == pytest.approx(tuple(theirs), abs=0.05)
    assert statistics.interval(values) == found != statistics.interval(values, seed=1)
    assert statistics.interval([1.0]) is None
    assert statistics.interval([2.0, 2.0]) == (2, 2)


def test_intervals_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        low, high = statistics.interval(rng.normal(30, 2, 40), seed)
        held += low <= 30 <= high
    assert 88 <= held <= 99


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


def test_lpips_without_its_library_or_weights(folders, monkeypatch, capfd):
    lpips_metric._network.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'torchmetrics.image.lpip', None)
        code, _, err = run(capfd, 'ours', 'gt', '--protocol', 'perceptual')
    assert code == 2
    assert err == ["error: LPIPS needs torchmetrics, which is not installed: pip install 'lorair[lpips]'"]
    pytest.importorskip('torchmetrics')

    def refuse(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr('torchvision.models.alexnet', refuse)
    code, _, err = run(capfd, 'ours', 'gt', '--protocol', 'perceptual')
    assert code == 2
    assert err[0].startswith(
        "error: LPIPS needs AlexNet's weights, which cannot be downloaded (no network): get https://"
    )
    assert err[0].endswith('/checkpoints')


def test_lpips_of_random_weights(monkeypatch):
    pytest.importorskip('torchmetrics')
    from torchvision.models import alexnet

    # AlexNet's weights are not in any package: random ones stand in
    monkeypatch.setattr('torchvision.models.alexnet', lambda weights=None: alexnet())
    lpips_metric._network.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        clean = photo(0, 64, 64)
        values = [lpips_metric.calculate_lpips(noisy(clean, sigma), clean) for sigma in (0, 5, 40)]
    lpips_metric._network.cache_clear()
    assert values[0] == 0 < values[1] < values[2]
    with pytest.raises(ValueError, match='same shape'):
        lpips_metric.calculate_lpips(clean, clean[1:])


@pytest.mark.parametrize('name', ['psnr', 'ssim'])
def test_metrics_of_scikit_image_refuse_what_does_not_suit(name):
    from lorair_arch.metrics import skimage_metric

    metric = getattr(skimage_metric, f'calculate_{name}_skimage')
    with pytest.raises(ValueError, match='same shape'):
        metric(np.zeros((16, 16, 3)), np.zeros((16, 15, 3)))
    with pytest.raises(ValueError, match='nothing is left'):
        metric(np.zeros((15, 40, 3)), np.zeros((15, 40, 3)), multiple_of=16)
    image = np.random.default_rng(0).uniform(0, 255, (40, 50, 3))
    assert metric(image, image + 1, crop_border=4, multiple_of=16) == metric(image[4:36, 9:41], image[4:36, 9:41] + 1)


def test_ssim_of_scikit_image_names_its_window():
    from lorair_arch.metrics.skimage_metric import calculate_ssim_skimage

    image = np.zeros((10, 6, 3))
    with pytest.raises(ValueError, match='7 x 7 pixels, 6 x 10 are left'):
        calculate_ssim_skimage(image, image)
    with pytest.raises(ValueError, match='11 x 11 pixels'):
        calculate_ssim_skimage(np.zeros((10, 20, 3)), np.zeros((10, 20, 3)), gaussian=True)
