"""`lorair convert` and what reads its files: official, BasicSR's form and safetensors hold the same weights."""

import os

import numpy as np
import pytest
import torch

from lorair_arch import Restorer, cli
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.errors import CheckpointError, LoRAIRError
from lorair_arch.weights.convert import convert
from lorair_arch.weights.files import load_file, save_file
from lorair_arch.weights.loading import infer_network
from lorair_arch.weights.official import convert_official, convert_to_official
from tests import tiny
from tests.golden import Golden
from tests.photos import photo, write

NAMES = ['snow', 'rain', 'raindrop']
# sizes that the weights tell: heads of 64 channels and quick GELU, as in OpenAI's CLIP
VISION = {'image_size': 16, 'patch_size': 8, 'layers': 1, 'width': 64, 'head_width': 64, 'mlp_ratio': 2.0}
ROUTER = {'clip_model': {'embed_dim': 768, 'vision_cfg': VISION, 'quick_gelu': True}, 'num_degradations': 3}
PLAIN = {'width': 16, 'enc_blk_nums': [1], 'middle_blk_num': 1, 'dec_blk_nums': [1], 'prior_dim': 384}
LORA = {'rank': 2, 'num_experts': 3}


def equal(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def without_experts(weights):
    return {key: value for key, value in weights.items() if not key.endswith(('lora_A', 'lora_B'))}


@pytest.fixture
def official(tmp_path):
    """A folder with official files: a router in bf16, as the release saves it, and a restorer with experts."""
    folder = tmp_path / 'official'
    router = convert_to_official(tiny.perturbed(DegradationRouter(**ROUTER)).state_dict())
    save_file({'params': {key: value.bfloat16() for key, value in router.items()}}, folder / 'setting1_router.pth')
    restorer = tiny.perturbed(LoRAIR(**PLAIN, lora=LORA)).state_dict()
    save_file({'params': convert_to_official(restorer)}, folder / 'setting1_ir.pth')
    return folder


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('name', ['router', 'ir_pretrain', 'ir_finetune_top1', 'ir_finetune_top2', 'train_finetune'])
def test_official_to_ours_and_back_bit_for_bit(tmp_path, name, suffix):
    official, ours, back = tmp_path / 'official.pth', tmp_path / f'ours{suffix}', tmp_path / 'back.pth'
    weights = Golden(name).official()
    if name == 'router':
        weights = {key: value.bfloat16() for key, value in weights.items()}
    torch.save({'params': weights}, official)
    convert([official], ours)
    convert([ours], back, to='official')
    assert equal(
        torch.load(ours)['params'] if suffix == '.pth' else load_file(ours)['params'], convert_official(weights)
    )
    content = torch.load(back)
    assert content.keys() == {'params'}
    assert equal(content['params'], weights)


def test_every_form_restores_the_same(official, tmp_path):
    expected = Restorer.from_pretrained(official, 'cpu')
    assert expected.names == ['0', '1', '2']
    image = photo()
    for suffix in ('.pth', '.safetensors'):
        for name in ('router', 'ir'):
            convert([official / f'setting1_{name}.pth'], tmp_path / suffix[1:] / f'{name}{suffix}', degradations=NAMES)
        restorer = Restorer.from_pretrained(tmp_path / suffix[1:], 'cpu')
        assert restorer.names == NAMES
        np.testing.assert_array_equal(restorer(image), expected(image))
        np.testing.assert_array_equal(restorer(image, 'rain'), expected(image, '1'))
    assert (expected(image) != image).any()


def test_names_in_another_order_are_refused(official, tmp_path):
    convert([official / 'setting1_router.pth'], tmp_path / 'ours/router.pth', degradations=NAMES)
    convert([official / 'setting1_ir.pth'], tmp_path / 'ours/ir.pth', degradations=NAMES[::-1])
    with pytest.raises(
        CheckpointError, match='router.pth tells snow, rain, raindrop apart, but .*ir.pth was trained for'
    ):
        Restorer.from_pretrained(tmp_path / 'ours', 'cpu')


def test_official_files_are_what_they_were_made_from(official):
    image = photo().astype(np.float32) / 255
    restorer = Restorer.from_pretrained(official, 'cpu')
    router, net = DegradationRouter(**ROUTER).eval(), LoRAIR(**PLAIN, lora=LORA).eval()
    for module, name in ((router, 'setting1_router.pth'), (net, 'setting1_ir.pth')):
        module.load_state_dict(convert_official(torch.load(official / name)['params']))
    lq = torch.from_numpy(image.transpose(2, 0, 1))[None]
    with torch.no_grad():
        logits, prior = router(lq)
        out = net(lq, prior, logits).clamp(0, 1)
    np.testing.assert_allclose(restorer(image), out[0].permute(1, 2, 0).numpy(), atol=1e-5)


def test_restore_takes_official_files(official, tmp_path):
    image = photo()
    command = ['restore', str(write(tmp_path / 'in.png', image)), '-o', str(tmp_path / 'out.png')]
    weights = [str(official / name) for name in ('setting1_ir.pth', 'setting1_router.pth')]
    assert cli.lorair([*command, '--device', 'cpu', '--weights', *weights]) == 0
    assert (tmp_path / 'out.png').exists()


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_the_file_describes_its_network(official, tmp_path, suffix):
    output = tmp_path / f'ours{suffix}'
    convert([official / 'setting1_ir.pth'], output, degradations=NAMES)
    network = {'type': 'LoRAIR', **PLAIN, 'lora': LORA}
    assert load_file(output)['lorair'] == {'kind': 'restorer', 'network': network, 'degradations': NAMES}
    convert([official / 'setting1_router.pth'], output, overwrite=True)
    network = {'type': 'DegradationRouter', **ROUTER}
    assert load_file(output)['lorair'] == {'kind': 'router', 'network': network, 'degradations': []}


def test_names_and_options_survive_another_conversion(official, tmp_path):
    first, second = tmp_path / 'a.pth', tmp_path / 'b.safetensors'
    network = {'type': 'LoRAIR', **PLAIN, 'lora': {**LORA, 'top_k': 2}, 'local_pool_size': [32, 32]}
    weights = tiny.perturbed(LoRAIR(**PLAIN, lora=LORA)).state_dict()
    averaged = {key: value + 1 for key, value in weights.items()}
    meta = {'kind': 'restorer', 'network': network, 'degradations': NAMES}
    save_file({'params': weights, 'params_ema': averaged, 'lorair': meta}, first)
    convert([first], second)
    assert load_file(second)['lorair'] == meta
    assert equal(load_file(second)['params'], averaged)


def test_a_restorer_and_its_experts_become_one(tmp_path):
    weights = tiny.perturbed(LoRAIR(**PLAIN, lora=LORA)).state_dict()
    base = without_experts(weights)
    experts = {key: value for key, value in weights.items() if key not in base}
    tiny.save(tmp_path / 'base.pth', 'restorer', PLAIN, base)
    tiny.save(tmp_path / 'experts.pth', 'experts', {**PLAIN, 'lora': LORA}, experts)
    files = [tmp_path / 'experts.pth', tmp_path / 'base.pth']
    line = convert(files, tmp_path / 'official.pth', to='official')
    assert 'r: 2, num_experts: 3, top_k: 1' in line
    assert equal(convert_official(torch.load(tmp_path / 'official.pth')['params']), weights)
    convert(files, tmp_path / 'whole.safetensors')
    assert load_file(tmp_path / 'whole.safetensors')['lorair']['kind'] == 'restorer'
    convert(files[:1], tmp_path / 'experts.safetensors')
    assert equal(load_file(tmp_path / 'experts.safetensors')['params'], experts)


def test_the_official_code_scales_experts_by_two(tmp_path):
    """It knows no other alpha than 2 * rank."""
    weights = tiny.perturbed(LoRAIR(**PLAIN, lora=LORA)).state_dict()
    tiny.save(tmp_path / 'ours.pth', 'restorer', {**PLAIN, 'lora': {**LORA, 'alpha': 3}}, weights)
    convert([tmp_path / 'ours.pth'], tmp_path / 'official.pth', to='official')
    ours, theirs = LoRAIR(**PLAIN, lora={**LORA, 'alpha': 3}).eval(), LoRAIR(**PLAIN, lora=LORA).eval()
    ours.load_state_dict(weights)
    theirs.load_state_dict(convert_official(torch.load(tmp_path / 'official.pth')['params']))
    inputs = torch.rand(1, 3, 16, 16), torch.randn(1, 384), torch.randn(1, 3)
    torch.testing.assert_close(ours(*inputs), theirs(*inputs))


def test_one_line_says_what_was_read_written_and_assumed(official, tmp_path, capsys):
    output = tmp_path / 'ir.safetensors'
    assert cli.lorair(['convert', str(official / 'setting1_ir.pth'), str(output), '--degradations', *NAMES]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f'{official}/setting1_ir.pth: a LoRA-IR restorer with 3 experts (official release); written to {output} '
        f'({sum(value.numel() for value in load_file(output)["params"].values()) / 1e6:.1f}M parameters; float32; '
        'assumed: top_k 1, alpha 4, means over the whole image)'
    ]


def test_the_published_router_is_recognised_and_built_without_a_network(monkeypatch):
    def no_network(*_):
        raise AssertionError('a network is asked for')

    monkeypatch.setattr('socket.socket.connect', no_network)
    with torch.device('meta'):
        weights = DegradationRouter('ViT-L-14-336-quickgelu', 3, pretrained=None).state_dict()
    official = {key: value.bfloat16() for key, value in convert_to_official(weights).items()}
    layers = 'clip_model.vision_tower.vision_model.encoder.layers'
    assert official[f'{layers}.23.self_attn.q_proj.weight'].shape == (1024, 1024)
    ours = convert_official(official)
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in weights.items()}
    expected = {'type': 'DegradationRouter', 'clip_model': 'ViT-L-14-336-quickgelu', 'num_degradations': 3}
    assert infer_network(ours) == expected


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def spoilt(kind, official, folder):
    """Writes a file that is no restorer of the official release, and gives its name."""
    path = folder / 'wrong.pth'
    weights = torch.load(official / 'setting1_ir.pth')['params']
    if kind == 'another architecture':
        weights = {'conv_first.weight': torch.zeros(8, 3, 3, 3)}
    elif kind == 'missing keys':
        del weights['encoders.0.blocks.0.conv2.conv.weight']
    elif kind == 'extra keys':
        weights['encoders.0.blocks.0.conv9.conv.weight'] = torch.zeros(1)
    elif kind == 'wrong shapes':
        weights['encoders.0.blocks.0.conv1.conv.bias'] = torch.zeros(5)
    elif kind == 'not a number':
        weights['ending.conv.bias'][0] = float('nan')
    elif kind == 'code':
        weights['ending.conv.bias'] = Hostile(folder / 'touched')
    torch.save({'params': weights}, path)
    if kind == 'truncated':
        path.write_bytes(path.read_bytes()[:5000])
    return path


