"""The contest of networks: each has the steps that fit into its minutes, and starts anew where results are missing."""

import json
from pathlib import Path

import pytest
import torch

from tests.zoo import write_zoo_data

NET = {'width': 32, 'enc_blk_nums': [1, 1], 'middle_blk_num': 1, 'dec_blk_nums': [1, 1]}


@pytest.fixture
def networks(load, tmp_path, monkeypatch, capsys):
    """The command with two small contestants; gives its exit code, table and messages."""
    monkeypatch.chdir(tmp_path)
    write_zoo_data(load, monkeypatch)
    module = load('networks')
    contestants = {
        'one': module.Contestant(NET, ((32, 2),)),
        'two parts': module.Contestant(NET | {'width': 16}, ((16, 2), (32, 1)), seed=1),
    }
    monkeypatch.setattr(module, 'CONTESTANTS', contestants)
    monkeypatch.setattr(module, '_TRIAL', 3)
    monkeypatch.setattr(module, '_ROUNDS', 2)

    def main(*args: str):
        monkeypatch.setattr('sys.argv', ['networks', '--output', 'networks', *args])
        code = module.main()
        return code, *capsys.readouterr()

    return main


def test_each_is_trained_once_and_shown(networks):
    code, table, errors = networks('--minutes', '0.005')
    assert code == 0, errors
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in table.splitlines() if line.startswith('| ')]
    assert [row[0] for row in rows] == ['training', 'one', 'two parts']
    assert rows[0][4:] == ['clean', 'noise', 'rain', 'haze', 'blur', 'lowlight', 'jpeg', 'mean of degraded']
    assert Path('networks/networks.png').read_bytes().startswith(b'\x89PNG')
    content = json.loads(Path('networks/results.json').read_text())
    one, two = content['results']['one'], content['results']['two parts']
    assert one['parameters'] > two['parameters'] > 0
    assert (len(one['seconds']), len(two['seconds'])) == (1, 2)
    for result in (one, two):
        minutes = [minute for minute, _ in result['curve']]
        assert minutes == sorted(minutes) and minutes[0] > 0
        for steps, seconds in zip(result['steps'], result['seconds']):  # a step more or less than fits
            assert abs(steps * seconds - 0.3 / len(result['steps'])) <= seconds
        assert len(result['curve']) >= len(result['steps'])
    values = one['curve'][-1][1]
    degraded = [values[name] for name in rows[0][5:-1]]
    assert float(rows[1][-1]) == pytest.approx(sum(degraded) / len(degraded), abs=0.006)
    assert not list(Path().glob('experiments*'))

    content['results']['two parts'] = {'seconds': two['seconds']}  # as if it had been stopped there
    Path('networks/results.json').write_text(json.dumps(content))
    code, _, _ = networks('--minutes', '0.005')
    assert code == 0
    again = json.loads(Path('networks/results.json').read_text())['results']
    assert again['one'] == one and again['two parts']['steps'] == two['steps']


def test_the_second_part_goes_on_from_the_first(networks, load, tmp_path):
    module = load('networks')
    (tmp_path / 'whole').mkdir()
    module.contest(module.CONTESTANTS['two parts'], [1, 1], 1e-9, False, tmp_path / 'whole')  # a step of each part
    opts = [module.load_options(tmp_path / f'whole/part{i}.yml', True, '.') for i in range(2)]
    first, second = (tmp_path / f'whole/experiments/part{i}/models/net_g_latest.pth' for i in range(2))
    assert opts[1]['path']['pretrain_network_g'] == str(first)
    assert opts[0]['train']['optim_g']['lr'] == 1e-3 and opts[0]['train']['scheduler']['periods'] == [2]
    assert opts[1]['train']['optim_g']['lr'] == pytest.approx(5e-4) and opts[1]['train']['scheduler']['periods'] == [1]
    before, after = (torch.load(file, weights_only=True)['params'] for file in (first, second))
    moved = max((before[key] - after[key]).abs().max().item() for key in before)
    assert 0 < moved < 2e-3  # one step of 5e-4 away, and not a start from scratch


def test_mistakes_are_said(networks):
    code, _, errors = networks('--minutes', '0')
    assert code == 2 and '--minutes must be more than 0' in errors
    Path('networks').mkdir()
    Path('networks/results.json').write_text(json.dumps({'settings': {'minutes': 7}, 'results': {}}))
    code, _, errors = networks('--minutes', '1')
    assert code == 2 and 'has results with' in errors and 'another --output' in errors
