"""`lorair data ...`."""

from __future__ import annotations

import argparse
import logging
import sys
from os.path import expanduser

from lorair_arch.commands.base import add_overwrite, add_verb, load_plugins
from lorair_arch.errors import DataError, OptionsError

logger = logging.getLogger('lorair_arch')


def add(verbs) -> None:
    """Adds `data` to the verbs of `lorair`."""
    data = verbs.add_parser(
        'data', help='check and show data, prepare priors', description='Checks, shows and prepares data.'
    )
    verbs = data.add_subparsers(title='commands', metavar='COMMAND', required=True)
    example = 'lorair data cache-priors -opt options/2_pretrain.yml -o experiments/priors.safetensors'
    what = 'ask the router once about every training image, for train.prior: cached'
    verb = add_verb(verbs, 'cache-priors', what, example, _cache_priors)
    verb.add_argument(
        '-opt', type=expanduser, required=True, metavar='FILE', help='options of pre-training or fine-tuning'
    )
    verb.add_argument(
        '-o', '--output', type=expanduser, metavar='OUT', help='*.safetensors; default: path.prior_cache of the options'
    )
    add_overwrite(verb)
    what = 'read every image that an options file names and list all that is wrong'
    verb = add_verb(verbs, 'check', what, 'lorair data check -opt options/1_router.yml', _check)
    verb.add_argument('-opt', type=expanduser, required=True, metavar='FILE', help='options of a training or a test')
    example = 'lorair data show -opt options/zoo/3_pretrain.yml -o sheet.png'
    what = 'draw samples of an options file as training will see them'
    verb = add_verb(verbs, 'show', what, example, _show)
    verb.add_argument('-opt', type=expanduser, required=True, metavar='FILE', help='options of a training or a test')
    verb.add_argument('-o', '--output', type=expanduser, required=True, metavar='OUT', help='the picture: *.png')
    add_overwrite(verb)
    verb.add_argument('--dataset', default='train', metavar='KEY', help='train, val, test_1, ...; default: train')
    verb.add_argument('--samples', type=int, default=4, metavar='N', help='of each degradation; default: 4')
    verb.add_argument('--seed', type=int, default=0, metavar='N', help='another one shows other samples')


def _cache_priors(args: argparse.Namespace) -> None:
    import lorair_arch

    lorair_arch.register()
    load_plugins()
    from lorair_arch.data.prior_cache import cache_priors

    cache_priors(args.opt, args.output, args.overwrite)


def _check(args: argparse.Namespace) -> None:
    import lorair_arch

    lorair_arch.register()
    load_plugins()
    from lorair_arch import console
    from lorair_arch.data.check import check_data

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


def _show(args: argparse.Namespace) -> None:
    import numpy as np

    import lorair_arch

    lorair_arch.register()
    load_plugins()
    from lorair_arch.data.images.writing import encode_png
    from lorair_arch.data.sheets import show_data
    from lorair_arch.files import check_output, write_file

    if not args.output.endswith('.png'):
        raise OptionsError(f"output '{args.output}' is the name of no PNG: let it end in .png")
    check_output(args.output, args.overwrite)
    sheet = np.asarray(show_data(args.opt, args.dataset, args.samples, args.seed))
    write_file(args.output, encode_png(sheet))
    logger.info(f'{args.output}: {sheet.shape[1]} x {sheet.shape[0]} pixels')


def _count(lines: list[str], what: str) -> str:
    return f'{len(lines)} {what}' + ('s' if len(lines) != 1 else '')
