"""`lorair data ...`: preparing, checking and showing data."""

from __future__ import annotations

import argparse
import logging
import sys
from os.path import expanduser

from lorair_arch.cli.parsing import add_overwrite, add_verb, add_verbs, counted
from lorair_arch.cli.plugins import load_plugins
from lorair_arch.errors import DataError, OptionsError

logger = logging.getLogger('lorair_arch')


def add_data(verbs) -> None:
    what = 'prepare benchmarks, check and show data, prepare priors'
    data = verbs.add_parser('data', help=what, description='Prepares, checks and shows data.')
    verbs = add_verbs(data)
    example = (
        'lorair data prepare rain100l --from downloads/Rain100L\n'
        'lorair data prepare gopro --from GOPRO_Large.zip --out datasets/gopro --parts test'
    )
    what = 'make LMDBs of a benchmark as its authors distribute it; goes on where it was stopped'
    verb = add_verb(verbs, 'prepare', what, example, _prepare_data)
    verb.add_argument('name', metavar='NAME', help='rain100l, lol_v1, cdd11, folder, ...: see datasets/README.md')
    what = 'the folder or archive that was downloaded'
    verb.add_argument('--from', dest='source', type=expanduser, required=True, metavar='FOLDER', help=what)
    verb.add_argument('--out', type=expanduser, metavar='FOLDER', help='of the LMDBs; default: datasets/NAME')
    what = 'train, test, ...: parts of the benchmark; default: all that are there'
    verb.add_argument('--parts', nargs='+', default=[], metavar='PART', help=what)
    add_overwrite(verb)
    example = 'lorair data cache-priors -opt options/2_pretrain.yml -o experiments/priors.safetensors'
    what = 'ask the router once about every training image, for train.prior: cached'
    verb = add_verb(verbs, 'cache-priors', what, example, _cache_priors)
    _add_opt(verb, 'options of pre-training or fine-tuning')
    what = '*.safetensors; default: path.prior_cache of the options'
    verb.add_argument('-o', '--output', type=expanduser, metavar='OUT', help=what)
    add_overwrite(verb)
    what = 'read every image that an options file names and list all that is wrong'
    verb = add_verb(verbs, 'check', what, 'lorair data check -opt options/1_router.yml', _check_data)
    _add_opt(verb)
    example = 'lorair data show -opt options/zoo/2_pretrain.yml -o sheet.png'
    verb = add_verb(verbs, 'show', 'draw samples of an options file as training will see them', example, _show_data)
    _add_opt(verb)
    verb.add_argument('-o', '--output', type=expanduser, required=True, metavar='OUT', help='the picture: *.png')
    add_overwrite(verb)
    verb.add_argument('--dataset', default='train', metavar='KEY', help='train, val, test_1, ...; default: train')
    verb.add_argument('--samples', type=int, default=4, metavar='N', help='of each degradation; default: 4')
    verb.add_argument('--seed', type=int, default=0, metavar='N', help='another one shows other samples')


def _add_opt(verb: argparse.ArgumentParser, what: str = 'options of a training or a test') -> None:
    verb.add_argument('-opt', type=expanduser, required=True, metavar='FILE', help=what)


def _cache_priors(args: argparse.Namespace) -> None:
    load_plugins()
    from lorair_arch.data.prior_cache import cache_priors

    cache_priors(args.opt, args.output, args.overwrite)


def _prepare_data(args: argparse.Namespace) -> int:
    from lorair_arch.data.prepare.prepare import prepare

    report = prepare(args.name, args.source, args.out, args.overwrite, args.parts)
    sys.stdout.write(report.text)
    sys.stdout.flush()
    for note in report.notes:
        logger.warning(note)
    for mistake in report.mistakes:
        logger.error(mistake)
    return 1 if report.mistakes else 0


def _check_data(args: argparse.Namespace) -> None:
    load_plugins()
    from lorair_arch import console
    from lorair_arch.data.check import check_data

    with console.session():
        report = check_data(args.opt)
        sys.stdout.write(report.table)
        sys.stdout.flush()
        for warning in report.warnings:
            logger.warning(warning)
        counts = [counted(report.problems, 'mistake'), counted(report.warnings, 'warning')]
        logger.info(f'{report.images} images read: {", ".join(counts)}')
    if report.problems:
        raise DataError('\n'.join(report.problems))


def _show_data(args: argparse.Namespace) -> None:
    load_plugins()
    import numpy as np

    from lorair_arch import console
    from lorair_arch.data.images.writing import encode_png
    from lorair_arch.data.sheets import show_data
    from lorair_arch.files import check_output, write_file

    if not args.output.endswith('.png'):
        raise OptionsError(f"output '{args.output}' is the name of no PNG: let it end in .png")
    check_output(args.output, args.overwrite)
    with console.session():
        sheet = np.asarray(show_data(args.opt, args.dataset, args.samples, args.seed))
    write_file(args.output, encode_png(sheet))
    logger.info(f'{args.output}: {sheet.shape[1]} x {sheet.shape[0]} pixels')
