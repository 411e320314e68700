"""`lorair restore`, and `lorair inspect` of how it came to what it gives."""

from __future__ import annotations

import argparse
import logging
import sys
from os.path import expanduser
from pathlib import Path

from lorair_arch.archs import uncollected
from lorair_arch.cli.parsing import add_networks, add_overwrite, add_verb
from lorair_arch.weights import DEFAULT

logger = logging.getLogger('lorair_arch')


def add_restore(verbs) -> None:
    example = (
        'lorair restore photo.jpg -o restored.png\n'
        'lorair restore photos -o restored --compare --report restored/report.html\n'
        "lorair restore 'photos/**/*.jpg' more -o restored --format same --degradation rain=0.7,noise=0.3\n"
        'lorair restore photos -o restored --shard 1/4 --log shard1.jsonl'
    )
    verb = add_verb(verbs, 'restore', 'restore images', example, _restore)
    add = verb.add_argument
    what = "images, folders of images, patterns such as 'photos/*.jpg'"
    add('input', type=expanduser, nargs='+', metavar='INPUT', help=what)
    add('-o', '--output', type=expanduser, required=True, help='where to: a file for one image, or a folder')
    add_networks(verb)
    what = (
        'what is wrong with the images; several with weights: rain=0.7,noise=0.3; default: auto, the router finds out'
    )
    add('--degradation', default='auto', metavar='NAME', help=what)
    what = '0 to 1: how much of the change is made; default: 1'
    add('--strength', type=float, default=1.0, metavar='X', help=what)
    what = 'restore in tiles of N pixels, which bounds the memory; default: auto, if memory is short'
    add('--tile', default='auto', metavar='N', help=what)
    what = "of the results; same: each image's own, where it can be written; default: png"
    add('--format', choices=('png', 'jpg', 'webp', 'tif', 'same'), help=what)
    add('--quality', type=int, default=95, metavar='N', help='of JPEG and WebP, 1 to 100; default: 95')
    what = "stands behind the results' names: a.png becomes aTEXT.png"
    add('--suffix', default='', metavar='TEXT', help=what)
    add('--shard', default='1/1', metavar='I/N', help='restore the I-th of N parts of the images')
    add('--compare', action='store_true', help='write a picture of before and after beside each result')
    add('--report', type=expanduser, metavar='FILE', help='write a page (HTML) to look at all images, before and after')
    add('--log', type=expanduser, metavar='FILE', help='add a line of JSON for each image to a file')
    what = 'several processes, by Ray: on the cluster at ADDRESS (auto, HOST:PORT), else on this machine'
    add('--ray', nargs='?', const='', metavar='ADDRESS', help=what)
    add_overwrite(verb)


def _restore(args: argparse.Namespace) -> None:
    with uncollected():
        from lorair_arch.restoring.settings import parse_degradation, parse_shard, parse_tile

        settings = {
            'degradation': parse_degradation(args.degradation),
            'tile': parse_tile(args.tile),
            'shard': parse_shard(args.shard),
            **{name: getattr(args, name) for name in ('strength', 'format', 'quality', 'suffix', 'compare')},
        }
        from lorair_arch.restoring.folders import restore_paths

    restore_paths(
        args.input,
        args.output,
        args.weights,
        **{name: getattr(args, name) for name in ('device', 'precision', 'report', 'log', 'ray', 'overwrite')},
        **settings,
    )


def add_inspect(verbs) -> None:
    example = 'lorair inspect photo.jpg -o inspected.png\nlorair inspect lorair-tiny'
    what = 'draw what router and experts make of an image, or say what weights are'
    verb = add_verb(verbs, 'inspect', what, example, _inspect)
    verb.add_argument('input', type=expanduser, metavar='INPUT', help='an image; or weights: a file, folder or name')
    what = 'of an image: the picture, *.png; default: NAME_inspected.png'
    verb.add_argument('-o', '--output', type=expanduser, metavar='OUT', help=what)
    what = f'of an image: files of weights, their folder, or a name; default: {DEFAULT}'
    verb.add_argument('--weights', type=expanduser, nargs='+', default=[DEFAULT], metavar='PATH', help=what)
    verb.add_argument('--device', help='of an image: cpu, cuda, cuda:1, ...; default: a GPU if there is one')
    add_overwrite(verb)


def _inspect(args: argparse.Namespace) -> None:
    with uncollected():
        from lorair_arch.restoring.inspecting import inspect_image, is_image
        from lorair_arch.weights.describing import described
    if not is_image(args.input):
        sys.stdout.write(described(args.input) + '\n')
        return
    output = args.output or f'{Path(args.input).stem}_inspected.png'
    logger.info(inspect_image(args.input, output, args.weights, args.device, args.overwrite))