@pytest.mark.parametrize('command', ['convert', 'restore'])
@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('another architecture', 'seems to hold a super-resolution network such as RRDBNet, EDSR or SwinIR: a router'),
        (
            'missing keys',
            "restorer with 3 experts; missing are 1 of the network's 151 tensors (encoders.0.blocks.0.conv2",
        ),
        ('extra keys', 'it seems to hold a LoRA-IR restorer with 3 experts; unknown to the network: 1 (encoders.0.bl'),
        ('wrong shapes', 'encoders.0.blocks.0.conv1.bias is [5] in the file and [32] in the network'),
        ('not a number', 'holds infinite or undefined numbers in ending.bias'),
        ('truncated', 'seems to be a truncated or damaged PyTorch file (5000 bytes)'),
        ('code', 'holds Python objects (it calls for posix.system) instead of plain tensors'),
    ],
)
def test_a_wrong_file_gives_one_clear_error(official, tmp_path, capsys, command, kind, message):
    path = spoilt(kind, official, tmp_path)
    output = tmp_path / 'out.pth' if command == 'convert' else tmp_path / 'out.png'
    arguments = [str(path), str(output)]
    if command == 'restore':
        image = str(write(tmp_path / 'in.png', photo()))
        arguments = [image, '-o', str(output), '--weights', str(path), str(official / 'setting1_router.pth')]
    assert cli.lorair([command, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: {path}')
    assert message in line
    assert not output.exists()
    assert not (tmp_path / 'touched').exists()


def test_what_cannot_be_converted(official, tmp_path):
    tiny.save_weights(tmp_path / 'tiny')
    bare = tmp_path / 'bare.pth'
    save_file(torch.load(tmp_path / 'tiny/experts.pth')['params'], bare)
    ir, router, ours = official / 'setting1_ir.pth', official / 'setting1_router.pth', tmp_path / 'ours.pth'
    resnet = {'clip_model': {'embed_dim': 16, 'vision_cfg': {'image_size': 32, 'layers': [1, 1, 1, 1], 'width': 8}}}
    tiny.save(tmp_path / 'resnet.pth', 'router', more := {**resnet, 'num_degradations': 2},
              DegradationRouter(**more).state_dict(), None)  # fmt: skip
    cases = [
        ([ir], 'x.pt', {}, "x.pt' ends in '.pt', expected .pth or .safetensors"),
        ([ir], 'x.safetensors', {'to': 'official'}, "ends in '.safetensors', expected .pth"),
        ([ir], ir, {}, 'would replace the input: choose another name'),
        ([router, bare], ours, {}, 'hold a router and experts: convert them one at a time'),
        ([ir], ours, {'degradations': ['a', 'b']}, '--degradations: found a, b, expected 3 different names'),
        ([router], ours, {'degradations': ['a', 'b', 'b']}, 'expected 3 different names'),
        ([ir], ours, {'degradations': NAMES, 'to': 'official'}, 'official files hold no names'),
        ([tmp_path / 'tiny/base.pth'], ours, {'to': 'official'}, 'prior_dim = 8, but the official code only knows 384'),
        ([tmp_path / 'tiny/experts.pth'], ours, {'to': 'official'}, 'name the file of their restorer too'),
        ([bare], ours, {}, f'{bare}: a restorer or a router is needed, but this seems to be 3 low-rank experts'),
        ([tmp_path / 'resnet.pth'], ours, {'to': 'official'}, 'or a router with a vision transformer, has official'),
    ]  # fmt: skip
    for inputs, output, options, message in cases:
        with pytest.raises(LoRAIRError) as caught:
            convert(inputs, tmp_path / output, **options)
        assert message in str(caught.value)
        assert not ours.exists()
