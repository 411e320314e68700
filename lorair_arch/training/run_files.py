"""`basicsr train` and `basicsr test` of one options file or several, or a trial of them."""

from __future__ import annotations

import argparse
import logging
import signal
import subprocess
import sys

from lorair_arch.training import test, train
from lorair_arch.training.dry_run import dry_run
from lorair_arch.training.resume import check_states

logger = logging.getLogger('lorair_arch')


def run_files(command: str, args: argparse.Namespace) -> int | None:
    """Runs options files; several each in a process of its own, so that none inherits anything from another.

    Args:
        command: 'train' or 'test'.
        args: The flags of the command, `opt` the files as `read_files` gives them.

    Returns:
        The exit code, if it is not 0.
    """
    settings = {'launcher': args.launcher, 'debug': args.debug}
    resume = {'auto_resume': args.auto_resume}
    if args.dry_run:
        return dry_run(command, args.opt, args.force_yml, **settings, **resume)
    if len(args.opt) > 1:
        return _run_each(command, args)
    if command == 'train':
        return train.run(args.opt[0], force_yml=args.force_yml, **settings, **resume)
    return test.run(args.opt[0], force_yml=args.force_yml, **settings)


def _run_each(command: str, args: argparse.Namespace) -> int:
    # a mistake in the last file must not be found hours later
    check_states(command, args.opt, args.force_yml, auto_resume=args.auto_resume, debug=args.debug)
    flags = [f'--{name}' for name in ('auto_resume', 'debug') if getattr(args, name)]
    if args.force_yml:
        flags += ['--force_yml', *args.force_yml]
    for i, file in enumerate(args.opt, start=1):
        logger.info(f'[{i}/{len(args.opt)}] basicsr {command} -opt {file}')
        # The same Python, whatever `basicsr` on the PATH is.
        code = _child([sys.executable, '-m', 'lorair_arch', command, '-opt', str(file), *flags])
        if code:
            interrupted = code in (128 + signal.SIGINT, 128 + signal.SIGTERM)
            what = f'{file} was interrupted' if interrupted else f'error: {file} failed (exit code {code})'
            left = ', '.join(map(str, args.opt[i:]))
            sys.stderr.write(what + (f'; not run: {left}\n' if left else '\n'))
            # subprocess gives -15 for a child that SIGTERM ended, shells 143.
            return code if code > 0 else 128 - code
    return 0


def _child(command: list[str]) -> int:
    """Runs a command to its end; it gets the signals that ask this process to end."""
    with subprocess.Popen(command) as process:
        before = {s: signal.signal(s, lambda number, _: process.send_signal(number)) for s in (signal.SIGTERM,)}
        # The terminal sends Ctrl-C to both; this process only waits for the other one's end.
        before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            return process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
