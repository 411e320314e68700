"""The benchmark runs and reports every key; how fast anything is, is not tested."""

import itertools
import json
import math
from functools import partial

import pytest
import torch

import bench
import benchmark
import measures
from contestants import KEYS
from lorair_arch.archs import reference
from lorair_arch.archs.lorair_arch import LoRAIR
from measures import PeakBytes, Seconds, take_turns

NETWORK = {'width': 16, 'enc_blk_nums': [1, 1], 'middle_blk_num': 1, 'dec_blk_nums': [1, 1], 'prior_dim': 8}
VISION = {'image_size': 16, 'patch_size': 8, 'layers': 1, 'width': 16, 'head_width': 8}
TINY = bench.Setting(
    network=NETWORK,
    crop=16,
    image=48,
    experts=(0, 1, 2, 1),
    clip_model={'embed_dim': 16, 'vision_cfg': VISION},
    view=16,
    matrix=32,
    lora={'rank': 2, 'num_experts': 3},
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(bench, 'SMALL', TINY)
    monkeypatch.setattr(measures, '_SHORTEST', 0)


@pytest.fixture
def run(monkeypatch):
    """The command; gives its exit code."""

    def main(*flags):
        monkeypatch.setattr('sys.argv', ['benchmark.py', *flags])
        return benchmark.main()

    return main


def test_every_key_is_reported(run, tmp_path, capsys):
    file = tmp_path / 'out.json'
    assert run('--rounds', '1', '--json', str(file)) == 0
    report = json.loads(file.read_text())
    assert list(report['results']) == list(KEYS)
    for result in report['results'].values():
        for part in ('value', 'contestant', 'reference'):
            numbers = [result[part][name] for name in ('median', 'low', 'high')] if part in result else [1]
            assert all(math.isfinite(number) and number > 0 for number in numbers)
    assert report['machine']['torch'] == torch.__version__
    assert report['settings']['network'] == NETWORK
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in table[2:]] == list(KEYS)


def test_only_some_keys_and_the_spread_of_rounds(run, tmp_path):
    file = tmp_path / 'out.json'
    only = ['bf16_step', 'gflops', 'finetune_step']
    assert run('--bf16', '--rounds', '3', '--json', str(file), '--only', *only) == 0
    report = json.loads(file.read_text())
    assert report['settings']['precision'] == 'bf16'
    results = report['results']
    assert list(results) == only
    for result in results.values():
        assert result['value']['low'] <= result['value']['median'] <= result['value']['high']


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--only', 'finetune_stp'], "--only: unknown key 'finetune_stp'; did you mean 'finetune_step'?"),
        (['--rounds', '0'], '--rounds: expected at least 1, found 0'),
        (
            ['--json', f'{__file__}/out.json'],
            f'{__file__}/out.json cannot be written: Not a directory; move away the file that stands in the place of a '
            'folder',
        ),
        (
            ['--json', __file__],
            f"output '{__file__}' exists already: choose another name, or --overwrite to replace it",
        ),
        (['--json', '/dev/null', '--overwrite'], "output '/dev/null' is a device: choose another name"),
    ],
)
def test_wrong_flags(run, capsys, flags, message):
    assert run(*flags) == 2
    assert capsys.readouterr().err == f'error: {message}\n'


def test_the_plain_network_is_the_one_of_the_reference():
    plain = LoRAIR(**NETWORK)
    bench.perturb(plain)
    lq, prior = torch.rand(2, 3, 19, 26), torch.randn(2, 8)
    grads = []
    for forward in (plain, partial(reference.restore, plain)):
        plain.zero_grad()
        forward(lq, prior).square().mean().backward()
        grads.append({name: param.grad.clone() for name, param in plain.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-3, atol=1e-6)


def test_turns_are_taken_round_by_round():
    order = []
    contestants = {name: Seconds(lambda name=name: order.append(name), 'cpu') for name in 'ab'}
    values = take_turns(contestants, 2, lambda name: None)
    # each is called as often as its time asks for
    assert ''.join(name for name, _ in itertools.groupby(order)) == 'ab' + 'abab'
    assert {name: len(v) for name, v in values.items()} == {'a': 2, 'b': 2}


def test_peak_memory_is_counted_exactly():
    """A step that holds two blocks at once and then a third one beside one of them."""
    net = torch.nn.Linear(10, 10, bias=False)
    optimizer = torch.optim.SGD(net.parameters())
    model = type('Model', (), {'net': net, 'optimizers': [optimizer]})()

    def step():
        a, b = torch.empty(1000), torch.empty(2000)
        del a
        c = torch.empty(500)
        del b, c

    assert PeakBytes(model, step, 'cpu').measure() == 4 * (10 * 10 + 1000 + 2000)
