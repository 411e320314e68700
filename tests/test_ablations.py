"""Trainings without a part of the method: each lacks what it says, and is compared with that of the same seed."""

import json
from pathlib import Path

import pytest
import torch

from lorair_arch.weights.pretrained import load_networks
from tests.zoo import write_zoo_data

FEW = '--output', 'ablations', '--pretrain', '2', '--finetune', '1', '--crop', '32', '--batch', '2', '--limit', '1'


@pytest.fixture
def trainings(load, zoo, monkeypatch):
    """The trainings that are compared, a few of them; the data to train on is in datasets/zoo."""
    write_zoo_data(load, monkeypatch)
    all_of_them = load('ablation_trainings').TRAININGS
    for name in ('prior, trained longer', 'experts, all weights learn'):
        monkeypatch.delitem(all_of_them, name)
    return all_of_them


@pytest.fixture
def ablations(zoo, trainings):
    return lambda *args: zoo(*FEW, *args, script='ablations')


def test_a_run_that_goes_on_gives_the_same_table(ablations, trainings):
    code, table, errors = ablations('--seeds', '1')
    assert code == 0, errors
    rows = [line.split('|')[1].strip() for line in table.splitlines() if line.startswith('| ')]
    measured = ['no prior', 'prior', 'experts', 'experts, the right one', 'experts, a wrong one', 'one adapter']
    assert rows == ['training', *measured]
    assert Path('ablations/ablations.png').read_bytes().startswith(b'\x89PNG')

    results = json.loads(Path('ablations/results.json').read_text())
    assert list(results['results']) == measured
    assert len(results['results']['prior']['0']) == 7  # sets
    del results['results']['one adapter']  # as if it had been stopped there
    Path('ablations/results.json').write_text(json.dumps(results))
    trained = Path('experiments/ablations_one_adapter_0/models/net_g_latest.pth')
    before = trained.stat().st_mtime_ns
    code, again, _ = ablations('--seeds', '1')
    assert code == 0 and again.splitlines()[-len(rows) - 1 :] == table.splitlines()[-len(rows) - 1 :]
    assert trained.stat().st_mtime_ns == before

    # what one training has learnt is not what another was given
    base, adapter = (
        torch.load(f'experiments/ablations_{name}_0/models/net_g_latest.pth', weights_only=True)['params_ema']
        for name in ('prior', 'one_adapter')
    )
    used = [value[0].any() for key, value in adapter.items() if key.endswith('lora_B')]
    unused = [value[1:].any() for key, value in adapter.items() if key.endswith('lora_B')]
    assert any(used) and not any(unused)
    assert not base.keys() & adapter.keys()


def test_results_of_other_settings_are_not_mixed(ablations):
    Path('ablations').mkdir()
    Path('ablations/results.json').write_text(json.dumps({'settings': {'pretrain': 9}, 'results': {}}))
    code, _, errors = ablations()
    assert code == 2 and 'has results with' in errors and 'another --output' in errors
    Path('ablations/results.json').write_text('[]')
    code, _, errors = ablations()
    assert code == 2 and 'ablations/results.json holds something else than results' in errors


def test_a_router_without_a_part(load):
    router = load_networks('lorair-tiny')[0]
    config = {'embed_dim': 128, 'vision_cfg': {'image_size': 96, 'layers': [1, 1, 1, 1], 'width': 16, 'head_width': 32}}
    more = {'clip_model': config, 'num_degradations': 7, 'views': 'windows', 'clip_grid': 4, 'freeze_clip': False}
    lq = torch.rand(2, 3, 40, 50)
    with torch.no_grad():
        logits, prior = router(lq)
        for settings, same in (({}, (True, True)), ({'prior': False}, (True, False)), ({'first': True}, (False, True))):
            ablated = load('ablation_trainings').AblatedRouter(**settings, **more).eval()
            ablated.load_state_dict(router.state_dict())
            found = ablated(lq)
            assert (torch.equal(found[0], logits), torch.equal(found[1], prior)) == same
            if settings.get('first'):
                assert found[0].argmax(1).tolist() == [0, 0]
            if not settings.get('prior', True):
                assert not found[1].any()


def test_gains_are_those_of_the_same_seed(load):
    results = {
        'prior': {'0': {'a': 20.0, 'b': 30.0}, '1': {'a': 22.0, 'b': 32.0}},
        'other': {'1': {'a': 23.0, 'b': 35.0}},
    }
    module = load('ablations')
    assert module.differences(results, 'other') == [2.0]
    assert '| +2.00 ' in module.table(results).splitlines()[-1]
