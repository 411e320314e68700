"""`lorair data ...`."""

from __future__ import annotations

import argparse

from lorair_arch.commands.base import add_verb, load_plugins


def add(verbs) -> None:
    """Adds `data` to the verbs of `lorair`."""
    data = verbs.add_parser('data', help='prepare data for training', description='Prepares data for training.')
    verbs = data.add_subparsers(title='commands', metavar='COMMAND', required=True)
    example = 'lorair data cache-priors -opt options/quickstart/2_pretrain.yml -o experiments/priors.safetensors'
    what = 'ask the router once about every training image, for train.prior: cached'
    verb = add_verb(verbs, 'cache-priors', what, example, _cache_priors)
    verb.add_argument('-opt', required=True, metavar='FILE', help='options of pre-training or fine-tuning')
    verb.add_argument('-o', '--output', metavar='OUT', help='*.safetensors; default: path.prior_cache of the options')


def _cache_priors(args: argparse.Namespace) -> None:
    import lorair_arch

    lorair_arch.register()
    load_plugins()
    from lorair_arch.cache_priors import cache_priors

    cache_priors(args.opt, args.output)
