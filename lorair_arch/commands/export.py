"""`lorair export`."""

from __future__ import annotations

import argparse
import logging
from os.path import expanduser

from lorair_arch.commands.base import add_overwrite, add_verb

logger = logging.getLogger('lorair_arch')


def add(verbs) -> None:
    """Adds `export` to the verbs of `lorair`."""
    example = 'lorair export results/quickstart/weights rain.safetensors --degradation rain'
    what = 'merge the experts of one degradation into a plain network'
    verb = add_verb(verbs, 'export', what, example, _export)
    verb.add_argument(
        'input', type=expanduser, nargs='+', metavar='INPUT', help='a restorer and its experts: files, or their folder'
    )
    verb.add_argument('output', type=expanduser, metavar='OUTPUT', help='*.safetensors or *.pth')
    verb.add_argument('--degradation', required=True, metavar='NAME', help='whose experts')
    add_overwrite(verb)


def _export(args: argparse.Namespace) -> None:
    import lorair_arch

    lorair_arch.register()
    from lorair_arch.weights.convert import export

    logger.info(export(args.input, args.output, args.degradation, args.overwrite))
