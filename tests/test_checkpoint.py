"""Files of weights: what is read, what is refused, how they are written."""

import json
import os
import pickle
import zipfile

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.errors import CheckpointError
from lorair_arch.weights.files import load_file, save_file
from lorair_arch.weights.loading import infer_network, kind_of, load_into, state_dict_of

SIZES = {'width': 16, 'enc_blk_nums': [1, 2], 'middle_blk_num': 1, 'dec_blk_nums': [2, 0], 'prior_dim': 8}
LORA = {'rank': 2, 'num_experts': 3}
PLAIN = LoRAIR(**SIZES)
EXPERTS = LoRAIR(**SIZES, lora=LORA)
META = {'kind': 'restorer', 'network': {'type': 'LoRAIR', **SIZES}, 'degradations': ['noise', 'rain']}


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def copy_of(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


# reading


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_saved_weights_come_back_with_their_description(tmp_path, suffix):
    path = tmp_path / f'net{suffix}'
    save_file({'params': PLAIN.state_dict(), 'lorair': META}, path)
    weights, meta = state_dict_of(path)
    assert equal(weights, PLAIN.state_dict())
    assert meta == META


def test_content_decides_not_the_suffix(tmp_path):
    save_file({'params': PLAIN.state_dict()}, tmp_path / 'net.safetensors')
    (tmp_path / 'net.safetensors').rename(tmp_path / 'net.pth')
    assert equal(state_dict_of(tmp_path / 'net.pth')[0], PLAIN.state_dict())


def test_safetensors_takes_views_and_channels_last(tmp_path):
    whole = torch.rand(6, 4, 3, 3)
    weights = {'a': whole[:3], 'b': whole[3:], 'c': whole.to(memory_format=torch.channels_last)}
    save_file({'params': weights}, tmp_path / 'net.safetensors')
    assert equal(state_dict_of(tmp_path / 'net.safetensors')[0], weights)


@pytest.mark.parametrize(
    ('content', 'param_key', 'expected'),
    [
        ({'params': 1, 'params_ema': 2}, 'params', 1),
        ({'params': 1, 'params_ema': 2}, 'params_ema', 2),
        ({'params': 1}, 'params_ema', 1),
        ({'params_ema': 2}, 'params', 2),
        ({'state_dict': 3, 'epoch': 7}, 'params', 3),
    ],
)
def test_finds_the_weights_in_a_container(tmp_path, content, param_key, expected):
    values = {1: {'w': torch.ones(1)}, 2: {'w': torch.ones(2)}, 3: {'w': torch.ones(3)}, 7: 7}
    torch.save({key: values[value] for key, value in content.items()}, tmp_path / 'net.pth')
    weights, meta = state_dict_of(tmp_path / 'net.pth', param_key)
    assert len(weights['w']) == expected
    assert meta is None


@pytest.mark.parametrize('prefix', ['', 'module.', '_orig_mod.', 'module._orig_mod.'])
@pytest.mark.parametrize('zipped', [True, False])
def test_takes_bare_and_wrapped_weights_of_old_and_new_files(tmp_path, prefix, zipped):
    weights = {prefix + key: value for key, value in PLAIN.state_dict().items()}
    torch.save(weights, tmp_path / 'net.pth', _use_new_zipfile_serialization=zipped)
    assert equal(state_dict_of(tmp_path / 'net.pth')[0], PLAIN.state_dict())


def write(path, kind):
    """Writes a file that holds no usable weights."""
    if kind == 'png':
        cv2.imwrite(str(path.with_suffix('.png')), np.zeros((8, 8, 3), np.uint8))
        path.with_suffix('.png').rename(path)
    elif kind in ('truncated', 'old truncated'):
        torch.save({'params': PLAIN.state_dict()}, path, _use_new_zipfile_serialization=kind == 'truncated')
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == 'truncated safetensors':
        save_file({'params': PLAIN.state_dict()}, path.with_suffix('.safetensors'))
        path.write_bytes(path.with_suffix('.safetensors').read_bytes()[:3000])
    elif kind == 'zip':
        with zipfile.ZipFile(path, 'w') as file:
            file.writestr('readme.txt', 'hello')
    elif kind == 'program':
        with zipfile.ZipFile(path, 'w') as file:  # the layout of TorchScript
            file.writestr('net/data.pkl', '')
            file.writestr('net/code/__torch__.py', 'class Module: ...')
    elif kind == 'network':
        torch.save(nn.Linear(1, 1), path)
    elif kind == 'list':
        torch.save([torch.zeros(1)], path)
    elif kind == 'empty dict':
        torch.save({'params': {}}, path)
    elif kind == 'numbers':
        torch.save({'params': {'lr': 0.1}}, path)
    elif kind == 'state':
        torch.save({'epoch': 1, 'iter': 5, 'optimizers': [], 'schedulers': []}, path)
    elif kind == 'folder':
        path.mkdir()
    elif kind != 'missing':
        texts = {'empty': b'', 'text': 'größe: 3\n'.encode(), 'page': b'\n<!DOCTYPE html><html>', 'bytes': b'\1\2\3\4'}
        path.write_bytes(texts[kind])


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('missing', 'does not exist'),
        ('folder', 'cannot be read'),
        ('empty', 'is empty'),
        ('png', 'seems to be a PNG image'),
        ('text', 'seems to be a text file'),
        ('page', 'seems to be a web page'),
        ('bytes', 'neither a PyTorch nor a safetensors file'),
        ('zip', r'zip archive of other files \(readme.txt\)'),
        ('program', 'is a TorchScript program'),
        ('truncated', r'truncated or damaged PyTorch file \(3000 bytes\)'),
        ('old truncated', 'damaged'),
        ('truncated safetensors', 'truncated safetensors file'),
        ('network', r'torch\.nn\.modules\.linear\.Linear'),
        ('list', 'holds a list'),
        ('empty dict', 'no tensor in it'),
        ('numbers', "'lr' is a float"),
        ('state', r'path\.resume_state'),
    ],
)
def test_says_what_a_wrong_file_seems_to_be(tmp_path, kind, message):
    path = tmp_path / 'net.pth'
    write(path, kind)
    with pytest.raises(CheckpointError, match=message) as error:
        state_dict_of(path)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('form', ['zip', 'old', 'pickle'])
