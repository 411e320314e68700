"""`lorair weights`, `convert` and `export`: files of weights."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from os.path import expanduser

from lorair_arch.archs import uncollected
from lorair_arch.cli.parsing import add_overwrite, add_verb
from lorair_arch.errors import OptionsError

logger = logging.getLogger('lorair_arch')


def add_weights(verbs) -> None:
    example = 'lorair weights\nlorair weights --download setting1'
    verb = add_verb(verbs, 'weights', 'list weights that have a name, and download them', example, _weights)
    what = "names: of the list, or 'user/repo' or 'user/repo@revision' of huggingface.co (HF_ENDPOINT)"
    verb.add_argument('--download', nargs='+', default=[], metavar='NAME', help=what)


def _weights(args: argparse.Namespace) -> None:
    from lorair_arch.weights import located
    from lorair_arch.weights.listing import table

    if not args.download:
        sys.stdout.write(table() + '\n')
    for name in args.download:
        if os.path.exists(name):
            raise OptionsError(
                f"--download: '{name}' is a file or folder here, which goes before a name: start elsewhere"
            )
        sys.stdout.writelines(f'{path}\n' for path in located(name))


def add_convert(verbs) -> None:
    example = (
        'lorair convert setting1_ir.pth setting1_ir.safetensors --degradations snow rain raindrop\n'
        'lorair convert base.pth experts.pth official.pth --to official'
    )
    verb = add_verb(verbs, 'convert', 'convert weights, from and to the official release too', example, _convert)
    what = 'weights in any form; a restorer and its experts: both'
    verb.add_argument('input', type=expanduser, nargs='+', metavar='INPUT', help=what)
    verb.add_argument('output', type=expanduser, metavar='OUTPUT', help='*.safetensors or *.pth')
    verb.add_argument('--to', choices=('lorair', 'official'), default='lorair', help='whose names the weights get')
    verb.add_argument('--degradations', nargs='+', metavar='NAME', help='names to store along, in order of the classes')
    verb.add_argument('--half', action='store_true', help='in half precision: half the size; for restoring')
    add_overwrite(verb)


def _convert(args: argparse.Namespace) -> None:
    with uncollected():
        from lorair_arch.weights.convert import convert

    logger.info(convert(args.input, args.output, args.to, args.degradations, args.half, args.overwrite))


def add_export(verbs) -> None:
    example = (
        'lorair export results/quickstart/weights restorer.onnx\n'
        'lorair export results/quickstart/weights rain.safetensors --degradation rain'
    )
    what = 'write weights for other programs: ONNX, torch.export, or without experts'
    verb = add_verb(verbs, 'export', what, example, _export)
    what = 'router, restorer and experts: files, their folder, or a name'
    verb.add_argument('input', type=expanduser, nargs='+', metavar='INPUT', help=what)
    what = '*.onnx, *.pt2 (torch.export): router and restorer; *.safetensors, *.pth: a restorer without experts'
    verb.add_argument('output', type=expanduser, metavar='OUTPUT', help=what)
    what = 'merge the experts of this one; without, in *.onnx and *.pt2, the router chooses'
    verb.add_argument('--degradation', metavar='NAME', help=what)
    add_overwrite(verb)


def _export(args: argparse.Namespace) -> None:
    graph = args.output.endswith(('.onnx', '.pt2'))
    if not graph and args.degradation is None:
        raise OptionsError(
            '--degradation is missing: it says whose experts are merged (*.onnx and *.pt2 can leave it to the router)'
        )
    with uncollected():
        from lorair_arch.weights.convert import export
        from lorair_arch.weights.graphs import export_graph

    write = export_graph if graph else export
    logger.info(write(args.input, args.output, args.degradation, args.overwrite))
