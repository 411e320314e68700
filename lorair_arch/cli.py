"""The commands `basicsr` and `lorair`; each verb calls one function, and imports it only then."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from os.path import expanduser
from pathlib import Path

from lorair_arch.archs import uncollected
from lorair_arch.errors import DataError, Interrupted, LoRAIRError, OptionsError, UnmeasuredError, sentence
from lorair_arch.weights import DEFAULT

logger = logging.getLogger('lorair_arch')


def basicsr(argv: Sequence[str] | None = None) -> int:
    """Trains or tests any model class of BasicSR or of an installed plugin. Returns the exit code."""
    parser = _parser(
        'Trains and tests image restoration networks as BasicSR options files say.',
        'basicsr train -opt options/*.yml\n'
        'basicsr test -opt options/test/quickstart.yml\n'
        'torchrun --nproc_per_node=8 -m lorair_arch train -opt FILE --launcher pytorch',
    )
    verbs = _verbs(parser)
    for name, what, example in (
        ('train', 'train a network', 'basicsr train -opt options/1_router.yml --auto_resume'),
        ('test', 'test a network', 'basicsr test -opt options/test/quickstart.yml'),
    ):
        verb = _add(verbs, name, what, example, lambda args, name=name: _run_files(name, args))
        what = 'options files, run one after another'
        # One dash, as BasicSR's own.
        verb.add_argument('-opt', type=expanduser, nargs='+', required=True, metavar='FILE', help=what)
        launchers = ('none', 'pytorch', 'slurm')
        verb.add_argument('--launcher', choices=launchers, default='none', help='what starts the processes')
        verb.add_argument('--auto_resume', action='store_true', help='continue from the newest state, if there is one')
        verb.add_argument('--debug', action='store_true', help="short intervals; the name starts with 'debug_'")
        verb.add_argument('--force_yml', nargs='+', default=[], metavar='KEY:KEY=VALUE', help='change options')
        what = 'show each file with what it builds on and --force_yml changes, and do nothing else'
        verb.add_argument('--print-options', action='store_true', help=what)
        verb.add_argument('--dry-run', action='store_true', help='try everything, with one step, and leave nothing')
        # Set by old launchers; the environment says the same.
        verb.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return _main(parser, argv)


def lorair(argv: Sequence[str] | None = None) -> int:
    """Does what BasicSR has no word for. Returns the exit code."""
    parser = _parser(
        'All-in-one image restoration with LoRA-IR. Training and testing: basicsr --help.',
        'lorair restore photo.jpg -o restored.png',
    )
    verbs = _verbs(parser)
    for add in (_add_restore, _add_weights, _add_convert, _add_export, _add_inspect, _add_evaluate, _add_data):
        add(verbs)
    # the default would end the process without removing what it is writing
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _main(parser, argv)
    finally:
        signal.signal(signal.SIGTERM, before)


def load_plugins() -> None:
    """Lets BasicSR, and every installed package that declares a `basicsr.plugins` entry point, register their classes.

    Raises:
        LoRAIRError: BasicSR is not installed.
    """
    try:
        import basicsr  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != 'basicsr':  # BasicSR is there, and lacks something itself
            raise
        raise LoRAIRError(
            'training and testing need BasicSR, which is not installed: pip install basicsr (Python 3.10 to 3.12)'
        ) from error
    for plugin in entry_points(group='basicsr.plugins'):
        if plugin.module == 'lorair_arch':
            continue
        try:
            loaded = plugin.load()
            if callable(loaded):
                loaded()
        except Exception as error:  # whatever is wrong with another package must not stop this run
            logger.warning(f'the BasicSR plugin {plugin.name!r} ({plugin.value}) cannot be loaded: {error!r}')


def _main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Runs a verb; a mistake of the user's ends in one line for each, without a traceback."""
    args = parser.parse_args(argv)
    if 'OMP_WAIT_POLICY' not in os.environ:
        # Before PyTorch. Threads that spin for each other, as long as GNU's OpenMP lets them, take the cores from those
        # that they wait for if other programs run too: then a network takes 2.0 to 2.4 s in place of 5.5 to 6.3 (two
        # cores, load 5). On an idle machine both take 0.15 s, but 1.2 times as long if they spin still less.
        os.environ.setdefault('GOMP_SPINCOUNT', '50000')
    from lorair_arch import console

    console.to_console()
    try:
        return args.run(args) or 0
    except Interrupted as stop:  # which has been logged
        return stop.code
    except LoRAIRError as error:
        # A launcher shows the output of all processes: what all raise is said once.
        if not error.everywhere or os.environ.get('RANK', '0') == '0':
            sys.stderr.writelines(f'error: {line}\n' for line in sentence(error).splitlines())
        return error.code
    except KeyboardInterrupt:
        sys.stderr.write('interrupted\n')
        return 130  # 128 + SIGINT, as shells have it


