"""Measures weights of the zoo on every test set, beside the input and classical methods, in one run.

    python scripts/benchmark/zoo_results.py --data FOLDER --json results/zoo.json --sheets results/zoo
    python scripts/benchmark/zoo_results.py --data FOLDER --only cbsd68_25 val_rain --limit 8 --no-peers

zoo_sets.py says what FOLDER must hold, what the sets are and how their images are degraded; a set that is not there is
skipped. classical.py has the classical methods, which need `pip install -e '.[benchmark]' -c constraints.txt`.

Ours restores the whole image in one piece, its experts chosen by the router; where a single one of the router's classes
is wrong with the images also with that class's expert. PSNR and SSIM are BasicSR's, of 8-bit images, on RGB (on grey
where the set is grey). Times are seconds of processor time per megapixel, of all threads, so that what else runs on the
machine counts little (on a GPU, ours: of the clock). Memory is what PyTorch allocates at once for the largest image.

With --json, results are written after every set, and a second run with the same file takes from it what classical
methods gave on the same images. Sets that it does not measure anew stay in the file as they were.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

# before PyTorch is imported: its profiler, which counts the memory, would write between the lines
os.environ |= {'KINETO_LOG_LEVEL': '99', 'TORCH_CPP_LOG_LEVEL': 'ERROR'}

import cv2
import numpy as np
import torch
from tqdm import tqdm

from classical import Peer, check_installed, peers_of
from lorair_arch import Restorer
from lorair_arch.errors import LoRAIRError, OptionsError
from lorair_arch.weights import DEFAULT
from measures import describe_machine, peak_allocation
from zoo_file import ResultsFile, row, title
from zoo_sets import SEED, ImageSet, OpenSet, Sample, all_sets, check_data, opened, sets_of
from zoo_sheets import draw_sheet


def main() -> int:
    args = _arguments()
    try:
        _run(args)
    except LoRAIRError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True, type=Path, metavar='FOLDER', help='the folder with all test sets')
    what = f'files of weights, their folder, or a name of the zoo; default: {DEFAULT}'
    parser.add_argument('--weights', nargs='+', default=[DEFAULT], metavar='PATH', help=what)
    parser.add_argument('--only', nargs='+', metavar='SET', help=f'of {", ".join(all_sets())}')
    parser.add_argument('--limit', type=int, metavar='N', help='at most N images of each set, evenly spread over it')
    parser.add_argument('--no-peers', action='store_true', help='leave out the classical methods')
    parser.add_argument('--no-ours', action='store_true', help='measure the classical methods alone, for --json')
    parser.add_argument('--json', type=Path, metavar='FILE', help='results of every image; read first if it exists')
    what = 'one sheet of images for each set: the best, the median and the worst; replaces older sheets there'
    parser.add_argument('--sheets', type=Path, metavar='FOLDER', help=what)
    return parser.parse_args()


def _run(args: argparse.Namespace) -> None:
    sets = _chosen(args)
    peers = {name: [] if args.no_peers else peers_of(s.troubles, s.sigma) for name, s in sets.items()}
    check_installed([peer for name in sets for peer in peers[name]])
    results = ResultsFile(args.json)
    ours = None if args.no_ours else Ours(args.weights)
    about = {'seed': SEED, 'limit': args.limit, 'machine': describe_machine('cpu' if ours is None else ours.device)}
    sys.stdout.write(title(about | (ours.about if ours else {})))
    for name, images in opened(sets, args.data, args.limit):
        image_set = images.set
        if image_set.paired:
            records = [
                _measure(sample, image_set, peers[name], ours, results)
                for sample in tqdm(images, desc=name, unit='image', leave=False, disable=None)
            ]
            result = about | (ours.about | {'peak_bytes': ours.peak_bytes(images)} if ours else {})
            results.add(name, result | {'images': records})
            sys.stdout.write(row(name, results.sets[name]))
            sys.stdout.flush()
        if args.sheets:
            draw_sheet(images, results.sets.get(name), peers[name], ours.restorer, args.sheets)


def _chosen(args: argparse.Namespace) -> dict[str, ImageSet]:
    """Gives the sets to measure; checks the options, so that nothing is wrong with them after hours of measuring."""
    names = args.only or [name for name, s in all_sets().items() if s.paired or args.sheets]
    sets = sets_of(names)
    for name in names:
        if not sets[name].paired and not args.sheets:
            raise OptionsError(f'--only: {name} has no ground truth to measure by; add --sheets FOLDER to look at it')
    if args.no_ours and (args.no_peers or args.sheets):
        other = '--no-peers, and nothing is left to measure' if args.no_peers else '--sheets, which shows ours'
        raise OptionsError(f'--no-ours goes not with {other}')
    check_data(args.data, args.limit)
    return sets


class Ours:
    """The weights to measure.

    Args:
        weights: See `Restorer.from_pretrained`.

    Attributes:
        about: Which weights they are, for the file of results.
    """

    def __init__(self, weights: list[str]) -> None:
        self.restorer = Restorer.from_pretrained(weights)
        self.device = self.restorer.device.type
        digest = hashlib.sha256()
        for network in (self.restorer.router, self.restorer.net):
            for tensor in network.state_dict().values():
                digest.update(tensor.cpu().numpy().tobytes())
        self.about = {'weights': ' '.join(weights), 'digest': digest.hexdigest()[:16]}
        self.restorer(np.zeros((64, 64, 3), np.uint8))  # what only the first call does is not timed

    def measure(self, sample: Sample, image_set: ImageSet) -> dict:
        """Restores an image by the router's choice and, where one thing is wrong with it, by the right expert."""
        restored, seconds = _timed(self.restorer, sample.lq, time.perf_counter if self.device == 'cuda' else None)
        scores = {'ours': _score(restored, sample, image_set) | {'seconds': seconds}}
        scores['probabilities'] = self.restorer.degradations(sample.lq)
        known = set(image_set.troubles) & set(self.restorer.names)
        if known:
            scores['recognised'] = max(scores['probabilities'], key=scores['probabilities'].get) in known
        if len(image_set.troubles) == len(known) == 1 and self.restorer.net.num_experts:
            scores['forced'] = _score(self.restorer(sample.lq, image_set.troubles[0]), sample, image_set)
        return scores

    def peak_bytes(self, images: OpenSet) -> int:
        """Gives the most that PyTorch allocates at once, beside the weights, for the largest image of a set."""
        largest = max((sample.lq for sample in images), key=np.size)
        if self.device != 'cuda':
            return peak_allocation(lambda: self.restorer(largest))
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.restorer(largest)
        return torch.cuda.max_memory_allocated() - before


