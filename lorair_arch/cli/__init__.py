"""The commands `basicsr` and `lorair`; each verb calls one function, and imports it only then."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from os.path import expanduser

from lorair_arch.cli.data import add_data
from lorair_arch.cli.demo import add_demo
from lorair_arch.cli.evaluating import add_evaluate
from lorair_arch.cli.parsing import add_verb, add_verbs, make_parser
from lorair_arch.cli.plugins import load_plugins
from lorair_arch.cli.restoring import add_inspect, add_restore
from lorair_arch.cli.weights import add_convert, add_export, add_weights
from lorair_arch.errors import Interrupted, LoRAIRError, OptionsError, sentence


def basicsr(argv: Sequence[str] | None = None) -> int:
    """Trains or tests any model class of BasicSR or of an installed plugin. Returns the exit code."""
    parser = make_parser(
        'Trains and tests image restoration networks as BasicSR options files say.',
        'basicsr train -opt options/*.yml\n'
        'basicsr test -opt options/test/quickstart.yml\n'
        'torchrun --nproc_per_node=8 -m lorair_arch train -opt FILE --launcher pytorch',
    )
    verbs = add_verbs(parser)
    for name, what, example in (
        ('train', 'train a network', 'basicsr train -opt options/1_router.yml --auto_resume'),
        ('test', 'test a network', 'basicsr test -opt options/test/quickstart.yml'),
    ):
        verb = add_verb(verbs, name, what, example, lambda args, name=name: _run_files(name, args))
        what = 'options files, run one after another'
        # One dash, as BasicSR's own.
        verb.add_argument('-opt', type=expanduser, nargs='+', required=True, metavar='FILE', help=what)
        launchers = ('none', 'pytorch', 'slurm')
        verb.add_argument('--launcher', choices=launchers, default='none', help='what starts the processes')
        verb.add_argument('--auto_resume', action='store_true', help='continue from the newest state, if there is one')
        verb.add_argument('--debug', action='store_true', help="short intervals; the name starts with 'debug_'")
        verb.add_argument('--force_yml', nargs='+', default=[], metavar='KEY:KEY=VALUE', help='change options')
        what = 'show each file with what it builds on and --force_yml changes, and do nothing else'
        verb.add_argument('--print-options', action='store_true', help=what)
        verb.add_argument('--dry-run', action='store_true', help='try everything, with one step, and leave nothing')
        # Set by old launchers; the environment says the same.
        verb.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return _main(parser, argv)


def lorair(argv: Sequence[str] | None = None) -> int:
    """Does what BasicSR has no word for. Returns the exit code."""
    parser = make_parser(
        'All-in-one image restoration with LoRA-IR. Training and testing: basicsr --help.',
        'lorair restore photo.jpg -o restored.png',
    )
    verbs = add_verbs(parser)
    for add in (add_restore, add_inspect, add_weights, add_convert, add_export, add_demo, add_evaluate, add_data):
        add(verbs)
    # the default would end the process without removing what it is writing
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _main(parser, argv)
    finally:
        signal.signal(signal.SIGTERM, before)


def _main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Runs a verb; a mistake of the user's ends in one line for each, without a traceback."""
    args = parser.parse_args(argv)
    if 'OMP_WAIT_POLICY' not in os.environ:
        # Before PyTorch. Threads that spin for each other, as long as GNU's OpenMP lets them, take the cores from those
        # that they wait for if other programs run too: then a network takes 2.0 to 2.4 s in place of 5.5 to 6.3 (two
        # cores, load 5). On an idle machine both take 0.15 s, but 1.2 times as long if they spin still less.
        os.environ.setdefault('GOMP_SPINCOUNT', '50000')
    from lorair_arch import console

    console.to_console()
    with contextlib.suppress(AttributeError):  # a program's own stream
        sys.stdout.reconfigure(errors='backslashreplace')  # names of files may be no text
    try:
        code = args.run(args) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads has seen enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python writes when it ends
        return 141  # 128 + SIGPIPE, as shells have it
    except Interrupted as stop:  # which has been logged
        return stop.code
    except LoRAIRError as error:
        # A launcher shows the output of all processes: what all raise is said once.
        if not error.everywhere or os.environ.get('RANK', '0') == '0':
            sys.stderr.writelines(f'error: {line}\n' for line in sentence(error).splitlines())
        return error.code
    except KeyboardInterrupt:
        sys.stderr.write('interrupted\n')
        return 130  # 128 + SIGINT, as shells have it


def _run_files(command: str, args: argparse.Namespace) -> int | None:
    from lorair_arch.options.yaml_file import printed, read_files

    if len(args.opt) > 1 and args.launcher != 'none':
        raise OptionsError(f'-opt: found {len(args.opt)} files, expected one with --launcher {args.launcher}')
    args.opt = read_files(args.opt)  # a wrong name or a slip in the YAML need not wait for PyTorch
    if args.print_options:
        sys.stdout.writelines(f'# {file}\n{printed(file, args.force_yml)}' for file in args.opt)
        return None
    load_plugins()
    from lorair_arch.training.run_files import run_files

    return run_files(command, args)
