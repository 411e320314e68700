"""Invariants of the low-rank experts, held against `reference.py`."""

from functools import partial

import pytest
import torch
from torch import nn

from lorair_arch.archs import experts as merging
from lorair_arch.archs import kernels, reference
from lorair_arch.archs.experts import ExpertConv2d, ExpertSettings, make_conv, route
from lorair_arch.archs.kernels import grouping
from lorair_arch.archs.lorair_arch import LoRAIR
from measures import perturb

TINY = {'width': 16, 'enc_blk_nums': [1, 1], 'middle_blk_num': 1, 'dec_blk_nums': [1, 1], 'prior_dim': 32}
CONVS = {  # every kind of convolution of the network: in, out, kernel, settings
    '1x1': (6, 8, 1, {}),
    '1x1 without bias': (6, 8, 1, {'bias': False}),
    '3x3': (6, 8, 3, {'padding': 1}),
    'strided 2x2': (6, 12, 2, {'stride': 2}),
    'depthwise 3x3': (8, 8, 3, {'padding': 1, 'groups': 8}),
}


def expert_conv(kind: str, num_experts: int = 3) -> ExpertConv2d:
    inp, out, kernel, settings = CONVS[kind]
    conv = make_conv(inp, out, kernel, ExpertSettings(rank=2, num_experts=num_experts), **settings)
    perturb(conv)
    return conv


def tiny(top_k: int = 1, **kwargs) -> LoRAIR:
    net = LoRAIR(**TINY, lora={'rank': 2, 'num_experts': 3, 'top_k': top_k}, **kwargs)
    perturb(net)
    return net


def batch(n: int = 5, height: int = 19, width: int = 26) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.rand(n, 3, height, width), torch.randn(n, 32), torch.randn(n, 3)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return (a - b).abs().max().item() <= tolerance * max(b.abs().max().item(), 1e-6)


@pytest.mark.parametrize('top_k', [1, 2, 3])
@pytest.mark.parametrize('kind', CONVS)
def test_a_convolution_equals_the_sum_over_experts(kind, top_k):
    conv = expert_conv(kind)
    logits = torch.randn(5, 3)
    routing, order = route(logits, top_k)
    x = torch.randn(5, conv.in_channels, 6, 8)
    expected = reference.conv(conv, x, reference.gates_of(logits, top_k))[order]
    assert close(conv(x[order], routing), expected)
    with kernels.disabled():
        assert close(conv(x[order], routing), expected)
    parts = [conv(part, group) for part, group in zip(x[order].split(routing.sizes), routing.groups)]
    assert close(torch.cat(parts), expected)


@pytest.mark.parametrize('kind', ['1x1', '1x1 without bias'])
@pytest.mark.parametrize('same', [True, False], ids=['one group', 'groups'])
def test_a_layer_scale_multiplies_the_output(kind, same):
    conv, layer_scale = expert_conv(kind), torch.randn(1, 8, 1, 1)
    routing, _ = route(torch.eye(3)[[0, 0] if same else [0, 2]], 1)
    x = torch.randn(2, 6, 5, 4)
    assert close(conv(x, routing, layer_scale), conv(x, routing) * layer_scale)
    with kernels.disabled('layer_scale'):
        assert close(conv(x, routing, layer_scale), conv(x, routing) * layer_scale)


@pytest.mark.parametrize('kind', CONVS)
def test_merged_equals_unmerged(kind):
    conv = expert_conv(kind)
    logits = torch.tensor([[0.0, 1.0, 0.0]])
    routing, _ = route(logits, 1)
    inp, out, kernel, settings = CONVS[kind]
    plain = nn.Conv2d(inp, out, kernel, **settings)
    plain.load_state_dict({k: v for k, v in conv.state_dict().items() if 'lora' not in k})
    plain.weight.data = conv.merged_weights(routing)[0]
    x = torch.randn(1, inp, 6, 8)
    assert close(plain(x), reference.conv(conv, x, reference.gates_of(logits, 1)))


@pytest.mark.parametrize('top_k', [1, 2])
def test_experts_start_as_the_identity(top_k):
    plain = LoRAIR(**TINY)
    perturb(plain)
    net = LoRAIR(**TINY, lora={'rank': 2, 'num_experts': 3, 'top_k': top_k})
    net.load_state_dict(plain.state_dict(), strict=False)
    lq, prior, logits = batch()
    assert close(net(lq, prior, logits), plain(lq, prior))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('top_k', [1, 2])
@pytest.mark.parametrize('batch_pixels', [0, 16, 1e9])
def test_the_network_and_its_gradients_equal_the_dense_one(monkeypatch, batch_pixels, top_k, training):
    net = tiny(top_k).train(training)
    lq, prior, logits = batch()

    def run(forward):
        net.zero_grad()
        out = forward(lq, prior, logits)
        out.square().mean().backward()
        return out.detach(), {name: param.grad.clone() for name, param in net.named_parameters()}

    expected, expected_grads = run(partial(reference.restore, net))
    monkeypatch.setattr(grouping, '_BATCH_PIXELS', batch_pixels)
    out, grads = run(net)
    assert close(out, expected)
    for name, grad in grads.items():
        assert (grad - expected_grads[name]).norm() <= 1e-5 * expected_grads[name].norm() + 1e-9, name


