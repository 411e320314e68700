"""`lorair demo`."""

from __future__ import annotations

import argparse

from lorair_arch.archs import uncollected
from lorair_arch.cli.parsing import add_networks, add_verb


def add_demo(verbs) -> None:
    what = "serve a page on which to drop photographs (pip install 'lorair[demo]')"
    verb = add_verb(verbs, 'demo', what, 'lorair demo\nlorair demo --weights setting1 --host 0.0.0.0', _demo)
    add_networks(verb)
    what = 'address to listen on; 0.0.0.0: for all of the network; default: this machine alone'
    verb.add_argument('--host', default='127.0.0.1', help=what)
    verb.add_argument('--port', type=int, default=7860, metavar='N', help='default: 7860; 0: any that is free')


def _demo(args: argparse.Namespace) -> None:
    with uncollected():
        from lorair_arch.restoring.demo import serve
    serve(args.weights, args.device, args.precision, args.host, args.port)
