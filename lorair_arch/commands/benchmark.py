"""`lorair benchmark`."""

from __future__ import annotations

import argparse
import os
import sys
from os.path import expanduser

from lorair_arch.commands.base import add_overwrite, add_verb


def add(verbs) -> None:
    """Adds `benchmark` to the verbs of `lorair`."""
    example = (
        'lorair benchmark --json benchmark.json\n'
        'lorair benchmark --only finetune_step dense_experts_step --rounds 5\n'
        'lorair benchmark --device cuda --official-size --bf16'
    )
    what = 'measure what the experts and the rest cost, next to the plain network'
    verb = add_verb(verbs, 'benchmark', what, example, _benchmark)
    verb.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='where to run; default: cpu')
    verb.add_argument('--official-size', action='store_true', help='the published network, crops of 256 and ViT-L')
    verb.add_argument('--bf16', action='store_true', help='train in bf16, experts and plain network alike')
    verb.add_argument('--only', nargs='+', metavar='KEY', help='keys to measure; default: all')
    verb.add_argument('--rounds', type=int, default=10, metavar='N', help='how often each is measured; default: 10')
    verb.add_argument(
        '--json', type=expanduser, metavar='FILE', help='where to write the results, with a description of the machine'
    )
    add_overwrite(verb)


def _benchmark(args: argparse.Namespace) -> None:
    # before PyTorch is imported: its profiler would write between the lines of the progress bar
    os.environ |= {'KINETO_LOG_LEVEL': '99', 'TORCH_CPP_LOG_LEVEL': 'ERROR'}
    import lorair_arch

    lorair_arch.register()
    from lorair_arch import console
    from lorair_arch.benchmark.report import as_table
    from lorair_arch.benchmark.run import benchmark
    from lorair_arch.files import check_output, write_json

    if args.json:
        check_output(args.json, args.overwrite)
    with console.session():
        report = benchmark(args.device, args.official_size, args.bf16, args.rounds, args.only)
    if args.json:
        write_json(args.json, report)
    sys.stdout.write(as_table(report['results']))