def _parser(description: str, examples: str) -> argparse.ArgumentParser:
    module = Path(sys.argv[0]).name == '__main__.py'  # argparse would call the program __main__.py
    return argparse.ArgumentParser(
        prog='python -m lorair_arch' if module else None, description=description, **_formatted(examples)
    )


def _verbs(parser: argparse.ArgumentParser):
    return parser.add_subparsers(title='commands', metavar='COMMAND', required=True)


def _add(verbs, name: str, what: str, example: str, run: Callable) -> argparse.ArgumentParser:
    """Adds a verb to a command; `run` gets the parsed arguments and may return an exit code."""
    description = f'{what[0].upper()}{what[1:]}.'
    verb = verbs.add_parser(name, help=what, description=description, **_formatted(example))
    verb.set_defaults(run=run)
    return verb


def _formatted(examples: str) -> dict:
    lines = examples.splitlines()
    epilog = '\n  '.join(['example:' if len(lines) == 1 else 'examples:', *lines])
    return {'epilog': epilog, 'formatter_class': argparse.RawDescriptionHelpFormatter}


def _add_overwrite(verb: argparse.ArgumentParser) -> None:
    """Adds the flag without which no file that exists is replaced."""
    verb.add_argument('--overwrite', action='store_true', help='replace files that exist; never an input')


def _run_files(command: str, args: argparse.Namespace) -> int | None:
    from lorair_arch.options.yaml_file import printed, read_files

    if len(args.opt) > 1 and args.launcher != 'none':
        raise OptionsError(f'-opt: found {len(args.opt)} files, expected one with --launcher {args.launcher}')
    args.opt = read_files(args.opt)  # a wrong name or a slip in the YAML need not wait for PyTorch
    if args.print_options:
        sys.stdout.writelines(f'# {file}\n{printed(file, args.force_yml)}' for file in args.opt)
        return None
    load_plugins()
    from lorair_arch.training.run_files import run_files

    return run_files(command, args)


def _add_restore(verbs) -> None:
    example = (
        'lorair restore photo.jpg -o restored.png\n'
        'lorair restore photos -o restored --compare --report restored/report.html\n'
        "lorair restore 'photos/**/*.jpg' more -o restored --format same --degradation rain=0.7,noise=0.3\n"
        'lorair restore photos -o restored --shard 1/4 --log shard1.jsonl'
    )
    verb = _add(verbs, 'restore', 'restore images', example, _restore)
    add = verb.add_argument
    what = "images, folders of images, patterns such as 'photos/*.jpg'"
    add('input', type=expanduser, nargs='+', metavar='INPUT', help=what)
    add('-o', '--output', type=expanduser, required=True, help='where to: a file for one image, or a folder')
    what = f'files of weights, their folder, or a name (see lorair weights); default: {DEFAULT}'
    add('--weights', type=expanduser, nargs='+', default=[DEFAULT], metavar='PATH', help=what)
    what = (
        'what is wrong with the images; several with weights: rain=0.7,noise=0.3; default: auto, the router finds out'
    )
    add('--degradation', default='auto', metavar='NAME', help=what)
    what = '0 to 1: how much of the change is made; default: 1'
    add('--strength', type=float, default=1.0, metavar='X', help=what)
    what = 'restore in tiles of N pixels, which bounds the memory; default: auto, if memory is short'
    add('--tile', default='auto', metavar='N', help=what)
    add('--device', help='cpu, cuda, cuda:1, ...; default: a GPU if there is one')
    what = 'of the arithmetic; default: the fastest that the device is good at'
    add('--precision', choices=('fp32', 'bf16', 'fp16'), help=what)
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
    _add_overwrite(verb)


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


