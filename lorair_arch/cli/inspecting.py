"""`lorair inspect`."""

from __future__ import annotations

import argparse
import logging
import sys
from os.path import expanduser
from pathlib import Path

from lorair_arch.archs import uncollected
from lorair_arch.cli.parsing import add_overwrite, add_verb
from lorair_arch.weights import DEFAULT

logger = logging.getLogger('lorair_arch')


def add_inspect(verbs) -> None:
    example = 'lorair inspect photo.jpg -o inspected.png\nlorair inspect lorair-tiny'
    what = 'draw what router and experts make of an image, or say what weights are'
    verb = add_verb(verbs, 'inspect', what, example, _inspect)
    verb.add_argument('input', type=expanduser, metavar='INPUT', help='an image; or weights: a file, folder or name')
    what = 'of an image: the picture, *.png; default: NAME_inspected.png'
    verb.add_argument('-o', '--output', type=expanduser, metavar='OUT', help=what)
    what = f'of an image: files of weights, their folder, or a name; default: {DEFAULT}'
    verb.add_argument('--weights', type=expanduser, nargs='+', default=[DEFAULT], metavar='PATH', help=what)
    verb.add_argument('--device', help='of an image: cpu, cuda, cuda:1, ...; default: a GPU if there is one')
    add_overwrite(verb)


def _inspect(args: argparse.Namespace) -> None:
    with uncollected():
        from lorair_arch.restoring.inspecting import inspect_image, is_image
        from lorair_arch.weights.describing import described
    if not is_image(args.input):
        sys.stdout.write(described(args.input) + '\n')
        return
    output = args.output or f'{Path(args.input).stem}_inspected.png'
    logger.info(inspect_image(args.input, output, args.weights, args.device, args.overwrite))
