"""The published numbers: well-formed, each with its source, and the page that is made of them up to date."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lorair_arch import cli
from lorair_arch.metrics.protocols import PROTOCOLS
from lorair_arch.metrics.published import benchmarks, mismatches, page, remark

PAGE = Path(__file__).parents[1] / 'datasets/BENCHMARKS.md'
NUMBERS = [number for benchmark in benchmarks().values() for number in benchmark.numbers]


def test_there_are_numbers_of_every_set():
    assert len(NUMBERS) > 250
    assert all(benchmark.numbers for benchmark in benchmarks().values())


@pytest.mark.parametrize('name', benchmarks())
def test_every_number_is_plausible_and_has_a_source(name):
    benchmark = benchmarks()[name]
    assert benchmark.protocol in (None, *PROTOCOLS)
    for number in benchmark.numbers:
        assert 15 < float(number.psnr) < 45
        assert number.ssim == '-' or 0.4 < float(number.ssim) < 1
        assert 2018 <= number.year <= 2026
        assert number.parameters is None or 0.1 < number.parameters < 1000
        assert number.source
        assert number.url.startswith('https://')
        assert number.protocol in (None, *PROTOCOLS)
    values = [float(number.psnr) for number in benchmark.numbers]
    assert values == sorted(values, reverse=True)


def test_no_method_is_in_a_set_twice():
    twice = [key for key, count in Counter((n.benchmark, n.method) for n in NUMBERS).items() if count > 1]
    assert twice == []


AVERAGES = {
    'all_weather': 'TransWeather 30.21, WeatherDiff 31.57, AWRCP 33.04, Histoformer 33.68, MODEM 34.18',
    'three_task': 'AirNet 31.20, IDR 31.83, ProRes 30.38, PromptIR 32.06, NDR 31.51, GridFormer 32.19, '
    'InstructIR-3D 32.43, Up-Restorer 32.16, Perceive-IR 32.63, AdaIR 32.69, MoCE-IR 32.73, DFPIR 32.88, EvoIR 33.00, '
    'BRDNet 27.80, LPNet 23.64, FDGAN 28.02, MPRNet 30.17, DL 29.98, PromptIR + TUR 32.67, '
    'InstructIR-5D 31.50',
    'five_task': 'HINet 27.40, DGUNet 28.32, MIRNetV2 27.34, SwinIR 25.04, Restormer 27.60, NAFNet 27.76, DL 21.05, '
    'TransWeather 25.22, TAPE 25.09, AirNet 25.49, IDR 28.34, InstructIR-5D 29.55, '
    'TransWeather + TUR 28.56, AirNet + TUR 27.30, AdaIR 30.20, MoCE-IR 30.58, F²D-Net 30.69',
}


@pytest.mark.parametrize('setting', AVERAGES)
def test_the_averages_of_the_sources_agree(setting):
    """A slip of a digit in a row would move its average, which the sources print (two contradict theirs)."""
    for entry in AVERAGES[setting].split(', '):
        method, _, average = entry.rpartition(' ')
        values = [float(n.psnr) for n in NUMBERS if n.method == method and n.benchmark.startswith(f'{setting}/')]
        assert sum(values) / len(values) == pytest.approx(float(average), abs=0.011), method


def test_outliers_and_other_protocols_are_marked():
    doubtful = {(n.benchmark, n.method): remark(n, benchmarks()[n.benchmark].protocol) for n in NUMBERS}
    assert "TUR's README has 0.8980" in doubtful['all_weather/outdoor_rain', 'All-in-One']
    assert doubtful['five_task/gopro', 'InstructIR-5D'] == 'measured by rgb'
    assert doubtful['three_task/rain100l', 'PromptIR'] == ''
    assert doubtful['five_task/gopro', 'MoCE-IR'] == 'its source does not say how it measured'
    outliers = [number for number in NUMBERS if number.outlier]
    assert len(outliers) == 6  # every entry names a number that is there


def test_what_may_not_be_compared():
    assert mismatches('all_weather/raindrop_a', 'allweather', 58) == []
    assert 'was published by allweather' in mismatches('all_weather/raindrop_a', 'rgb', 58)[0]
    assert mismatches('real_weather/spa', 'rgb', 7) == [
        'the sources of real_weather/spa do not say how they measured: compare with care'
    ]


def test_the_page_is_current(capsys):
    assert cli.lorair(['evaluate', '--published']) == 0
    assert PAGE.read_text(encoding='utf-8') == capsys.readouterr().out == page()
