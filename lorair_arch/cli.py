"""The commands `basicsr` and `lorair`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from lorair_arch.commands import convert, data, export, restore
from lorair_arch.commands.base import add_verb, new_parser
from lorair_arch.commands.run_files import run_files
from lorair_arch.errors import Interrupted, LoRAIRError, sentence


def basicsr(argv: Sequence[str] | None = None) -> int:
    """Trains or tests any model class of BasicSR or of an installed plugin. Returns the exit code."""
    parser = new_parser(
        'Trains and tests image restoration networks as BasicSR options files say.',
        'basicsr train -opt options/quickstart/*.yml\n'
        'basicsr test -opt options/test/quickstart.yml\n'
        'torchrun --nproc_per_node=8 -m lorair_arch train -opt FILE --launcher pytorch',
    )
    verbs = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for name, what, example in (
        ('train', 'train a network', 'basicsr train -opt options/quickstart/1_router.yml --auto_resume'),
        ('test', 'test a network', 'basicsr test -opt options/test/quickstart.yml'),
    ):
        verb = add_verb(verbs, name, what, example, lambda args, name=name: run_files(name, args))
        what = 'options files, run one after another'
        verb.add_argument('-opt', type=os.path.expanduser, nargs='+', required=True, metavar='FILE', help=what)
        launchers = ('none', 'pytorch', 'slurm')
        verb.add_argument('--launcher', choices=launchers, default='none', help='what starts the processes')
        verb.add_argument('--auto_resume', action='store_true', help='continue from the newest state, if there is one')
        verb.add_argument('--debug', action='store_true', help="short intervals; the name starts with 'debug_'")
        verb.add_argument('--force_yml', nargs='+', default=[], metavar='KEY:KEY=VALUE', help='change options')
        verb.add_argument('--dry-run', action='store_true', help='try everything, with one step, and leave nothing')
        # Set by old launchers; the environment says the same.
        verb.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return _main(parser, argv)


def lorair(argv: Sequence[str] | None = None) -> int:
    """Does what BasicSR has no word for. Returns the exit code."""
    parser = new_parser(
        'All-in-one image restoration with LoRA-IR. Training and testing: basicsr --help.',
        'lorair restore photo.jpg -o restored.png',
    )
    verbs = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for command in (restore, convert, export, data):
        command.add(verbs)
    # the default would end the process without removing what it is writing
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _main(parser, argv)
    finally:
        signal.signal(signal.SIGTERM, before)


def _main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Runs a verb; a mistake of the user's ends in one line for each, without a traceback."""
    args = parser.parse_args(argv)
    from lorair_arch import console

    console.to_console()
    try:
        return args.run(args) or 0
    except Interrupted as stop:  # which has been logged
        return stop.code
    except LoRAIRError as error:
        if not error.everywhere or os.environ.get('RANK', '0') == '0':
            sys.stderr.writelines(f'error: {line}\n' for line in sentence(error).splitlines())
        return 2
    except KeyboardInterrupt:
        sys.stderr.write('interrupted\n')
        return 130