def _add_weights(verbs) -> None:
    example = 'lorair weights\nlorair weights --download setting1'
    verb = _add(verbs, 'weights', 'list weights that have a name, and download them', example, _weights)
    what = "names: of the list, or 'user/repo' or 'user/repo@revision' of huggingface.co (HF_ENDPOINT)"
    verb.add_argument('--download', nargs='+', default=[], metavar='NAME', help=what)


def _weights(args: argparse.Namespace) -> None:
    from lorair_arch.weights import located
    from lorair_arch.weights.listing import table

    if not args.download:
        sys.stdout.write(table() + '\n')
    for name in args.download:
        sys.stdout.writelines(f'{path}\n' for path in located(name))


def _add_convert(verbs) -> None:
    example = (
        'lorair convert setting1_ir.pth setting1_ir.safetensors --degradations snow rain raindrop\n'
        'lorair convert base.pth experts.pth official.pth --to official'
    )
    verb = _add(verbs, 'convert', 'convert weights, from and to the official release too', example, _convert)
    what = 'weights in any form; a restorer and its experts: both'
    verb.add_argument('input', type=expanduser, nargs='+', metavar='INPUT', help=what)
    verb.add_argument('output', type=expanduser, metavar='OUTPUT', help='*.safetensors or *.pth')
    verb.add_argument('--to', choices=('lorair', 'official'), default='lorair', help='whose names the weights get')
    verb.add_argument('--degradations', nargs='+', metavar='NAME', help='names to store along, in order of the classes')
    verb.add_argument('--half', action='store_true', help='in half precision: half the size; for restoring')
    _add_overwrite(verb)


def _convert(args: argparse.Namespace) -> None:
    with uncollected():
        from lorair_arch.weights.convert import convert

    logger.info(convert(args.input, args.output, args.to, args.degradations, args.half, args.overwrite))


def _add_export(verbs) -> None:
    example = (
        'lorair export results/quickstart/weights restorer.onnx\n'
        'lorair export results/quickstart/weights rain.safetensors --degradation rain'
    )
    what = 'write weights for other programs: ONNX, torch.export, or without experts'
    verb = _add(verbs, 'export', what, example, _export)
    what = 'router, restorer and experts: files, their folder, or a name'
    verb.add_argument('input', type=expanduser, nargs='+', metavar='INPUT', help=what)
    what = '*.onnx, *.pt2 (torch.export): router and restorer; *.safetensors, *.pth: a restorer without experts'
    verb.add_argument('output', type=expanduser, metavar='OUTPUT', help=what)
    what = 'merge the experts of this one; without, in *.onnx and *.pt2, the router chooses'
    verb.add_argument('--degradation', metavar='NAME', help=what)
    _add_overwrite(verb)


def _export(args: argparse.Namespace) -> None:
    graph = args.output.endswith(('.onnx', '.pt2'))
    if not graph and args.degradation is None:
        raise OptionsError(
            '--degradation is missing: it says whose experts are merged (*.onnx and *.pt2 can leave it to the router)'
        )
    with uncollected():
        from lorair_arch.weights.convert import export
        from lorair_arch.weights.graphs import export_graph

    write = export_graph if graph else export
    logger.info(write(args.input, args.output, args.degradation, args.overwrite))


