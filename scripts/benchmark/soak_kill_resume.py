"""Kills a training with SIGKILL at random moments, resumes it each time, and compares the result with an unharmed one.

    python scripts/benchmark/soak_kill_resume.py --kills 50

A miniature of fine-tuning (averaged weights, data workers, accumulated batches, validations, old checkpoints removed)
runs once undisturbed and once killed over and over: while it starts, between steps, and while a checkpoint is being
written. Weights, averages, optimiser, schedule, best values and every logged loss must be the same to the last bit;
else the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import skimage
import torch
import yaml
from tqdm import tqdm

import lorair_arch
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.weights.files import load_file, save_file

PHOTOS = 'astronaut.png', 'coffee.png', 'chelsea.png', 'rocket.jpg'
NAMES = 'noise', 'rain'
CLIP = {
    'embed_dim': 8,
    'vision_cfg': {'image_size': 16, 'patch_size': 8, 'layers': 1, 'width': 8, 'head_width': 8},
}
ROUTER = {'num_degradations': len(NAMES), 'clip_model': CLIP}
RESTORER = {'width': 16, 'enc_blk_nums': [1], 'middle_blk_num': 1, 'dec_blk_nums': [1], 'prior_dim': 4}
LORA = {'rank': 2, 'num_experts': len(NAMES), 'top_k': 1}
MOMENTS = 'while it starts', 'between steps', 'while it saves'
# A kill comes at most so many iterations after a start, and the training lasts long enough for all of them.
REACH, ITERATIONS_PER_KILL = 12, 16
POLL = 0.0005  # seconds; a checkpoint is half-written for a few milliseconds


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kills', type=int, default=50, help='how often the training is killed; default: 50')
    parser.add_argument('--seed', type=int, default=0, help='of the moments; default: 0')
    args = parser.parse_args(argv)
    lorair_arch.register()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder, name) for name in ('whole', 'killed')]
        for place in folders:
            prepare(place, total_iter=max(60, args.kills * ITERATIONS_PER_KILL))
        run_to_the_end(folders[0])
        kills = list(kill_and_resume(folders[1], args.kills, random.Random(args.seed)))
        run_to_the_end(folders[1])
        rows = compare(*folders)
        rows['nothing left half-written'] = not half_written(folders[1])
    lines = [f'{count:4} kills {moment}' for moment, count in Counter(moment for moment, _ in kills).items()]
    lines.append(f'{sum(half for _, half in kills):4} of them left a half-written file behind')
    lines += [f'{"equal" if equal else "DIFFERENT":>10}  {what}' for what, equal in rows.items()]
    sys.stdout.write('\n'.join([*lines, f'{time.monotonic() - started:.0f} s']) + '\n')
    return 0 if all(rows.values()) else 1


def prepare(folder: Path, total_iter: int) -> None:
    """Writes photographs, random weights and the options into a folder."""
    (folder / 'gt').mkdir(parents=True)
    for name in PHOTOS:
        image = cv2.imread(str(Path(skimage.data_dir, name)))
        cv2.imwrite(str(folder / 'gt' / f'{Path(name).stem}.png'), cv2.resize(image, (40, 32)))
    torch.manual_seed(0)
    save_file({'params': DegradationRouter(**ROUTER).state_dict()}, folder / 'router.pth')
    save_file({'params': LoRAIR(**RESTORER).state_dict()}, folder / 'base.pth')
    (folder / 'soak.yml').write_text(yaml.safe_dump(options(total_iter)), encoding='utf-8')


def options(total_iter: int) -> dict[str, Any]:
    """Gives the options of the training."""
    data = {
        'type': 'AllInOneDataset',
        'sources': [{'dataroot_gt': 'gt', 'degrade': {'type': name}} for name in NAMES],
    }
    loader = {'gt_size': 16, 'use_hflip': True, 'use_rot': True, 'batch_size_per_gpu': 1, 'num_worker_per_gpu': 1}
    return {
        'name': 'soak',
        'model_type': 'LoRAIRFinetuneModel',
        'num_gpu': 0,
        'manual_seed': 1,
        'degradations': list(NAMES),
        'datasets': {
            'train': {'name': 'train', 'dataset_enlarge_ratio': 9, **data, **loader},  # epochs of 36 iterations
            'val': {'name': 'val', **data},
        },
        'network_router': {'type': 'DegradationRouter', **ROUTER},
        'network_g': {'type': 'LoRAIR', **RESTORER, 'lora': LORA},
        'path': {'pretrain_network_router': 'router.pth', 'pretrain_network_g': 'base.pth'},
        'train': {
            'total_iter': total_iter,
            'accumulate': 2,
            'ema_decay': 0.99,
            'grad_clip_norm': 0.01,
            'optim_g': {'type': 'AdamW', 'lr': 1e-3},
            'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [total_iter], 'eta_min': 1e-5},
            'pixel_opt': {'type': 'PSNRLoss'},
            'trainable': 'all',
        },
        'val': {'val_freq': 15, 'pbar': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 3, 'keep_last': 3, 'use_tb_logger': True},
    }


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, '-m', 'lorair_arch', 'train', '-opt', 'soak.yml', '--auto_resume']
    env = os.environ | {'PYTHONPATH': str(Path(lorair_arch.__file__).parents[1]), 'OMP_NUM_THREADS': '1'}
    # a group of its own, so that no worker is left
    with (folder / 'console.txt').open('w') as console:
        return subprocess.Popen(command, cwd=folder, env=env, stderr=console, start_new_session=True)


def run_to_the_end(folder: Path) -> None:
    """Trains until nothing is left to do."""
    if start(folder).wait():
        raise SystemExit(f'the training failed:\n{(folder / "console.txt").read_text()}')


def kill_and_resume(folder: Path, kills: int, rng: random.Random) -> Iterator[tuple[str, bool]]:
    """Starts the training again and again and kills it each time.

    Yields:
        The moment of each kill, and whether it left a half-written file behind.
    """
    for _ in tqdm(range(kills), unit='kill'):
        moment, before = rng.choice(MOMENTS), half_written(folder)
        process = start(folder)
        wait_for(moment, folder, process, rng)
        if process.poll() is not None:
            raise SystemExit(f'the training ended before it was killed:\n{(folder / "console.txt").read_text()}')
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        yield moment, bool(half_written(folder) - before)


def half_written(folder: Path) -> set[Path]:
    return set(folder.glob('experiments/soak/*/.*.tmp'))


def wait_for(moment: str, folder: Path, process: subprocess.Popen, rng: random.Random) -> None:
    """Returns at a random moment of a kind, or when the training has ended."""
    steps, saves, deadline = rng.randrange(REACH), rng.randint(1, 3), time.monotonic() + rng.uniform(0.1, 5)
    before, names = len(losses(folder)), set()
    while process.poll() is None:
        done = len(losses(folder)) - before
        if moment == MOMENTS[0] and (done or time.monotonic() > deadline):
            return
        if moment == MOMENTS[1] and done > steps:
            break
        if moment == MOMENTS[2]:
            names.update(path.name for path in half_written(folder))
            if len(names) >= saves:
                return
        time.sleep(POLL)
    time.sleep(rng.uniform(0, 0.02))


def losses(folder: Path) -> list[tuple[str, str, str]]:
    """Gives iteration, learning rate and losses of all logged lines."""
    logs = sorted(folder.glob('experiments/soak/*.log'))
    lines = ''.join(log.read_text(encoding='utf-8', errors='replace') for log in logs)
    return re.findall(r'iter: +([\d,]+), lr:\((\S+),\)\] .*\)\] (.*)\n', lines)


def compare(whole: Path, killed: Path) -> dict[str, bool]:
    """Tells what is equal in two trainings, to the last bit."""

    contents = []
    for folder in (whole, killed):
        experiment = folder / 'experiments/soak'
        last = max((experiment / 'training_states').glob('*.state'), key=lambda path: int(path.stem))
        contents.append(load_file(experiment / 'models/net_g_latest.pth') | load_file(last))
    rows = {what: same(*(content[what] for content in contents)) for what in contents[0] if what != 'lorair'}
    logged = [losses(folder) for folder in (whole, killed)]
    rows[f'{len(set(logged[0]))} logged losses ({len(logged[1])} lines)'] = set(logged[0]) == set(logged[1])
    return rows


def same(a: Any, b: Any) -> bool:
    """Tells whether two nests of dicts, lists and tensors are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


if __name__ == '__main__':
    sys.exit(main())
