"""What the verbs share: parsers, and the classes of other packages."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

logger = logging.getLogger('lorair_arch')


def new_parser(description: str, examples: str) -> argparse.ArgumentParser:
    """Makes the parser of a command."""
    module = Path(sys.argv[0]).name == '__main__.py'
    return argparse.ArgumentParser(
        prog='python -m lorair_arch' if module else None,
        description=description,
        epilog=_examples(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_verb(verbs, name: str, what: str, example: str, run: Callable) -> argparse.ArgumentParser:
    """Adds a verb to a command; `run` gets the parsed arguments and may return an exit code."""
    verb = verbs.add_parser(
        name,
        help=what,
        description=f'{what[0].upper()}{what[1:]}.',
        epilog=_examples(example),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run)
    return verb


def add_overwrite(verb: argparse.ArgumentParser) -> None:
    """Adds the flag without which no file that exists is replaced."""
    verb.add_argument('--overwrite', action='store_true', help='replace files that exist; never an input')


def load_plugins() -> None:
    """Lets every installed package that declares a `basicsr.plugins` entry point register its classes."""
    for plugin in entry_points(group='basicsr.plugins'):
        if plugin.module == 'lorair_arch':
            continue
        try:
            loaded = plugin.load()
            if callable(loaded):
                loaded()
        except Exception as error:  # whatever is wrong with another package must not stop this run
            logger.warning(f'the BasicSR plugin {plugin.name!r} ({plugin.value}) cannot be loaded: {error!r}')


def _examples(text: str) -> str:
    lines = text.splitlines()
    return '\n  '.join(['example:' if len(lines) == 1 else 'examples:', *lines])
