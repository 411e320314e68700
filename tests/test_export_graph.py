"""`lorair export` to ONNX and torch.export: one graph that gives the same pixels without this package."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lorair_arch import Restorer, cli
from lorair_arch.archs.degradation_router_arch import DegradationRouter, device_views
from lorair_arch.archs.graph import Graph, graph_views
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.errors import CheckpointError, LoRAIRError
from lorair_arch.weights import graphs
from lorair_arch.weights.graphs import export_graph
from tests import tiny
from tests.photos import photo, write

REPO = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    torch.manual_seed(0)
    return tiny.save_weights(tmp_path_factory.mktemp('graph') / 'weights')


@pytest.fixture(scope='module')
def onnx_file(weights):
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    file = weights.parent / 'restorer.onnx'
    assert cli.lorair(['export', str(weights), str(file)]) == 0
    return file


@pytest.mark.parametrize('size', [(1, 1), (5, 7), (33, 50), (130, 97), (3, 300)])
@pytest.mark.parametrize('side', [16, 21])
def test_views_are_those_of_the_router_bit_for_bit(size, side):
    torch.manual_seed(0)
    for lq in (torch.rand(1, 3, *size), torch.rand(1, 3, *size).round()):  # the latter overshoots
        assert torch.equal(graph_views(lq, side, 3), device_views(lq, side, 3))


@pytest.mark.parametrize('pool', [None, (24, 40)])
@pytest.mark.parametrize('views', ['device', 'windows'])
@pytest.mark.parametrize('lora', [None, {'rank': 2, 'num_experts': 3}, {'rank': 2, 'num_experts': 3, 'top_k': 2}])
def test_the_graph_gives_what_the_networks_give(lora, views, pool):
    torch.manual_seed(0)
    router = tiny.perturbed(DegradationRouter(**{**tiny.ROUTER, 'views': views, 'clip_grid': 3})).eval()
    net = tiny.perturbed(LoRAIR(**tiny.PLAIN, lora=lora, local_pool_size=pool)).eval()
    with torch.inference_mode():
        for size in [(3, 5), (32, 64), (51, 90), (98, 40)]:
            lq = torch.rand(1, 3, *size)
            restored, probabilities = Graph(router, net)(lq)
            logits, prior = router(lq)
            torch.testing.assert_close(restored, net(lq, prior, logits).clamp(0, 1), atol=1e-5, rtol=0)
            torch.testing.assert_close(probabilities, logits.softmax(dim=1))


def test_the_program_of_the_readme_restores_without_pytorch_and_this_package(weights, onnx_file, tmp_path):
    blocks = re.findall(r'```python\n(.*?)```', (REPO / 'README.md').read_text(), re.DOTALL)
    program = next(block for block in blocks if 'import onnxruntime' in block)
    (tmp_path / 'restorer.onnx').write_bytes(onnx_file.read_bytes())
    image = photo(0, 41, 67)
    write(tmp_path / 'photo.jpg', image)
    alone = f'import sys\nfor name in ("torch", "lorair_arch", "basicsr"): sys.modules[name] = None\n{program}'
    done = subprocess.run([sys.executable, '-c', alone], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = Restorer.from_pretrained(weights, 'cpu').restore(tmp_path / 'photo.jpg', tile=None)
    restored = np.asarray(Image.open(tmp_path / 'restored.png')).astype(int)
    assert abs(restored - seen.image).max() <= 1
    assert all(f'{name}: {value:.0%}' in done.stdout for name, value in seen.degradations.items())


def test_names_and_sizes_stand_in_the_file(onnx_file):
    onnxruntime = pytest.importorskip('onnxruntime')
    session = onnxruntime.InferenceSession(onnx_file)
    assert json.loads(session.get_modelmeta().custom_metadata_map['degradations']) == tiny.NAMES
    assert [(i.name, i.shape) for i in session.get_inputs()] == [('lq', [1, 3, 'height', 'width'])]
    assert [o.name for o in session.get_outputs()] == ['restored', 'probabilities']


def test_a_program_of_torch_export_with_merged_experts(weights, tmp_path):
    output = tmp_path / 'rain.pt2'
    line = export_graph([weights], output, 'rain')
    assert re.fullmatch(
        f'{output}: router and restorer, experts for rain merged; .* kB; at most .*e-0[5-9] from PyTorch on 5 sizes',
        line,
    )
    names = {'degradations': ''}
    run = torch.export.load(io.BytesIO(output.read_bytes()), extra_files=names).module()
    assert json.loads(names['degradations']) == tiny.NAMES
    restorer = Restorer.from_pretrained(weights, 'cpu')
    for height, width in [(64, 64), (31, 87), (3, 5)]:
        lq = torch.rand(1, 3, height, width)
        torch.testing.assert_close(run(lq)[0][0], restorer(lq[0], 'rain', tile=None), atol=1e-4, rtol=0)


def test_a_graph_that_differs_is_not_kept(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, '_by_pytorch', lambda router, net, lq: (lq, torch.zeros(1, 3)))
    output = tmp_path / 'wrong.pt2'
    with pytest.raises(CheckpointError, match=r'wrong\.pt2 was not written: its graph would differ from PyTorch by'):
        export_graph([weights], output)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported(weights, tmp_path, monkeypatch):
    pillow = tmp_path / 'pillow.pth'
    router = {**tiny.ROUTER, 'views': 'pillow'}
    tiny.save(pillow, 'router', router, DegradationRouter(**router).state_dict())
    base, experts = weights / 'base.pth', weights / 'experts.pth'
    ours = tmp_path / 'ours.pt2'
    (tmp_path / 'there.pt2').touch()
    cases = [
        ([weights], ours, 'rian', "--degradation is 'rian'; did you mean 'rain'?"),
        ([weights / 'router.pth', base], ours, 'rain', "--degradation is 'rain', but these weights have no experts"),
        ([base, experts], ours, None, 'there is no router among the weights'),
        ([pillow, base, experts], ours, None, 'the router makes its views with Pillow'),
        ([weights], weights / 'router.pth', None, 'would replace the input: choose another name'),
        ([weights], tmp_path / 'there.pt2', None, "there.pt2' exists already"),
    ]
    for inputs, output, degradation, message in cases:
        with pytest.raises(LoRAIRError) as caught:
            export_graph(inputs, output, degradation)
        assert message in str(caught.value)
        assert not ours.exists()
    monkeypatch.setattr(graphs, 'find_spec', lambda name: None if name == 'onnxscript' else object())
    with pytest.raises(
        LoRAIRError, match=r"ONNX files need onnxscript, not installed here: pip install 'lorair\[onnx\]'"
    ):
        export_graph([weights], tmp_path / 'ours.onnx')


def test_a_graph_is_no_weights(onnx_file, tmp_path, capsys):
    args = ['restore', str(write(tmp_path / 'in.png', photo())), '-o', str(tmp_path / 'out.png'), '--weights']
    assert cli.lorair([*args, str(onnx_file)]) == 2
    assert f'{onnx_file} seems to be an ONNX graph, weights saved by' in capsys.readouterr().err


def test_the_form_without_a_router_needs_a_degradation(weights, tmp_path, capsys):
    assert cli.lorair(['export', str(weights), str(tmp_path / 'ours.pth')]) == 2
    assert capsys.readouterr().err.startswith('error: --degradation is missing: it says whose experts are merged')
