"""The commands `basicsr` and `lorair`. What takes time to import is imported by the verbs that need it."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from lorair_arch.errors import LoRAIRError, OptionsError, sentence

logger = logging.getLogger('lorair_arch')


def basicsr(argv: Sequence[str] | None = None) -> int:
    """Trains or tests any model class of BasicSR or of an installed plugin. Returns the exit code."""
    parser = _parser(
        'Trains and tests image restoration networks as BasicSR options files say.',
        'basicsr train -opt options/quickstart/*.yml\n'
        'basicsr test -opt options/test/quickstart.yml\n'
        'torchrun --nproc_per_node=8 -m lorair_arch train -opt FILE --launcher pytorch',
    )
    verbs = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for name, what, example in (
        ('train', 'train a network', 'basicsr train -opt options/quickstart/1_router.yml --auto_resume'),
        ('test', 'test a network', 'basicsr test -opt options/test/quickstart.yml'),
    ):
        verb = _verb(verbs, name, what, example, lambda args, name=name: _run_files(name, args))
        verb.add_argument('-opt', nargs='+', required=True, metavar='FILE', help='options files, run one after another')
        launchers = ('none', 'pytorch', 'slurm')
        verb.add_argument('--launcher', choices=launchers, default='none', help='what starts the processes')
        verb.add_argument('--auto_resume', action='store_true', help='continue from the newest state, if there is one')
        verb.add_argument('--debug', action='store_true', help="short intervals; the name starts with 'debug_'")
        verb.add_argument('--force_yml', nargs='+', default=[], metavar='KEY:KEY=VALUE', help='change options')
        # Set by old launchers; the environment says the same.
        verb.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return _main(parser, argv)


def lorair(argv: Sequence[str] | None = None) -> int:
    """Does what BasicSR has no word for. Returns the exit code."""
    parser = _parser(
        'All-in-one image restoration with LoRA-IR. Training and testing: basicsr --help.',
        'lorair restore photo.jpg -o restored.png --weights results/quickstart/weights',
    )
    verbs = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    _add_restore(verbs)
    _add_convert(verbs)
    _add_data(verbs)
    _add_benchmark(verbs)
    return _main(parser, argv)


def _add_restore(verbs) -> None:
    example = 'lorair restore photos -o restored --weights results/quickstart/weights --tile 512'
    verb = _verb(verbs, 'restore', 'restore an image or a folder of images', example, _restore)
    verb.add_argument('input', metavar='INPUT', help='an image or a folder of images')
    verb.add_argument('-o', '--output', required=True, help='where to: a file for one image, or a folder')
    verb.add_argument('--weights', nargs='+', required=True, metavar='PATH', help='files of weights, or their folder')
    verb.add_argument('--tile', type=int, metavar='N', help='restore in tiles of N pixels, to save memory')
    verb.add_argument('--device', help='cpu, cuda, cuda:1, ...; default: a GPU if there is one')
    verb.add_argument('--degradation', default='auto', metavar='NAME', help='what is wrong with the images')


def _restore(args: argparse.Namespace) -> None:
    from lorair_arch.restorer import restore_paths

    restore_paths(args.input, args.output, args.weights, args.tile, args.device, args.degradation)


def _add_convert(verbs) -> None:
    example = (
        'lorair convert setting1_ir.pth setting1_ir.safetensors --degradations snow rain raindrop\n'
        'lorair convert base.pth experts.pth official.pth --to official'
    )
    verb = _verb(verbs, 'convert', 'convert weights, from and to the official release too', example, _convert)
    verb.add_argument('input', nargs='+', metavar='INPUT', help='weights in any form; a restorer and its experts: both')
    verb.add_argument('output', metavar='OUTPUT', help='*.safetensors or *.pth')
    verb.add_argument('--to', choices=('lorair', 'official'), default='lorair', help='whose names the weights get')
    verb.add_argument('--degradations', nargs='+', metavar='NAME', help='names to store along, in order of the classes')


def _convert(args: argparse.Namespace) -> None:
    import lorair_arch

    lorair_arch.register()
    from lorair_arch.utils.convert import convert

    logger.info(convert(args.input, args.output, args.to, args.degradations))


def _add_data(verbs) -> None:
    data = verbs.add_parser('data', help='prepare data for training', description='Prepares data for training.')
    verbs = data.add_subparsers(title='commands', metavar='COMMAND', required=True)
    example = 'lorair data cache-priors -opt options/quickstart/2_pretrain.yml -o experiments/priors.safetensors'
    what = 'ask the router once about every training image, for train.prior: cached'
    verb = _verb(verbs, 'cache-priors', what, example, _cache_priors)
    verb.add_argument('-opt', required=True, metavar='FILE', help='options of pre-training or fine-tuning')
    verb.add_argument('-o', '--output', metavar='OUT', help='*.safetensors; default: path.prior_cache of the options')


def _cache_priors(args: argparse.Namespace) -> None:
    import lorair_arch

    lorair_arch.register()
    load_plugins()
    from lorair_arch.cache_priors import cache_priors

    cache_priors(args.opt, args.output)


def _add_benchmark(verbs) -> None:
    example = (
        'lorair benchmark --json benchmark.json\n'
        'lorair benchmark --only finetune_step dense_experts_step --rounds 5\n'
        'lorair benchmark --device cuda --official-size --bf16'
    )
    what = 'measure what the experts and the rest cost, next to the plain network'
    verb = _verb(verbs, 'benchmark', what, example, _benchmark)
    verb.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='where to run; default: cpu')
    verb.add_argument('--official-size', action='store_true', help='the published network, crops of 256 and ViT-L')
    verb.add_argument('--bf16', action='store_true', help='train in bf16, experts and plain network alike')
    verb.add_argument('--only', nargs='+', metavar='KEY', help='keys to measure; default: all')
    verb.add_argument('--rounds', type=int, default=10, metavar='N', help='how often each is measured; default: 10')
    verb.add_argument('--json', metavar='FILE', help='where to write the results, with a description of the machine')


def _benchmark(args: argparse.Namespace) -> None:
    # before PyTorch is imported: its profiler would write between the lines of the progress bar
    os.environ |= {'KINETO_LOG_LEVEL': '99', 'TORCH_CPP_LOG_LEVEL': 'ERROR'}
    import lorair_arch

    lorair_arch.register()
    from lorair_arch import console
    from lorair_arch.benchmark.report import as_table, check_writable, write_json
    from lorair_arch.benchmark.run import benchmark

    if args.json:
        check_writable(args.json)
    with console.session():
        report = benchmark(args.device, args.official_size, args.bf16, args.rounds, args.only)
    if args.json:
        write_json(report, args.json)
    sys.stdout.write(as_table(report['results']))


def _run_files(command: str, args: argparse.Namespace) -> int | None:
    """Runs options files; several each in a process of its own, so that none inherits anything from another."""
    import lorair_arch
    from lorair_arch.utils.yaml_file import read_yaml

    if len(args.opt) > 1 and args.launcher != 'none':
        raise OptionsError(f'-opt: found {len(args.opt)} files, expected one with --launcher {args.launcher}')
    for file in args.opt:  # a wrong name or a slip in the YAML need not wait for PyTorch
        read_yaml(file)
    lorair_arch.register()
    load_plugins()
    if len(args.opt) > 1:
        return _run_each(command, args)
    from lorair_arch import pipeline

    pipeline.run(
        command,
        args.opt[0],
        launcher=args.launcher,
        auto_resume=args.auto_resume,
        debug=args.debug,
        force_yml=args.force_yml,
    )
    return None


def _run_each(command: str, args: argparse.Namespace) -> int:
    from lorair_arch.utils.options import check_options

    mistakes = []
    for i, file in enumerate(args.opt):  # a mistake in the last file must not be found hours later
        try:
            check_options(file, command == 'train', args.force_yml, made_before=i > 0)
        except OptionsError as error:
            mistakes.append(str(error))
    if mistakes:
        raise OptionsError('\n'.join(mistakes))
    flags = [f'--{name}' for name in ('auto_resume', 'debug') if getattr(args, name)]
    if args.force_yml:
        flags += ['--force_yml', *args.force_yml]
    for i, file in enumerate(args.opt, start=1):
        logger.info(f'[{i}/{len(args.opt)}] basicsr {command} -opt {file}')
        code = _child([sys.executable, '-m', 'lorair_arch', command, '-opt', file, *flags])
        if code:
            left = ', '.join(args.opt[i:])
            sys.stderr.write(f'error: {file} failed (exit code {code})' + (f'; not run: {left}\n' if left else '\n'))
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


def load_plugins() -> None:
    """Lets every installed package that declares a `basicsr.plugins` entry point register its classes."""
    for plugin in entry_points(group='basicsr.plugins'):
        if plugin.module == 'lorair_arch':
            continue
        try:
            loaded = plugin.load()
            if callable(loaded):
                loaded()
        except Exception as error:  # whatever is wrong with another package must not stop this run
            logger.warning(f'the BasicSR plugin {plugin.name!r} ({plugin.value}) cannot be loaded: {error!r}')


def _parser(description: str, examples: str) -> argparse.ArgumentParser:
    module = Path(sys.argv[0]).name == '__main__.py'
    return argparse.ArgumentParser(
        prog='python -m lorair_arch' if module else None,
        description=description,
        epilog=_examples(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _verb(verbs, name: str, what: str, example: str, run: Callable) -> argparse.ArgumentParser:
    verb = verbs.add_parser(
        name,
        help=what,
        description=f'{what[0].upper()}{what[1:]}.',
        epilog=_examples(example),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run)
    return verb


def _examples(text: str) -> str:
    lines = text.splitlines()
    return '\n  '.join(['example:' if len(lines) == 1 else 'examples:', *lines])


def _main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Runs a verb; a mistake of the user's ends in one line for each, without a traceback."""
    args = parser.parse_args(argv)
    from lorair_arch import console

    console.to_console()
    try:
        return args.run(args) or 0
    except LoRAIRError as error:
        # Every process finds the same mistake in the options; one says so.
        if not isinstance(error, OptionsError) or os.environ.get('RANK', '0') == '0':
            sys.stderr.writelines(f'error: {line}\n' for line in sentence(error).splitlines())
        return 2
    except KeyboardInterrupt:
        sys.stderr.write('interrupted\n')
        return 130
