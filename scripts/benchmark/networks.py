"""Which network, and which crops, learn most in equal time? Trains each with the options of the zoo, and draws curves.

    python scripts/data_preparation/zoo_data.py --train PHOTOS --val OTHER_PHOTOS   # writes datasets/zoo
    python scripts/benchmark/networks.py --output results/networks --minutes 9 [--bf16]

Each contestant is the restorer of options/zoo/2_pretrain.yml with another shape or other crops, guided by lorair-tiny's
router. Trials, in turns, tell how long a step takes with all that belongs to it: reading, router, optimiser. A training
then has as many steps as fit into its minutes, and the whole schedule of the learning rate within them; validations are
not counted. Run it in the folder of datasets/zoo, on a machine that does nothing else. Results are in
OUTPUT/results.json; a second run trains what is missing there. At the end it prints a table, and draws
OUTPUT/networks.png.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tabulate import tabulate
from tqdm import tqdm

from lorair_arch.archs import network_class
from lorair_arch.errors import LoRAIRError, OptionsError
from lorair_arch.files import write_json, writing
from lorair_arch.options.reading import load_options
from lorair_arch.training.session import run_session
from lorair_arch.training.train import Training
from measures import continued, describe_machine, take_turns

_OPTIONS = Path(__file__).parents[2] / 'options/zoo/2_pretrain.yml'
_RATE = 1e-3
_TRIAL, _ROUNDS = 20, 3  # steps of a trial, and how often it is repeated
_VALIDATIONS = 3


@dataclass(frozen=True)
class Contestant:
    """A training that differs from the zoo's.

    Attributes:
        network: Options of the restorer.
        crops: Side in pixels and number of the crops of a step; of two, each has half of the time.
        seed: Of the weights and of the order of the images.
    """

    network: dict[str, Any] = field(default_factory=dict)
    crops: tuple[tuple[int, int], ...] = ((96, 6),)
    seed: int = 0


def _shape(width: int, enc: list[int], middle: int, dec: list[int]) -> Contestant:
    return Contestant({'width': width, 'enc_blk_nums': enc, 'middle_blk_num': middle, 'dec_blk_nums': dec})


# About as many pixels in a step, so that what differs is the network or the crops.
CONTESTANTS = {
    'lorair-tiny': Contestant(),
    'another seed': Contestant(seed=1),
    'few channels, many blocks': _shape(16, [2, 4, 8], 8, [2, 2, 2]),
    'many channels, few blocks': _shape(48, [1, 1, 1], 1, [1, 1, 1]),
    'blocks at full resolution': _shape(32, [2, 2], 3, [2, 2]),
    'blocks in the deep': _shape(32, [1, 1, 1, 8], 1, [1, 1, 1, 1]),
    'crops of 64': Contestant(crops=((64, 13),)),
    'crops of 128': Contestant(crops=((128, 3),)),
    'crops of 64, then 128': Contestant(crops=((64, 13), (128, 3))),
}


class Curve(contextlib.nullcontext):
    """Stands where TensorBoard's writer does, and keeps the PSNR in dB of each validation.

    Attributes:
        values: By iteration and degradation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[int, dict[str, float]] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Keeps 'metrics/val/DEGRADATION/psnr'; the mean over all has no degradation in its name."""
        _, _, *degradation, metric = tag.split('/')
        if degradation and metric == 'psnr':
            self.values.setdefault(step, {})[degradation[0]] = value

    def add_image(self, *_: Any) -> None:
        """Shows nothing."""


class _Trial(Training):
    """Some steps, to know how long one takes: the median, in seconds."""

    def run(self) -> float:
        self.began: list[float] = []
        super().run()
        return float(np.median(np.diff(self.began)))

    def begin_step(self, iteration: int) -> None:
        self.began.append(time.perf_counter())
        super().begin_step(iteration)

    def save(self, epoch: int, iteration: int) -> None:
        """Nothing of it is needed."""

    def validate(self, iteration: int, due: bool = False) -> None:
        """Nothing has been learnt."""


class _Contest(Training):
    """A training that gives its curve."""

    def run(self) -> dict[int, dict[str, float]]:
        self.board = Curve()
        super().run()
        return self.board.values


class StepSeconds:
    """The time of a step in a part of a contestant's training (`Measure`).

    Args:
        opt: Options of the part.
    """

    unit, amount = 's', 1

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt

    def warm_up(self) -> None:
        """The median of a trial leaves out its first steps."""

    def measure(self) -> float:
        with tempfile.TemporaryDirectory(prefix='lorair_networks_') as folder:
            return _run(_Trial, self.opt, _TRIAL, 1, Path(folder), logging.WARNING)


def seconds_of_all(bf16: bool) -> dict[str, list[float]]:
    """Gives the seconds of a step in each part of all contestants, measured in turns."""
    parts = {
        f'{name}, {number}': StepSeconds(_options(contestant, number, bf16))
        for name, contestant in CONTESTANTS.items()
        for number in range(len(contestant.crops))
    }
    with tqdm(total=_ROUNDS, desc='Trials', unit='round') as bar:
        values = take_turns(parts, _ROUNDS, lambda part: None if part else bar.update())
    return {
        name: [float(np.median(values[f'{name}, {number}'])) for number in range(len(contestant.crops))]
        for name, contestant in CONTESTANTS.items()
    }


def contest(contestant: Contestant, seconds: list[float], minutes: float, bf16: bool, folder: Path) -> dict[str, Any]:
    """Trains a contestant.

    Args:
        contestant: What to train.
        seconds: Of a step in each part (`crops`).
        minutes: That all steps together may take.
        bf16: Whether it is trained in bf16.
        folder: For its options and experiments.

    Returns:
        `parameters` of its network; `steps` of each part; and `curve`: minutes, and the PSNR in dB by degradation.
    """
    steps, curve, weights, count = [], [], None, len(seconds)
    for number, each in enumerate(seconds):
        steps.append(max(round(60 * minutes / count / each), 1))
        opt = _options(contestant, number, bf16, weights)
        values = _run(_Contest, opt, steps[-1], count - number, folder)
        curve += [[number * minutes / count + step * each / 60, of] for step, of in values.items()]
        weights = str(folder / f'experiments/{opt["name"]}/models/net_g_latest.pth')
    network = load_options(folder / 'part0.yml', True, str(folder))['network_g']
    net = network_class(network['type'])(**{key: value for key, value in network.items() if key != 'type'})
    return {'parameters': sum(p.numel() for p in net.parameters()), 'steps': steps, 'curve': curve}


def _options(contestant: Contestant, number: int, bf16: bool, weights: str | None = None) -> dict[str, Any]:
    """Gives the options of a part, which begins with these weights."""
    side, batch = contestant.crops[number]
    # one cosine over all parts: each begins where the one before has ended
    rate = _RATE * (1 + np.cos(np.pi * number / len(contestant.crops))) / 2
    return {
        'base': str(_OPTIONS),
        'name': f'part{number}',
        'manual_seed': contestant.seed,
        'datasets': {'train': {'gt_size': side, 'batch_size_per_gpu': batch, 'seed': contestant.seed}},
        'network_g': contestant.network,
        'path': {'pretrain_network_router': 'lorair-tiny', 'pretrain_network_g': weights},
        'train': {'amp': 'bf16' if bf16 else None, 'ema_decay': 0.99, 'optim_g': {'lr': float(rate)}},
        'logger': {'use_tb_logger': False, 'save_checkpoint_freq': 10**9},
    }


def _run(
    kind: type[Training], opt: dict[str, Any], steps: int, left: int, folder: Path, level: int = logging.INFO
) -> Any:
    """Runs a training of so many steps; `left`: parts of the schedule that begin with it."""
    file = folder / f'{opt["name"]}.yml'
    train = opt['train'] | {'total_iter': steps, 'scheduler': {'periods': [left * steps]}}
    val = {'val_freq': -(-steps // _VALIDATIONS)}
    file.write_text(yaml.safe_dump(opt | {'train': train, 'val': val}, sort_keys=False), encoding='utf-8')
    loaded = load_options(file, True, str(folder)) | {'root_path': str(folder)}
    return run_session(lambda signals: kind(loaded, file, signals).run(), loaded, level=level)


def mean(values: dict[str, float]) -> float:
    """Gives the mean over what is degraded: a clean photograph hardly changed would decide it."""
    return float(np.mean([value for name, value in values.items() if name != 'clean']))


def table(results: dict[str, dict[str, Any]]) -> str:
    """Shows what each has learnt at the end."""
    names = list(next(iter(results.values()))['curve'][-1][1])
    rows = []
    for name, result in results.items():
        steps = ' + '.join(map(str, result['steps']))
        seconds = ', '.join(f'{value:.2f}' for value in result['seconds'])
        values = result['curve'][-1][1]
        shown = [f'{values[key]:.2f}' for key in names]
        rows.append([name, f'{result["parameters"] / 1e6:.1f}M', seconds, steps, *shown, f'{mean(values):.2f}'])
    header = ['training', 'parameters', 's a step', 'steps', *names, 'mean of degraded']
    return tabulate(rows, header, tablefmt='github', disable_numparse=True) + '\n'


def draw(results: dict[str, dict[str, Any]], file: Path) -> None:
    """Draws the mean PSNR over the minutes."""
    from matplotlib.figure import Figure  # takes long to import

    figure = Figure(figsize=(8, 4.5), layout='constrained')
    axes = figure.subplots()
    for name, result in results.items():
        minutes, values = zip(*((minute, mean(of)) for minute, of in result['curve']))
        axes.plot(minutes, values, 'o-', label=name)
    axes.set(xlabel='minutes of training', ylabel='mean PSNR in dB')
    axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
    with writing(file) as out:
        figure.savefig(out, format='png', dpi=100)


def run(args: argparse.Namespace) -> None:
    """Trains what is missing, and shows everything."""
    if args.minutes <= 0:
        raise OptionsError('--minutes must be more than 0')
    file = args.output / 'results.json'
    content = continued(file, {'minutes': args.minutes, 'bf16': args.bf16})
    results = content['results']
    if not results:
        results |= {name: {'seconds': seconds} for name, seconds in seconds_of_all(args.bf16).items()}
        write_json(file, content)
    for name in tqdm([name for name in CONTESTANTS if 'curve' not in results[name]], unit='training'):
        with tempfile.TemporaryDirectory(prefix='lorair_networks_') as folder:
            seconds = results[name]['seconds']
            results[name] |= contest(CONTESTANTS[name], seconds, args.minutes, args.bf16, Path(folder))
        write_json(file, content | {'machine': describe_machine('cpu')})
    sys.stdout.write(table(results))
    draw(results, args.output / 'networks.png')


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', required=True, type=Path, metavar='FOLDER', help='results, made if it is not there')
    parser.add_argument('--minutes', type=float, default=9, metavar='M', help='of each training (%(default)s)')
    parser.add_argument('--bf16', action='store_true', help='train in bf16')
    try:
        run(parser.parse_args())
    except LoRAIRError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