def _add_inspect(verbs) -> None:
    example = 'lorair inspect photo.jpg -o inspected.png\nlorair inspect lorair-tiny'
    what = 'draw what router and experts make of an image, or say what weights are'
    verb = _add(verbs, 'inspect', what, example, _inspect)
    verb.add_argument('input', type=expanduser, metavar='INPUT', help='an image; or weights: a file, folder or name')
    what = 'of an image: the picture, *.png; default: NAME_inspected.png'
    verb.add_argument('-o', '--output', type=expanduser, metavar='OUT', help=what)
    what = f'of an image: files of weights, their folder, or a name; default: {DEFAULT}'
    verb.add_argument('--weights', type=expanduser, nargs='+', default=[DEFAULT], metavar='PATH', help=what)
    verb.add_argument('--device', help='of an image: cpu, cuda, cuda:1, ...; default: a GPU if there is one')
    _add_overwrite(verb)


def _inspect(args: argparse.Namespace) -> None:
    with uncollected():
        from lorair_arch.restoring.inspecting import inspect_image, is_image
        from lorair_arch.weights.describing import described
    if not is_image(args.input):
        sys.stdout.write(described(args.input) + '\n')
        return
    output = args.output or f'{Path(args.input).stem}_inspected.png'
    logger.info(inspect_image(args.input, output, args.weights, args.device, args.overwrite))


def _add_evaluate(verbs) -> None:
    example = (
        'lorair evaluate results/mine datasets/rain100l/test/clean --protocol airnet --suffix=_mine\n'
        'lorair evaluate restored truths --compare all_weather/outdoor_rain --format markdown\n'
        'lorair evaluate ours truths --protocol rgb --against theirs --per-image'
    )
    what = 'score a folder of results by a published way of measuring'
    verb = _add(verbs, 'evaluate', what, example, _evaluate)
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
    sys.stdout.reconfigure(errors='backslashreplace')  # names of images may be no text
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
            f'{_count(report.failures, "image")} could not be read and {"is" if len(report.failures) == 1 else "are"}'
        )
        raise UnmeasuredError('\n'.join([f'{count} left out:', *report.failures]))


def _add_data(verbs) -> None:
    what = 'check and show data, prepare priors'
    data = verbs.add_parser('data', help=what, description='Checks, shows and prepares data.')
    verbs = _verbs(data)
    example = 'lorair data cache-priors -opt options/2_pretrain.yml -o experiments/priors.safetensors'
    what = 'ask the router once about every training image, for train.prior: cached'
    verb = _add(verbs, 'cache-priors', what, example, _cache_priors)
    _add_opt(verb, 'options of pre-training or fine-tuning')
    what = '*.safetensors; default: path.prior_cache of the options'
    verb.add_argument('-o', '--output', type=expanduser, metavar='OUT', help=what)
    _add_overwrite(verb)
    what = 'read every image that an options file names and list all that is wrong'
    verb = _add(verbs, 'check', what, 'lorair data check -opt options/1_router.yml', _check_data)
    _add_opt(verb)
    example = 'lorair data show -opt options/zoo/3_pretrain.yml -o sheet.png'
    verb = _add(verbs, 'show', 'draw samples of an options file as training will see them', example, _show_data)
    _add_opt(verb)
    verb.add_argument('-o', '--output', type=expanduser, required=True, metavar='OUT', help='the picture: *.png')
    _add_overwrite(verb)
    verb.add_argument('--dataset', default='train', metavar='KEY', help='train, val, test_1, ...; default: train')
    verb.add_argument('--samples', type=int, default=4, metavar='N', help='of each degradation; default: 4')
    verb.add_argument('--seed', type=int, default=0, metavar='N', help='another one shows other samples')


def _add_opt(verb: argparse.ArgumentParser, what: str = 'options of a training or a test') -> None:
    verb.add_argument('-opt', type=expanduser, required=True, metavar='FILE', help=what)


def _cache_priors(args: argparse.Namespace) -> None:
    load_plugins()
    from lorair_arch.data.prior_cache import cache_priors

    cache_priors(args.opt, args.output, args.overwrite)


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
        counts = [_count(report.problems, 'mistake'), _count(report.warnings, 'warning')]
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


def _count(lines: list[str], what: str) -> str:
    return f'{len(lines)} {what}' + ('s' if len(lines) != 1 else '')
