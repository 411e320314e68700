"""Compares degraded, pre-trained and fine-tuned images of a test: a table, a picture and the numbers as JSON.

    python scripts/report.py options/test/quickstart.yml

Takes data, weights and metrics from the options file of the test, and writes beside its results (results/NAME):
comparison.png, results.json and weights/, a folder for `lorair restore --weights` and `Restorer.from_pretrained`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from lorair_arch import Restorer
from lorair_arch.data.foreign import build_dataset
from lorair_arch.data.sheets import Row, comparison_sheet
from lorair_arch.errors import DataError, LoRAIRError, OptionsError
from lorair_arch.files import check_output, write_json, writing
from lorair_arch.metrics.measuring import mean, measure, what_is_left_out
from lorair_arch.models.validation import table
from lorair_arch.options.reading import load_options
from lorair_arch.weights.files import save_file
from lorair_arch.weights.loading import state_dict_of

METRICS = ('psnr', 'ssim')
STAGES = {'input': 'input', 'pretrain': 'pre-trained', 'finetune': 'fine-tuned'}
WEIGHTS = {'router': 'router', 'base': 'g', 'experts': 'experts'}  # our file names: roles in the options
CELLS = 256, 512  # width of the images in the picture, pixels


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0], epilog='example: python scripts/report.py options/test/quickstart.yml'
    )
    parser.add_argument('options', help='options file of the test')
    parser.add_argument('--overwrite', action='store_true', help='replace the report of an earlier run')
    parser.add_argument('--started', type=float, default=time.time(), help='start of the whole run (date +%%s)')
    args = parser.parse_args()
    try:
        report(args.options, args.started, args.overwrite)
    except LoRAIRError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    return 0


def report(options: str, started: float, overwrite: bool = False) -> None:
    """Evaluates the test set of an options file and writes the report."""
    opt = load_options(options, is_train=False, root_path=os.getcwd())
    for metric in METRICS:
        if metric not in (opt['val']['metrics'] or {}):
            raise OptionsError(f'{options}: val.metrics has no {metric}: the report is made of {" and ".join(METRICS)}')
    folder = Path(opt['path']['results_root'])
    picture, numbers = folder / 'comparison.png', folder / 'results.json'
    for file in (picture, numbers, *(folder / 'weights' / f'{name}.pth' for name in WEIGHTS)):
        check_output(file, overwrite)
    weights = gather_weights(opt['path'], folder / 'weights')
    records = list(evaluate(opt, weights))
    groups = {
        name: [record for record in records if record['degradation'] == name]
        for name in dict.fromkeys(record['degradation'] for record in records)
    }
    results = {
        name: {
            f'{metric}_{stage}': mean(record['values'].get(f'{metric}_{stage}') for record in group)
            for metric in METRICS
            for stage in STAGES
        }
        for name, group in groups.items()
    }
    accuracy = mean(mean(record['recognised'] for record in group) for group in groups.values())
    with writing(picture) as file:
        draw(opt['name'], groups).save(file, 'PNG', optimize=True)
    content = {'degradations': results, 'router_accuracy': accuracy, 'seconds': round(time.time() - started, 1)}
    write_json(numbers, content)
    rows = [
        [name, *(show(value, 2 if key.startswith('psnr') else 4) for key, value in values.items())]
        for name, values in (*results.items(), ('mean', average(results)))
    ]
    header = ['', *(f'{metric.upper()} {stage}' for metric in METRICS for stage in STAGES.values())]
    sys.stdout.write(
        f'{table(header, rows)}\n'
        + ''.join(f'  {sentence}\n' for sentence in what_is_left_out(records))
        + f'  router accuracy {accuracy:.4f} on {len(records)} images; {content["seconds"]:.0f} s\n'
        f'  picture: {os.path.relpath(picture)}, weights: {os.path.relpath(folder / "weights")}\n'
    )


def gather_weights(path: dict, folder: Path) -> dict[str, Path]:
    """Copies the weights that a test used, and no others, into one folder."""
    files = {}
    for name, role in WEIGHTS.items():
        source = path.get(f'pretrain_network_{role}')
        if not source:
            raise OptionsError(
                f'path.pretrain_network_{role} is missing: the report needs a router, a base and experts'
            )
        key = path.get('param_key_router' if role == 'router' else 'param_key_g', 'params')
        state_dict, meta = state_dict_of(source, key)
        files[name] = folder / f'{name}.pth'
        save_file({'params': state_dict} | ({'lorair': meta} if meta else {}), files[name])
    return files


def evaluate(opt: dict, weights: dict[str, Path]) -> Iterator[dict]:
    """Restores every test image without and with experts, and measures what `basicsr test` measures."""
    metrics = {metric: opt['val']['metrics'][metric] for metric in METRICS}
    stages = {
        'pretrain': Restorer.from_pretrained([weights['router'], weights['base']]),
        'finetune': Restorer.from_pretrained(weights.values()),
    }
    for dataset_opt in opt['datasets'].values():
        dataset = build_dataset({'seed': opt['manual_seed'] or 0, **dataset_opt})
        for index in tqdm(range(len(dataset)), desc='Comparing', unit='image', leave=False):
            sample = dataset[index]
            if 'gt' not in sample:
                raise DataError(f'data set {dataset_opt["name"]} has no ground truth: the report compares with it')
            lq, gt = to_image(sample['lq']), rounded(to_image(sample['gt']))
            images = {'input': rounded(lq), **{stage: rounded(net(lq)) for stage, net in stages.items()}}
            probabilities = stages['finetune'].degradations(lq)
            # BasicSR's metrics expect BGR
            measured = {stage: measure(metrics, image[..., ::-1], gt[..., ::-1]) for stage, image in images.items()}
            values, left_out = (
                {f'{metric}_{stage}': value for stage, both in measured.items() for metric, value in both[i].items()}
                for i in range(2)
            )
            yield {
                'image': sample['lq_path'],
                'degradation': sample['degradation'],
                'images': [*images.values(), gt],
                'recognised': float(max(probabilities, key=probabilities.get) == sample['degradation']),
                'values': values,
                'left_out': left_out,
            }


def draw(name: str, groups: dict[str, list[dict]]):
    """Draws one image of each degradation, a different one each time as far as there are any."""
    rows, cell = [], CELLS[0]
    for i, (degradation, group) in enumerate(groups.items()):
        record = group[i * len(group) // len(groups)]
        captions = [f'{show(record["values"].get(f"psnr_{stage}"), 2)} dB' for stage in STAGES]
        rows.append(Row(degradation, record['images'], [*captions, '']))
        cell = max(cell, min(record['images'][0].shape[1], CELLS[1]))
    columns = [stage.capitalize() for stage in (*STAGES.values(), 'ground truth')]
    subtitle = 'Photographs that were not used in training; PSNR of each image to its ground truth.'
    return comparison_sheet(f'LoRA-IR {name}', subtitle, columns, rows, cell)


def show(value: float | None, decimals: int) -> str:
    """Writes a mean; '-' where no image has the value."""
    return '-' if value is None else f'{value:.{decimals}f}'


def average(results: dict[str, dict[str, float | None]]) -> dict[str, float | None]:
    """Mean over the degradations, each counting the same."""
    return {key: mean(values[key] for values in results.values()) for key in next(iter(results.values()))}


def to_image(tensor: Tensor) -> np.ndarray:
    """[3, H, W] -> [H, W, 3]."""
    return tensor.permute(1, 2, 0).numpy()


def rounded(image: np.ndarray) -> np.ndarray:
    """float32 in [0, 1] -> uint8."""
    return (image * 255).round().astype(np.uint8)


if __name__ == '__main__':
    sys.exit(main())