def test_code_in_a_file_never_runs(tmp_path, form):
    path, touched = tmp_path / 'net.pth', tmp_path / 'touched'
    content = {'params': {'weight': torch.zeros(1), 'bias': Hostile(touched)}}
    if form == 'pickle':
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == 'zip')
    with pytest.raises(CheckpointError, match='none of its code was run'):
        load_file(path)
    assert not touched.exists()
    torch.load(path, weights_only=False) if form != 'pickle' else pickle.loads(path.read_bytes())
    assert touched.exists()  # the file is as hostile as it should be


@pytest.mark.parametrize('seed', range(20))
def test_damaged_bytes_raise_nothing_else(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / 'net.pth'
    torch.save({'params': {'w': torch.zeros(4)}}, path, _use_new_zipfile_serialization=bool(seed % 2))
    data = bytearray(path.read_bytes())
    for position in rng.integers(0, len(data), 20):
        data[position] = rng.integers(256)
    path.write_bytes(data)
    try:
        state_dict_of(path)
    except CheckpointError as error:
        assert str(path) in str(error)


# writing


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, suffix):
    path = tmp_path / f'net{suffix}'
    save_file({'params': {'w': torch.zeros(2)}}, path)

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(CheckpointError, match='No space left'):
        save_file({'params': {'w': torch.ones(2)}}, path)
    assert state_dict_of(path)[0]['w'].sum() == 0
    assert os.listdir(tmp_path) == [path.name]


def test_makes_folders_and_names_a_path_that_cannot_be_written(tmp_path):
    save_file({'params': {'w': torch.zeros(2)}}, tmp_path / 'a' / 'b' / 'net.pth')
    with pytest.raises(CheckpointError, match='cannot be written'):
        save_file({'params': {}}, tmp_path / 'a' / 'b' / 'net.pth' / 'net.pth')


def test_safetensors_metadata_is_json(tmp_path):
    save_file({'params': {'w': torch.zeros(2)}, 'lorair': META}, tmp_path / 'net.safetensors')
    data = (tmp_path / 'net.safetensors').read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], 'little')])
    assert json.loads(header['__metadata__']['lorair']) == META


# loading into a network


def test_loads_exact_weights_and_converts_their_dtype():
    net = LoRAIR(**SIZES)
    load_into(net, {key: value.bfloat16() for key, value in PLAIN.state_dict().items()})
    assert all(value.dtype == torch.float32 for value in net.state_dict().values())
    assert equal(net.state_dict(), {key: value.bfloat16().float() for key, value in PLAIN.state_dict().items()})


def test_plain_weights_go_into_a_network_with_experts_where_that_is_allowed():
    net = LoRAIR(**SIZES, lora=LORA)
    with pytest.raises(CheckpointError, match=r'missing are \d+ .*lora_A'):
        load_into(net, PLAIN.state_dict())
    load_into(net, PLAIN.state_dict(), allow_missing=('lora_A', 'lora_B'))
    assert torch.equal(net.intro.weight, PLAIN.intro.weight)


