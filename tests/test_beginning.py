"""Trainings that begin with weights of the zoo, or of any single file, for other degradations too."""

import logging
import re

import pytest
from basicsr.models import build_model

from lorair_arch import cli
from lorair_arch import weights as zoo
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.errors import CheckpointError
from lorair_arch.weights import bundle
from lorair_arch.weights.pretrained import read_weights, weights_for
from tests import miniature
from tests.outcome import same
from tests.tiny import perturbed

STAGES = ('router', 'pretrain', 'finetune')
THREE = ['clean', 'noise', 'rain']


def pack(folder, names):
    """Writes a folder of the zoo: networks of the miniature's sizes, with an expert for each degradation."""
    kinds = (DegradationRouter, {**miniature.stage('router')['network_router'], 'num_degradations': len(names)})
    lora = {'rank': 2, 'num_experts': len(names), 'top_k': 1}
    nets = [
        perturbed(kind(**{key: value for key, value in options.items() if key != 'type'}))
        for kind, options in (kinds, (LoRAIR, {**miniature.stage('pretrain')['network_g'], 'lora': lora}))
    ]
    bundle.save_folder(folder, *nets, names)
    return nets


@pytest.fixture
def shipped(here, monkeypatch):
    """The zoo has 'other', which is for three degradations, and 'same', for those of the options."""
    monkeypatch.setattr(zoo, '_ROOT', here / 'zoo')
    return {name: pack(here / 'zoo' / name, names) for name, names in (('other', THREE), ('same', ['noise', 'rain']))}


def begun(caplog, name, **path):
    """Gives the state dict of a training that has made no step yet, and what the log said."""
    caplog.set_level(logging.INFO, 'basicsr')
    logging.getLogger('basicsr').addHandler(caplog.handler)
    opt = miniature.stage(name)
    opt['path'] |= path
    model = build_model(opt | {'is_train': True, 'dist': False, 'rank': 0, 'world_size': 1})
    return model.net.state_dict(), ' '.join(record.getMessage() for record in caplog.records)


def file(here, name):
    return str(here / 'zoo' / name / 'model.safetensors')


def test_the_same_degradations_are_taken_over_whole(here, shipped, caplog):
    for name, label, net in zip(('router', 'finetune'), ('router', 'g'), shipped['same']):
        state_dict, _ = begun(caplog, name, **{f'pretrain_network_{label}': file(here, 'same')})
        assert same(state_dict, net.state_dict())


def test_a_router_for_other_degradations_gets_a_new_head(here, shipped, caplog):
    state_dict, log = begun(caplog, 'router', pretrain_network_router=file(here, 'other'))
    theirs = shipped['other'][0].state_dict()
    new = {'head.weight', 'head.bias'}
    assert state_dict['head.weight'].shape == (2, 4)
    assert same(*({key: value for key, value in net.items() if key not in new} for net in (state_dict, theirs)))
    assert f'Of {file(here, "other")} the head (2 tensors) is not taken over: it is for clean, noise, rain.' in log


@pytest.mark.parametrize(
    ('name', 'zoo_name', 'said'),
    [
        ('pretrain', 'same', 'are left out.'),
        ('finetune', 'other', 'are not taken over: they are for clean, noise, rain.'),
    ],
)
def test_a_restorer_goes_without_experts_that_it_cannot_use(here, shipped, caplog, name, zoo_name, said):
    state_dict, log = begun(caplog, name, pretrain_network_g=file(here, zoo_name))
    theirs = shipped[zoo_name][1].state_dict()
    plain = {key: value for key, value in theirs.items() if not key.endswith(('lora_A', 'lora_B'))}
    assert same({key: state_dict[key] for key in plain}, plain)
    assert re.search(rf'Of {file(here, zoo_name)} the experts \(\d+ tensors\) {said}', log)


def test_a_frozen_router_for_other_degradations_is_refused(here, shipped, caplog):
    with pytest.raises(CheckpointError, match='tells clean, noise, rain apart, in this order, but degradations says'):
        begun(caplog, 'pretrain', pretrain_network_router=file(here, 'other'))


def test_a_whole_life_by_name(here, shipped, capsys):
    """Router and restorer begin with 'other'; the frozen router of the later stages is the one just trained."""
    files = []
    for name, label in zip(STAGES, ('router', 'g', None)):
        opt = miniature.stage(name)
        opt['train'] |= {'total_iter': 1}
        opt['val'], opt['logger']['save_checkpoint_freq'] = None, 1
        opt['datasets'].pop('val')
        if label:
            opt['path'][f'pretrain_network_{label}'] = 'other'
        files.append(miniature.write_options(here, opt))
    for one in files:  # several at once would be processes, which know the real zoo
        assert cli.basicsr(['train', '-opt', one]) == 0
    test = miniature.as_test(miniature.stage('finetune'))
    assert cli.basicsr(['test', '-opt', miniature.write_options(here, test, 'test')]) == 0
    # and the one file says by which trainings it was made
    models = [f'experiments/{name}/models/net_{label}_latest.pth' for name, label in zip(STAGES, ('router', 'g', 'g'))]
    assert cli.lorair(['convert', *models, 'one.safetensors']) == 0
    capsys.readouterr()
    assert cli.lorair(['inspect', 'one.safetensors']) == 0
    text = capsys.readouterr().out
    assert '  trained by    router (DegradationRouterModel), 1 iterations\n' in text
    trained = '  trained by    pretrain (LoRAIRPretrainModel), 1 iterations\n'
    assert f'{trained}  then by       finetune (LoRAIRFinetuneModel), 1 iterations\n' in text
    description = weights_for('restorer', 'one.safetensors')[1]
    assert [training['name'] for training in description['training']] == ['pretrain', 'finetune']


def test_names_that_are_none(here, shipped, capsys):
    opt = miniature.stage('pretrain')
    opt['path'] = {'pretrain_network_router': 'same', 'pretrain_network_g': 'smae'}
    assert cli.basicsr(['train', '-opt', miniature.write_options(here, opt)]) == 2
    said = "path.pretrain_network_g: found 'smae', which does not exist (looked for from"
    assert said in capsys.readouterr().err
    opt['path'] = {'pretrain_network_router': 'other'}
    assert cli.basicsr(['train', '-opt', miniature.write_options(here, opt)]) == 2
    assert 'which tells clean, noise, rain apart, in this order' in capsys.readouterr().err


def test_weights_of_one_network_out_of_both(here, shipped):
    for kind, net in zip(('router', 'restorer'), shipped['other']):
        state_dict, description = weights_for(kind, file(here, 'other'))
        assert same(state_dict, net.state_dict())
        assert description['degradations'] == THREE
        assert description['network'] == read_weights(file(here, 'other'))[kind].network
