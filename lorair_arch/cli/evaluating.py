"""`lorair evaluate`."""

from __future__ import annotations

import argparse
import logging
import sys
from os.path import expanduser

from lorair_arch.archs import uncollected
from lorair_arch.cli.parsing import add_verb, counted
from lorair_arch.errors import OptionsError, UnmeasuredError

logger = logging.getLogger('lorair_arch')


def add_evaluate(verbs) -> None:
    example = (
        'lorair evaluate results/mine datasets/rain100l/test_gt.lmdb --protocol airnet --suffix=_mine\n'
        'lorair evaluate restored truths --compare all_weather/outdoor_rain --format markdown\n'
        'lorair evaluate ours truths --protocol rgb --against theirs --per-image'
    )
    what = 'score a folder of results by a published way of measuring'
    verb = add_verb(verbs, 'evaluate', what, example, _evaluate)
    verb.add_argument(
        'results', type=expanduser, nargs='?', metavar='RESULTS', help='restored images: a folder or an LMDB'
    )
    verb.add_argument('gt', type=expanduser, nargs='?', metavar='GT', help='their ground truths, of the same names')
    what = 'how to measure: allweather, airnet, rgb, y, ...; default: as the numbers of --compare were'
    verb.add_argument('--protocol', metavar='NAME', help=what)
    what = 'what follows the names of the images in those of the results, as --suffix=_lorair'
    verb.add_argument('--suffix', action='append', default=[], metavar='TEXT', help=what)
    what = 'what the names of a pair have in common: a regular expression with one group'
    verb.add_argument('--match', metavar='REGEX', help=what)
    what = 'other results of the same images: the difference, image by image'
    verb.add_argument('--against', type=expanduser, metavar='RESULTS', help=what)
    what = 'published numbers to show beside: datasets/BENCHMARKS.md lists them'
    verb.add_argument('--compare', metavar='SETTING/SET', help=what)
    verb.add_argument('--per-image', action='store_true', help='list every image')
    styles = ('text', 'markdown', 'latex', 'json')
    verb.add_argument('--format', choices=styles, default='text', help='of the tables; default: text')
    verb.add_argument(
        '--published', action='store_true', help='show all protocols and published numbers, and do nothing else'
    )


def _evaluate(args: argparse.Namespace) -> None:
    if args.published:
        from lorair_arch.metrics.published import page

        sys.stdout.write(page())
        return
    if args.gt is None:
        raise OptionsError('RESULTS and GT: found one or neither, expected two folders of images (or --published)')
    with uncollected():
        from lorair_arch.evaluating.report import evaluate

    report = evaluate(
        args.results,
        args.gt,
        args.protocol,
        match=args.match,
        suffixes=args.suffix,
        against=args.against,
        compare=args.compare,
        per_image=args.per_image,
        style=args.format,
    )
    sys.stdout.write(report.text + '\n')
    sys.stdout.flush()
    for note in report.notes:
        logger.warning(note)
    if report.failures:
        count = (
            f'{counted(report.failures, "image")} could not be read and {"is" if len(report.failures) == 1 else "are"}'
        )
        raise UnmeasuredError('\n'.join([f'{count} left out:', *report.failures]))
