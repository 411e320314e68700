"""`lorair export` to other runtimes: router and restorer as one graph, an ONNX file or a program of torch.export.

A graph takes one image of any size, `lq` [1, 3, height, width] in [0, 1], and gives `restored`, of the same shape and
range, and `probabilities` [1, E] of the degradations, whose names stand in the file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lorair_arch.archs.degradation_router_arch import pillow_views
from lorair_arch.archs.graph import Graph
from lorair_arch.errors import CheckpointError, LoRAIRError, OptionsError, OutputError, did_you_mean
from lorair_arch.files import cannot_write, check_output, writing
from lorair_arch.weights.downloads import in_words
from lorair_arch.weights.pretrained import load_networks, read_weights

# The largest difference to PyTorch that a file may have: a fortieth of a level of 8 bits.
_TOLERANCE = 1e-4
_PACKAGES = ('onnx', 'onnxruntime', 'onnxscript')
_OPSET = 18
_NAMES = 'degradations'  # under which the files hold the names of the degradations, as JSON

Run = Callable[[Tensor], Sequence[np.ndarray]]


def export_graph(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    degradation: str | None = None,
    overwrite: bool = False,
) -> str:
    """Writes router and restorer as one graph, once it gives what PyTorch gives on images of five sizes.

    Args:
        inputs: A router, a restorer and its experts: files, folders or a name, as of `load_networks`.
        output: Where to: `.onnx`, or `.pt2` for torch.export. Programs of torch.export take images of more than one
            stride of the network (`multiple`) in height and width; those of ONNX take all.
        degradation: Whose experts restore every image, merged; None: the router chooses them.
        overwrite: Whether the output may replace a file that exists, other than an input.

    Returns:
        One line that says what was written, how large it is, and how far it is from PyTorch.

    Raises:
        CheckpointError: The weights are damaged or do not belong together, or the graph differs from PyTorch.
        LoRAIRError: The packages that make ONNX files are not installed.
        OptionsError: There is no such degradation.
        OutputError: The output exists, is an input, or cannot be written.
    """
    output = Path(output)
    missing = [name for name in _PACKAGES if not find_spec(name)]
    if output.suffix == '.onnx' and missing:
        raise LoRAIRError(f"ONNX files need {', '.join(missing)}, not installed here: pip install 'lorair[onnx]'")
    check_output(output, overwrite, [file.path for file in read_weights(inputs).values()])
    router, net, names = load_networks(inputs)
    if router.make_views is pillow_views:
        raise CheckpointError('the router makes its views with Pillow (views: pillow), which no graph can')
    if degradation is not None:
        if not net.num_experts:
            raise OptionsError(f'--degradation is {degradation!r}, but these weights have no experts: leave it out')
        if degradation not in names:
            raise OptionsError(f'--degradation is {degradation!r}{did_you_mean(degradation, names)}')
        net = net.merge(names.index(degradation))
    with torch.no_grad(), _quiet():
        difference = _write(router, net, names, output)
    experts = f'experts for {degradation} merged' if degradation else 'experts by the router'
    return (
        f'{output}: router and restorer, {experts if net.num_experts or degradation else "no experts"}; '
        f'{in_words(output.stat().st_size)}; at most {difference:.1e} from PyTorch on {len(_images(net))} sizes'
    )


def _write(router: nn.Module, net: nn.Module, names: list[str], output: Path) -> float:
    """Writes the file, and gives its largest difference to PyTorch."""
    any_size = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        Graph(router, net).eval(), (_images(net)[0],), dynamic_shapes={'lq': {2: any_size, 3: any_size}}
    )
    save, load = (_save_onnx, _load_onnx) if output.suffix == '.onnx' else (_save_program, _load_program)
    differences: list[float] = []

    def check(temporary: Path) -> None:
        run = load(temporary)
        for lq in _images(net):
            pairs = zip(_by_pytorch(router, net, lq), run(lq))
            differences.append(max(float(np.abs(ours.numpy() - theirs).max()) for ours, theirs in pairs))
        if not max(differences) <= _TOLERANCE:  # also if there is a NaN
            raise CheckpointError(
                f'{output} was not written: its graph would differ from PyTorch by {max(differences):.1e}, more than '
                f'{_TOLERANCE:.0e}'
            )

    try:
        with writing(output, check) as file:
            save(program, names, file)
    except OSError as error:
        raise OutputError(cannot_write(output, error)) from error
    return max(differences)


def _save_onnx(program: torch.export.ExportedProgram, names: list[str], file) -> None:
    import onnx

    outputs = ['restored', 'probabilities']
    model = torch.onnx.export(
        program, dynamo=True, opset_version=_OPSET, input_names=['lq'], output_names=outputs, verbose=False
    ).model_proto
    for value in (*model.graph.input, *model.graph.output[:1]):
        for axis, name in ((2, 'height'), (3, 'width')):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]  # sizes of all that is in between, by other names: runtimes find them by themselves
    onnx.helper.set_model_props(model, {_NAMES: json.dumps(names)})
    file.write(model.SerializeToString())


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda lq: session.run(None, {'lq': lq.numpy()})


def _save_program(program: torch.export.ExportedProgram, names: list[str], file) -> None:
    torch.export.save(program, file, extra_files={_NAMES: json.dumps(names)})


def _load_program(path: Path) -> Run:
    with path.open('rb') as file:
        module = torch.export.load(file).module()
    return lambda lq: [output.numpy() for output in module(lq)]


def _by_pytorch(router: nn.Module, net: nn.Module, lq: Tensor) -> tuple[Tensor, Tensor]:
    logits, prior = router(lq)
    return net(lq, prior, logits).clamp(0, 1), logits.softmax(dim=1)


def _images(net: nn.Module) -> list[Tensor]:
    """Gives images of five sizes, odd ones, and one larger than the windows of local means."""
    m, window = net.multiple, int(1.5 * max(net.plain_settings['local_pool_size'] or [0]))
    sizes = [(2 * m, 3 * m), (3 * m + 1, 2 * m + 5), (4 * m - 1, 7 * m + 3), (97, 150), (window + 160, window + 131)]
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, *size, generator=generator) for size in sizes]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what exporters say to their own developers from the user."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir', 'torch.export')]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