@pytest.mark.parametrize('local_pool_size', [None, (16, 16)])
@pytest.mark.parametrize('top_k', [1, 2])
@pytest.mark.parametrize('training', [True, False])
def test_a_batch_equals_its_images_one_by_one(top_k, training, local_pool_size):
    net = tiny(top_k, local_pool_size=local_pool_size).train(training)
    lq, prior, logits = batch(height=41, width=50)
    with torch.no_grad():
        together = net(lq, prior, logits)
        single = [net(*(t[i : i + 1] for t in (lq, prior, logits))) for i in range(len(lq))]
    assert close(together, torch.cat(single))


@pytest.mark.parametrize('name', sorted(kernels.NAMES))
@pytest.mark.parametrize('local_pool_size', [None, (16, 16)])
@pytest.mark.parametrize('top_k', [1, 2])
@pytest.mark.parametrize('training', [True, False])
@torch.no_grad()
def test_every_kernel_computes_what_the_reference_does(name, local_pool_size, top_k, training):
    net = tiny(top_k, local_pool_size=local_pool_size).train(training)
    inputs = batch(height=41, width=50)
    expected = reference.restore(net, *inputs)
    assert close(net(*inputs), expected)
    with kernels.disabled(name):
        assert close(net(*inputs), expected)
    with kernels.disabled():
        assert close(net(*inputs), expected)


def test_only_kernels_that_exist_are_disabled():
    with kernels.disabled(), kernels.disabled('strips'):
        assert not any(map(kernels.enabled, kernels.NAMES))
    assert all(map(kernels.enabled, kernels.NAMES))
    with pytest.raises(ValueError, match='stirps'), kernels.disabled('stirps'):
        pass


@torch.no_grad()
def test_inference_follows_every_change_of_the_weights():
    net = tiny().eval()
    lq, prior, logits = batch()
    for change in range(3):
        expected = reference.restore(net, lq, prior, logits)
        assert close(net(lq, prior, logits), expected), change
        assert close(net(lq, prior, logits), expected), change
        perturb(net)
    net.load_state_dict(tiny().state_dict())
    expected = reference.restore(net, lq, prior, logits)
    assert close(net(lq, prior, logits), expected)


@torch.no_grad()
def test_merged_networks_are_kept_once_few_and_not_in_training():
    net = LoRAIR(**TINY, lora={'rank': 2, 'num_experts': 6}).eval()
    lq, prior, _ = batch(1)
    for expert in (*range(6), 5):
        before = dict(net._merged)
        net(lq, prior, torch.eye(6)[expert : expert + 1])
        assert len(net._merged) == min(expert + 1, merging._KEPT_NETWORKS)
    assert net._merged[5][1] is before[5][1]
    merged, plain = net._merged[5][1], LoRAIR(**TINY)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert not any('_merged' in key for key in net.state_dict())
    net.train()
    assert not net._merged


def test_experts_that_no_image_uses_get_gradients_too():
    """DistributedDataParallel waits for a gradient of every parameter; unused experts must have one, of zero."""
    net = tiny()
    lq, prior, _ = batch()
    net(lq, prior, torch.tensor([[1.0, 0.0, 0.0]]).expand(5, 3)).sum().backward()
    for name, param in net.named_parameters():
        assert param.grad is not None, name
        if 'lora' in name:
            assert param.grad[0].abs().sum() > 0 and not param.grad[1:].any(), name


@pytest.mark.parametrize('size', [(1, 1), (3, 70), (33, 17), (64, 64)])
def test_any_size_works(size):
    net = tiny(local_pool_size=(16, 16)).eval()
    lq, prior, logits = batch(2, *size)
    assert net(lq, prior, logits).shape == (2, 3, *size)


def test_every_parameter_learns():
    net = tiny(top_k=3)
    lq, prior, logits = batch(4)
    logits.requires_grad_()
    net(lq, prior, logits).square().mean().backward()
    assert all(param.grad.abs().sum() > 0 for param in net.parameters())
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'width': 24}, '^width: found 24, expected a multiple of 16, at most 4096$'),
        ({'dec_blk_nums': [1]}, '^dec_blk_nums: found 1 levels, expected 2, as many as'),
        ({'lora': {'rank': 2}}, '^lora.num_experts: missing, expected a whole number'),
        (
            {'lora': {'rank': 2, 'num_experts': 3, 'top_k': 4}},
            '^lora.top_k: found 4, expected at most num_experts = 3$',
        ),
    ],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LoRAIR(**{**TINY, **change})


def test_wrong_inputs_are_refused():
    net = tiny()
    lq, prior, logits = batch(2)
    with pytest.raises(ValueError, match='logits are missing'):
        net(lq, prior)
    with pytest.raises(ValueError, match=r'prior has shape \(2, 7\), expected \(2, 32\)'):
        net(lq, prior[:, :7], logits)
    with pytest.raises(ValueError, match=r'lq has shape \(2, 1, 19, 26\), expected \[B, 3, H, W\]'):
        net(lq[:, :1], prior, logits)


def test_published_sizes():
    """Section 4 of the paper and its release: 68.9 M parameters; three experts of rank 8 add 12.8 M."""
    settings = {'width': 64, 'enc_blk_nums': [1, 1, 1, 28], 'middle_blk_num': 1, 'dec_blk_nums': [1, 1, 1, 1]}
    with torch.device('meta'):
        plain = LoRAIR(**settings)
    count = sum(p.numel() for p in plain.parameters())
    assert count == 68_869_503
    experts = LoRAIR(**settings, lora={'rank': 8, 'num_experts': 3})
    assert sum(p.numel() for p in experts.parameters()) - count == 12_786_864
