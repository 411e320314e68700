"""How fast `lorair data prepare` is beside a plain copy of the files, and that a run that is killed loses nothing.

    python scripts/benchmark/prepare.py --pairs 10000 --size 64

writes pairs of small PNGs into a temporary folder, copies it with `shutil.copytree`, prepares it, and prepares it once
more with a SIGKILL again and again; the LMDBs of both must hold the files to the bit, else the exit code is 1. What it
printed stands in the README.md beside it.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
from tqdm import trange

from lorair_arch.data.images.writing import encode_png

SEED = 0


def write_pairs(root: Path, count: int, size: int) -> None:
    """Writes smooth images and noisy ones, as PNG."""
    rng = np.random.default_rng(SEED)
    for side in ('lq', 'gt'):
        (root / side).mkdir(parents=True)
    ramp = np.linspace(0, 200, size)[:, None, None]
    for i in trange(count, desc='writing pairs', leave=False, disable=None):
        gt = np.broadcast_to(ramp + rng.uniform(0, 55, 3), (size, size, 3)) + rng.uniform(0, 8, (size, 1, 3))
        lq = np.clip(gt + rng.normal(0, 15, gt.shape), 0, 255)
        for side, image in (('lq', lq), ('gt', gt)):
            (root / side / f'{i:06}.png').write_bytes(encode_png(image.astype(np.uint8)))


def command(source: Path, out: Path) -> list[str]:
    run = 'import sys; from lorair_arch.cli import lorair; sys.exit(lorair(sys.argv[1:]))'
    return [sys.executable, '-c', run, 'data', 'prepare', 'folder', '--from', str(source), '--out', str(out)]


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def killed(source: Path, out: Path, after: float) -> tuple[int, int]:
    """Prepares, with a SIGKILL after ever more seconds; gives how often, and the exit code of the last run."""
    for kills in range(100):
        process = subprocess.Popen(command(source, out), stdout=subprocess.DEVNULL)
        try:
            process.wait(after + 0.5 * kills)  # longer each time, so that it ends on slow machines too
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            continue
        break
    return kills, process.returncode


def contents(root: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(root), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


def whole(source: Path, out: Path) -> bool:
    """Tells whether the LMDBs hold exactly the files of the source."""
    return all(
        contents(out / f'images_{side}.lmdb')
        == {os.fsencode(path.stem): path.read_bytes() for path in (source / side).iterdir()}
        for side in ('lq', 'gt')
    )


def write(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pairs', type=int, default=10_000, help='how many (%(default)s)')
    parser.add_argument('--size', type=int, default=64, help='side of the images in pixels (%(default)s)')
    parser.add_argument('--kill-after', type=float, default=2, metavar='SECONDS', help='first kill (%(default)s)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = root / 'pairs'
        write_pairs(source, args.pairs, args.size)
        os.sync()
        times = {
            'shutil.copytree': seconds(lambda: (shutil.copytree(source, root / 'copy'), os.sync())),
            'lorair data prepare': seconds(
                lambda: subprocess.run(command(source, root / 'once'), check=True, stdout=subprocess.DEVNULL)
            ),
        }
        for name, spent in times.items():
            write(f'{name}: {spent:.2f} s, {2 * args.pairs / spent:.0f} images a second\n')
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the one command so far
        busy = 1000 * (usage.ru_utime + usage.ru_stime) / (2 * args.pairs)
        write(f'lorair data prepare: {busy:.2f} ms of a core an image, the start of the command among them\n')
        kills, code = killed(source, root / 'killed', args.kill_after)
        write(f'killed {kills} times, then exit code {code}\n')
        sound = {name: whole(source, root / name) for name in ('once', 'killed')}
        for name, is_sound in sound.items():
            write(f'{name}: {"every file to the bit" if is_sound else "files are lost"}\n')
    return 0 if all(sound.values()) else 1


if __name__ == '__main__':
    sys.exit(main())
