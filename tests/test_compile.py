"""`train.compile`: the same training through torch.compile, and without it where the compiler fails."""

from functools import partial

import pytest
import torch
from torch._functorch import config

from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.devices import compile_training
from lorair_arch.training.train import run
from lorair_arch.weights.files import load_file
from tests import tiny
from tests.miniature import stage, write_options

recent = pytest.mark.skipif(
    not hasattr(config, 'force_non_lazy_backward_lowering'), reason='this PyTorch is older than the option'
)


def train(folder, name, **settings):
    opt = stage('finetune') | {'name': name}
    opt['train'] |= {'total_iter': 2, **settings}
    opt['val']['val_freq'] = opt['logger']['save_checkpoint_freq'] = 1
    run(write_options(folder, opt))
    return load_file(folder / f'experiments/{name}/models/net_g_latest.pth')


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@recent
@pytest.mark.parametrize('ema_decay', [0, 0.9])
def test_training_is_compiled_and_validation_is_not(here, monkeypatch, ema_decay):
    """What takes part, without the time that a compiler takes."""
    sizes = []

    def compile(forward, dynamic):
        def compiled(lq, *args):
            sizes.append(lq.shape[2:])
            return forward(lq, *args)

        return compiled

    monkeypatch.setattr(torch, 'compile', compile)
    plain = train(here, 'plain', ema_decay=ema_decay)
    assert not sizes
    compiled = train(here, 'compiled', ema_decay=ema_decay, compile=True)
    assert sizes == [(16, 16)] * 2  # the crops; validation images are larger
    assert all(same(plain[key], compiled[key]) for key in plain if key.startswith('params'))
    run('compiled.yml', auto_resume=True)  # its weights have their usual names


@recent
def test_the_compiler_understands_the_network(monkeypatch):
    """Outputs and gradients of what PyTorch traces, forwards and backwards, without generating code for it."""
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend='aot_eager'))
    inputs = torch.rand(2, 3, 16, 24), torch.randn(2, 8), torch.tensor([[3.0, 1, 0], [0, 2, 1]])
    net = tiny.perturbed(LoRAIR(**tiny.LORA | {'middle_blk_num': 0, 'dec_blk_nums': [0]}))
    results = []
    for compiled in (False, True):
        if compiled:
            compile_training(net)
        net.zero_grad()
        y = net(*inputs)
        y.square().mean().backward()
        results.append([y.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert not [key for key in net.state_dict() if 'orig_mod' in key]


@recent
def test_training_goes_on_where_the_compiler_fails(here, monkeypatch):
    def broken(graph, inputs):
        raise OSError('there is no C++ compiler\nin many words')

    plain = train(here, 'plain')
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend=broken))
    compiled = train(here, 'compiled', compile=True)
    log = next((here / 'experiments/compiled').glob('train_*.log')).read_text()
    assert log.count('train.compile') == 1
    assert 'train.compile: training goes on without it (OSError: there is no C++ compiler)' in log
    assert same(plain['params'], compiled['params'])


@recent
def test_data_parallel_is_left_alone():
    net = torch.nn.DataParallel(torch.nn.Identity())
    forward = net.module.forward
    compile_training(net)
    assert net.module.forward == forward


def test_an_older_pytorch_trains_without_it(here, monkeypatch, capfd):
    plain = train(here, 'plain')
    monkeypatch.delattr(config, 'force_non_lazy_backward_lowering')
    without = train(here, 'without', compile=True)
    assert all(same(plain[key], without[key]) for key in plain if key.startswith('params'))
    assert 'train.compile: training goes on without it (PyTorch ' in capfd.readouterr().err
