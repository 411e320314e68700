"""What the parsers of all verbs have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from os.path import expanduser
from pathlib import Path

from lorair_arch.weights import DEFAULT


def make_parser(description: str, examples: str) -> argparse.ArgumentParser:
    module = Path(sys.argv[0]).name == '__main__.py'  # argparse would call the program __main__.py
    return argparse.ArgumentParser(
        prog='python -m lorair_arch' if module else None, description=description, **_formatted(examples)
    )


def add_verbs(parser: argparse.ArgumentParser):
    return parser.add_subparsers(title='commands', metavar='COMMAND', required=True)


def add_verb(verbs, name: str, what: str, example: str, run: Callable) -> argparse.ArgumentParser:
    """Adds a verb to a command; `run` gets the parsed arguments and may return an exit code."""
    description = f'{what[0].upper()}{what[1:]}.'
    verb = verbs.add_parser(name, help=what, description=description, **_formatted(example))
    verb.set_defaults(run=run)
    return verb


def _formatted(examples: str) -> dict:
    lines = examples.splitlines()
    epilog = '\n  '.join(['example:' if len(lines) == 1 else 'examples:', *lines])
    return {'epilog': epilog, 'formatter_class': argparse.RawDescriptionHelpFormatter}


def add_networks(verb: argparse.ArgumentParser) -> None:
    """Adds the flags that say which networks restore, and where."""
    what = f'files of weights, their folder, or a name (see lorair weights); default: {DEFAULT}'
    verb.add_argument('--weights', type=expanduser, nargs='+', default=[DEFAULT], metavar='PATH', help=what)
    verb.add_argument('--device', help='cpu, cuda, cuda:1, ...; default: a GPU if there is one')
    what = 'of the arithmetic; default: the fastest that the device is good at'
    verb.add_argument('--precision', choices=('fp32', 'bf16', 'fp16'), help=what)


def add_overwrite(verb: argparse.ArgumentParser) -> None:
    """Adds the flag without which no file that exists is replaced."""
    verb.add_argument('--overwrite', action='store_true', help='replace files that exist; never an input')


def counted(lines: list[str], what: str) -> str:
    """Gives their number with a noun: '1 mistake', '2 mistakes'."""
    return f'{len(lines)} {what}' + ('s' if len(lines) != 1 else '')