def test_experts_alone_go_on_top_of_their_base():
    net = LoRAIR(**SIZES, lora=LORA)
    experts = {key: value + 1 for key, value in EXPERTS.state_dict().items() if key.endswith(('lora_A', 'lora_B'))}
    load_into(net, experts, allow_missing=PLAIN.state_dict().keys())
    assert all(torch.equal(net.state_dict()[key], value) for key, value in experts.items())


def test_experts_may_bring_their_biases():
    net = LoRAIR(**SIZES, lora=LORA)
    weights = {k: v + 1 for k, v in EXPERTS.state_dict().items() if k.endswith(('lora_A', 'lora_B', '.bias'))}
    load_into(net, weights, allow_missing=PLAIN.state_dict().keys())
    assert torch.equal(net.intro.bias, weights['intro.bias'])
    del weights['intro.bias']
    with pytest.raises(CheckpointError, match=r'missing are 1 of the network.*intro\.bias'):
        load_into(net, weights, allow_missing=PLAIN.state_dict().keys())


def test_a_part_of_the_experts_is_refused():
    weights = copy_of(EXPERTS)
    del weights['ending.lora_B']
    with pytest.raises(CheckpointError, match=r'missing are 1 of the network.*ending\.lora_B'):
        load_into(LoRAIR(**SIZES, lora=LORA), weights, allow_missing=('lora_A', 'lora_B'))


def without(weights):
    del weights['intro.weight'], weights['ending.bias']


def with_more(weights):
    weights.update({f'head.{i}': torch.zeros(1) for i in range(5)})


def undefined(weights):
    weights['ending.bias'][1] = float('nan')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (without, r"missing are 2 of the network's \d+ tensors \(.*intro\.weight.*\)"),
        (with_more, r'unknown to the network: 5 \(head\.0, head\.1, head\.2, \.\.\.\)'),
        (undefined, 'infinite or undefined numbers in ending.bias'),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(change, message):
    net = LoRAIR(**SIZES)
    before, weights = copy_of(net), copy_of(PLAIN)
    change(weights)
    with pytest.raises(CheckpointError, match=message) as error:
        load_into(net, weights, path='net.pth')
    assert 'net.pth' in str(error.value)
    assert equal(net.state_dict(), before)


def test_another_size_is_named_with_the_options_that_fit():
    with pytest.raises(CheckpointError, match=r'intro.weight is \[16, 3, 3, 3\].*\[32, 3, 3, 3\].*it fits.*width: 16'):
        load_into(LoRAIR(**{**SIZES, 'width': 32}), PLAIN.state_dict())


@pytest.mark.parametrize(
    ('weights', 'name'),
    [
        (EXPERTS.state_dict(), 'a LoRA-IR restorer with 3 experts'),
        (
            {'prior_mlp.0.weight': torch.zeros(1), 'head.weight': torch.zeros(4, 1)},
            'a degradation router for 4 degradations',
        ),
        ({'intro.weight': torch.zeros(1), 'middle_blks.0.conv1.weight': torch.zeros(1)}, 'a NAFNet'),
        ({'intro.lora_A': torch.zeros(2, 1, 1)}, '2 low-rank experts without their base'),
        ({'fc.weight': torch.zeros(1)}, 'a network unknown here, with 1 tensors'),
    ],
)
def test_another_architecture_is_named(weights, name):
    with pytest.raises(CheckpointError, match=f'does not fit LoRAIR: it seems to hold {name}'):
        load_into(LoRAIR(**SIZES), weights)


# recognising


@pytest.mark.parametrize('net', [PLAIN, EXPERTS], ids=['plain', 'experts'])
def test_sizes_are_inferred_from_shapes(net):
    network = infer_network(net.state_dict())
    assert network.pop('type') == 'LoRAIR'
    assert network == {**SIZES, **({'lora': LORA} if net is EXPERTS else {})}
    load_into(LoRAIR(**network), net.state_dict())


def test_kinds():
    assert kind_of(PLAIN.state_dict()) == kind_of(EXPERTS.state_dict()) == 'restorer'
    assert kind_of({key: value for key, value in EXPERTS.state_dict().items() if 'lora' in key}) == 'experts'
    assert kind_of({'w': torch.zeros(1)}) is None
    with pytest.raises(CheckpointError, match='a network unknown here'):
        infer_network({'w': torch.zeros(1)})


def test_incomplete_weights_have_no_sizes():
    weights = copy_of(EXPERTS)
    del weights['prior_mlp.0.lora_A']
    with pytest.raises(CheckpointError, match=r'prior_mlp\.0\.lora_A is missing'):
        infer_network(weights)
