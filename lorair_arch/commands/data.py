"""`lorair data ...`."""

from __future__ import annotations

import argparse
import logging
import sys
from os.path import expanduser

from lorair_arch.commands.base import add_verb, load_plugins
from lorair_arch.errors import DataError

logger = logging.getLogger('lorair_arch')


def add(verbs) -> None:
    """Adds `data` to the verbs of `lorair`."""
    data = verbs.add_parser('data', help='check data, prepare priors', description='Checks and prepares data.')
    verbs = data.add_subparsers(title='commands', metavar='COMMAND', required=True)
    example = 'lorair data cache-priors -opt options/quickstart/2_pretrain.yml -o experiments/priors.safetensors'
    what = 'ask the router once about every training image, for train.prior: cached'
    verb = add_verb(verbs, 'cache-priors', what, example, _cache_priors)
    verb.add_argument(
        '-opt', type=expanduser, required=True, metavar='FILE', help='options of pre-training or fine-tuning'
    )
    verb.add_argument(
        '-o', '--output', type=expanduser, metavar='OUT', help='*.safetensors; default: path.prior_cache of the options'
    )
    what = 'read every image that an options file names and list all that is wrong'
    verb = add_verb(verbs, 'check', what, 'lorair data check -opt options/quickstart/1_router.yml', _check)
    verb.add_argument('-opt', type=expanduser, required=True, metavar='FILE', help='options of a training or a test')


def _cache_priors(args: argparse.Namespace) -> None:
    import lorair_arch

    lorair_arch.register()
    load_plugins()
    from lorair_arch.cache_priors import cache_priors

    cache_priors(args.opt, args.output)


def _check(args: argparse.Namespace) -> None:
    import lorair_arch

    lorair_arch.register()
    load_plugins()
    from lorair_arch.check_data import check_data
    from lorair_arch.running import console

    with console.session():
        report = check_data(args.opt)
        sys.stdout.write(report.table)
        sys.stdout.flush()
        for warning in report.warnings:
            logger.warning(warning)
        counts = [_count(report.problems, 'mistake'), _count(report.warnings, 'warning')]
        logger.info(f'{report.images} images read: {", ".join(counts)}')
    if report.problems:
        raise DataError('\n'.join(report.problems))


def _count(lines: list[str], what: str) -> str:
    return f'{len(lines)} {what}' + ('s' if len(lines) != 1 else '')