def _measure(
    sample: Sample, image_set: ImageSet, peers: Iterable[Peer], ours: Ours | None, results: ResultsFile
) -> dict:
    """Measures all there is of one image; what classical methods gave is remembered at once."""

    def measured(peer: Peer) -> dict:
        restored, seconds = _timed(peer, sample.lq)
        return _score(restored, sample, image_set) | {'seconds': seconds}

    record = {
        'name': sample.name,
        'megapixels': sample.gt.shape[0] * sample.gt.shape[1] / 1e6,
        'input': _score(sample.lq, sample, image_set),
        'peers': {},
    }
    for peer in peers:
        content = sample.lq.tobytes() + sample.gt.tobytes() + peer.settings().encode()
        key = f'{image_set.name}/{sample.name}/{peer.name}/{hashlib.sha256(content).hexdigest()[:16]}'
        record['peers'][peer.name] = results.remembered(key, lambda peer=peer: measured(peer))
    return record | (ours.measure(sample, image_set) if ours else {})


def _timed(
    method: Callable[[np.ndarray], np.ndarray], image: np.ndarray, clock: Callable[[], float] | None = None
) -> tuple[np.ndarray, float]:
    clock = clock or time.process_time
    start = clock()
    return method(image), clock() - start


def _score(image: np.ndarray, sample: Sample, image_set: ImageSet) -> dict[str, float | None]:
    """Compares an image with the ground truth; the PSNR of the same image is None."""
    from basicsr.metrics.psnr_ssim import calculate_psnr, calculate_ssim  # after lorair_arch, which mends its imports

    pair = (image, sample.gt)
    if image_set.grey:
        pair = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in pair]
    psnr, ssim = (float(metric(*pair, crop_border=0)) for metric in (calculate_psnr, calculate_ssim))
    return {'psnr': None if np.isinf(psnr) else psnr, 'ssim': ssim}


if __name__ == '__main__':
    sys.exit(main())
