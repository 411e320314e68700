"""`lorair restore`."""

from __future__ import annotations

import argparse
from os.path import expanduser

from lorair_arch.commands.base import add_overwrite, add_verb
from lorair_arch.weights import DEFAULT


def add(verbs) -> None:
    """Adds `restore` to the verbs of `lorair`."""
    example = (
        'lorair restore photo.jpg -o restored.png\n'
        'lorair restore photos -o restored --weights results/quickstart/weights --tile 512'
    )
    verb = add_verb(verbs, 'restore', 'restore an image or a folder of images', example, _restore)
    verb.add_argument('input', type=expanduser, metavar='INPUT', help='an image or a folder of images')
    verb.add_argument(
        '-o', '--output', type=expanduser, required=True, help='where to: a file for one image, or a folder'
    )
    what = f'files of weights, their folder, or a name of the zoo; default: {DEFAULT}'
    verb.add_argument('--weights', type=expanduser, nargs='+', default=[DEFAULT], metavar='PATH', help=what)
    verb.add_argument('--tile', type=int, metavar='N', help='restore in tiles of N pixels, to save memory')
    verb.add_argument('--device', help='cpu, cuda, cuda:1, ...; default: a GPU if there is one')
    verb.add_argument('--degradation', default='auto', metavar='NAME', help='what is wrong with the images')
    add_overwrite(verb)


def _restore(args: argparse.Namespace) -> None:
    from lorair_arch.restoring.folders import restore_paths

    restore_paths(
        args.input, args.output, args.weights, args.tile, args.device, args.degradation, overwrite=args.overwrite
    )
