"""`lorair export`: a plain network that restores as the experts of one degradation do."""

import numpy as np
import pytest
import torch

from lorair_arch import Restorer, cli
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.errors import CheckpointError, LoRAIRError
from lorair_arch.weights.convert import convert, export
from lorair_arch.weights.files import load_file, save_file
from lorair_arch.weights.loading import load_into, state_dict_of
from tests import tiny
from tests.photos import photo, write


@pytest.fixture
def weights(tmp_path):
    return tiny.save_weights(tmp_path / 'weights')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('whole', [False, True])
def test_the_network_restores_as_the_experts_do(weights, tmp_path, suffix, whole):
    inputs, output = [weights], tmp_path / f'rain{suffix}'
    if whole:
        inputs = [tmp_path / 'whole.safetensors']
        convert([weights / 'base.pth', weights / 'experts.pth'], *inputs)
    assert cli.lorair(['export', *map(str, inputs), str(output), '--degradation', 'rain']) == 0
    plain = Restorer.from_pretrained([output, weights / 'router.pth'], 'cpu')
    experts = Restorer.from_pretrained(weights, 'cpu')
    assert plain.net.num_experts is None
    image = photo(0, 33, 41).astype(np.float32) / 255
    np.testing.assert_allclose(plain(image), experts(image, 'rain'), atol=1e-5)
    assert abs(plain(image) - experts(image, 'noise')).max() > 1e-3


def test_the_file_is_a_restorer_like_any_other(weights, tmp_path):
    output = tmp_path / 'haze.pth'
    line = export([weights / 'experts.pth', weights / 'base.pth'], output, 'haze')
    both = f'{weights / "base.pth"} with {weights / "experts.pth"}'
    assert line.startswith(f'{both}: experts for haze merged; written to {output} (')
    description = {'kind': 'restorer', 'network': {'type': 'LoRAIR', **tiny.PLAIN}, 'degradations': tiny.NAMES}
    assert load_file(output)['lorair'] == {**description, 'merged_for': 'haze'}
    load_into(LoRAIR(**tiny.PLAIN), state_dict_of(output)[0])  # as path.pretrain_network_g does
    load_into(LoRAIR(**tiny.LORA), state_dict_of(output)[0], allow_missing=('lora_A', 'lora_B'))
    convert([output], tmp_path / 'haze.safetensors')
    assert load_file(tmp_path / 'haze.safetensors')['lorair'] == {**description, 'merged_for': 'haze'}
    args = ['restore', str(write(tmp_path / 'in.png', photo())), '-o', str(tmp_path / 'out.png'), '--device', 'cpu']
    assert cli.lorair([*args, '--weights', str(output), str(weights / 'router.pth')]) == 0


def test_names_of_the_router_or_numbers_serve_too(weights, tmp_path):
    for file, network in (('base', tiny.PLAIN), ('experts', tiny.LORA)):
        kind = {'base': 'restorer'}.get(file, file)
        tiny.save(weights / f'{file}.pth', kind, network, state_dict_of(weights / f'{file}.pth')[0], names=None)
    export([weights], tmp_path / 'name.pth', 'rain')
    export([weights / 'base.pth', weights / 'experts.pth'], tmp_path / 'number.pth', '1')
    named, numbered = (load_file(tmp_path / f'{name}.pth')['params'] for name in ('name', 'number'))
    assert named.keys() == numbered.keys()
    assert all(torch.equal(named[key], numbered[key]) for key in named)


def test_averaged_weights_are_merged(weights, tmp_path):
    params, averaged = (state_dict_of(weights / f'{name}.pth')[0] for name in ('base', 'base'))
    averaged = {key: value + 0.01 for key, value in averaged.items()}
    tiny.save(weights / 'base.pth', 'restorer', tiny.PLAIN, params, params_ema=averaged)
    export([weights], tmp_path / 'rain.pth', 'rain')
    assert torch.equal(load_file(tmp_path / 'rain.pth')['params']['intro.bias'], averaged['intro.bias'])


def test_what_cannot_be_exported(weights, tmp_path):
    ours, base = tmp_path / 'ours.pth', weights / 'base.pth'
    cases = [
        ([weights], ours, 'rian', "--degradation is 'rian'; did you mean 'rain'?"),
        ([weights], ours, 'snowfall', "--degradation is 'snowfall'; known are noise, rain, haze"),
        ([base], ours, 'rain', f'{base} holds a LoRA-IR restorer without experts: there is nothing to merge'),
        ([weights / 'experts.pth'], ours, 'rain', 'the restorer that the experts were trained on is not among the'),
        ([weights / 'router.pth'], ours, 'rain', 'a restorer is not among the weights'),
        ([weights], base, 'rain', f"output '{base}' would replace the input: choose another name"),
        ([weights], tmp_path / 'ours.pt', 'rain', "ours.pt' ends in '.pt', expected .pth or .safetensors"),
    ]
    before = base.read_bytes()
    for inputs, output, degradation, message in cases:
        with pytest.raises(LoRAIRError) as caught:
            export(inputs, output, degradation)
        assert message in str(caught.value)
        assert not ours.exists()
    assert base.read_bytes() == before


def test_experts_of_another_order_than_the_router_are_refused(weights, tmp_path):
    content = load_file(weights / 'experts.pth')
    content['lorair']['degradations'] = tiny.NAMES[::-1]
    save_file(content, weights / 'experts.pth')
    with pytest.raises(CheckpointError, match='router.pth tells noise, rain, haze apart, but .*experts.pth was tra'):
        export([weights], tmp_path / 'rain.pth', 'rain')
    assert not (tmp_path / 'rain.pth').exists()
