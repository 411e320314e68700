"""`lorair convert`."""

from __future__ import annotations

import argparse
import logging
from os.path import expanduser

from lorair_arch.commands.base import add_overwrite, add_verb

logger = logging.getLogger('lorair_arch')


def add(verbs) -> None:
    """Adds `convert` to the verbs of `lorair`."""
    example = (
        'lorair convert setting1_ir.pth setting1_ir.safetensors --degradations snow rain raindrop\n'
        'lorair convert base.pth experts.pth official.pth --to official'
    )
    verb = add_verb(verbs, 'convert', 'convert weights, from and to the official release too', example, _convert)
    verb.add_argument(
        'input',
        type=expanduser,
        nargs='+',
        metavar='INPUT',
        help='weights in any form; a restorer and its experts: both',
    )
    verb.add_argument('output', type=expanduser, metavar='OUTPUT', help='*.safetensors or *.pth')
    verb.add_argument('--to', choices=('lorair', 'official'), default='lorair', help='whose names the weights get')
    verb.add_argument('--degradations', nargs='+', metavar='NAME', help='names to store along, in order of the classes')
    verb.add_argument('--half', action='store_true', help='in half precision: half the size; for restoring')
    add_overwrite(verb)


def _convert(args: argparse.Namespace) -> None:
    import lorair_arch

    lorair_arch.register()
    from lorair_arch.weights.convert import convert

    logger.info(convert(args.input, args.output, args.to, args.degradations, args.half, args.overwrite))
