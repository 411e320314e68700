"""Validation and testing, on one process or many: every image counted once, every degradation reported."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from textwrap import indent
from typing import Any, NamedTuple

import torch.distributed as dist
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import get_dist_info
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from lorair_arch.data.images.kinds import IMAGE_SUFFIXES
from lorair_arch.files import fitting, write_json
from lorair_arch.metrics.measuring import what_is_left_out


def name_of(sample: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Gives the name of an image within its data set: folders and stem, such as 'rain/street/0001'.

    Args:
        sample: A batch of one image. `AllInOneDataset` brings the name; for other data sets it is what follows
            `dataroot_lq` in the path of the image.
        options: Options of the data set.
    """
    if 'name' in sample:
        return sample['name'][0]
    path, root = sample['lq_path'][0], options.get('dataroot_lq')
    # Folders within the data set stay: images of the same name in two of them must not share a result.
    inner = os.path.relpath(path, root) if root and PurePath(root) in PurePath(path).parents else path
    parts = PurePath(inner)
    if parts.is_absolute() or '..' in parts.parts:  # never out of the folder of the results
        parts = PurePath(parts.name)
    # the keys of an LMDB, which may have dots, have no suffix
    return str(parts.with_suffix('') if parts.suffix.lower() in IMAGE_SUFFIXES else parts)


def place_of(opt: Mapping[str, Any], dataset: str, name: str, current_iter: int | str) -> Path:
    """Gives the file of a restored image, in BasicSR's layout.

    Args:
        opt, dataset, name: All options, the name of the data set, and that of the image, see `name_of`.
        current_iter: Iteration of the training; not used in tests.

    Returns:
        In training `[DATASET/]FOLDERS/STEM/STEM_ITERATION.png`, with DATASET where there are several validation sets;
        in tests `DATASET/FOLDERS/STEM_SUFFIX.png`; both in `path.visualization`.
    """
    folder, name = Path(opt['path']['visualization']), PurePath(name)
    if not opt['is_train']:
        suffix = opt['val'].get('suffix') or opt['name']
        return folder / dataset / name.parent / fitting(name.name, f'_{suffix}.png')
    several = sum(phase.startswith('val') for phase in opt['datasets']) > 1
    return folder / (dataset if several else '') / name / fitting(name.name, f'_{current_iter}.png')


class Summary(NamedTuple):
    """What the images of a data set sum up to.

    Attributes:
        means: Of the measured values in each group of images, by the group's name and the value's; the group '' is the
            whole set; None: no image has the value.
        intervals: The 95 % intervals of the means of a test, by the same names; empty in trainings.
        table: For the log.
    """

    means: dict[str, dict[str, float | None]]
    intervals: dict[str, dict[str, tuple[float, float] | None]]
    table: str


class Validated:
    """Half of a model of BasicSR: evaluates image by image, gathers from all processes, reports on the first.

    A subclass says what it measures of one image (`evaluate`) and how the images sum up (`summarize`).
    """

    def evaluate(self, data: dict, dataset: str, current_iter: int | str, save_img: bool) -> dict:
        """Measures one image; returns finite numbers and names, and in `left_out` why others are missing."""
        raise NotImplementedError

    def summarize(self, records: list[dict]) -> Summary:
        """Sums up the images."""
        raise NotImplementedError

    def validation(self, dataloader, current_iter: int | str, tb_logger, save_img: bool = False) -> None:
        """Validates on one data set; in distributed runs the loader gives each process its share of the images.

        Args:
            dataloader: Batches of one image.
            current_iter: Iteration, or the name of a test.
            tb_logger: TensorBoard's writer, or None.
            save_img: Whether to save the restored images.
        """
        dataset = dataloader.dataset.opt['name']
        rank, world_size = get_dist_info()
        self.pictures: dict[str, Tensor] = {}
        hidden = True if rank or not self.opt['val'].get('pbar', True) else None  # None: hidden where no one looks
        batches = tqdm(dataloader, desc=f'Validating {dataset}', unit='image', leave=False, disable=hidden)
        records = [self.evaluate(data, dataset, current_iter, save_img) for data in batches]
        if world_size > 1:
            shares: list = [None] * world_size
            # Records of all images, not sums: a mean of the processes' means would weigh images unequally.
            dist.all_gather_object(shares, records)
            # process r had the images r, r + world_size, ...: put them back in order, so that sums are the same
            records = [shares[i % world_size][i // world_size] for i in range(sum(map(len, shares)))]
        if rank == 0:
            self._report(records, dataset, current_iter, tb_logger)

    def _report(self, records: list[dict], dataset: str, current_iter: int | str, tb_logger) -> None:
        means, intervals, table = self.summarize(records)
        for sentence in (f'Validation {dataset}: {sentence}' for sentence in what_is_left_out(records)):
            if sentence not in self.said:
                get_root_logger().warning(sentence)
            self.said.add(sentence)
        lines = [f'Validation {dataset}', table]
        if self.is_train:
            best = self._keep_best(dataset, means[''], current_iter)
            lines += [f'best {metric}: {value:.4f} @ {iteration} iter' for metric, (value, iteration) in best.items()]
        get_root_logger().info('\n'.join(lines))
        if not self.is_train:
            path = Path(self.opt['path']['results_root'], f'metrics_{dataset}.json')
            content = _by_degradation(means) | {'intervals': _by_degradation(intervals), 'images': records}
            write_json(path, content)
        if tb_logger:
            for group, values in means.items():
                for metric, value in values.items():
                    if value is not None:
                        tag = '/'.join(filter(None, ('metrics', dataset, group, metric)))
                        tb_logger.add_scalar(tag, value, current_iter)
            for name, picture in self.pictures.items():
                tb_logger.add_image(f'{dataset}/{name}', picture, current_iter)

    def _keep_best(
        self, dataset: str, values: dict[str, float | None], current_iter: int
    ) -> dict[str, tuple[float, int]]:
        """Updates the best value of each metric and the iteration that gave it."""
        best = self.best.setdefault(dataset, {})
        for metric, value in values.items():
            if value is None:
                continue
            better = (self.opt['val'].get('metrics') or {}).get(metric, {}).get('better', 'higher')
            lower = better == 'lower' or metric.startswith('l_')  # `l_*` are BasicSR's names for losses
            # a training state of an earlier version may hold nan or inf
            known = metric in best and math.isfinite(best[metric][0])
            # The latest of equal ones, as in BasicSR.
            if not known or (value <= best[metric][0] if lower else value >= best[metric][0]):
                best[metric] = (value, current_iter)
        return best


def _by_degradation(groups: dict[str, dict]) -> dict[str, dict]:
    return {'mean': groups[''], 'degradations': {name: values for name, values in groups.items() if name}}


def table(header: Iterable[str], rows: Iterable[Iterable]) -> str:
    """Lays out rows under a header; numbers with four decimals, '-' for None, right-aligned."""
    rows = [[cell if isinstance(cell, str) else '-' if cell is None else f'{cell:.4f}' for cell in row] for row in rows]
    lines = tabulate(rows, list(header), 'plain', stralign='right', colalign=('left',), disable_numparse=True)
    return indent(lines, '  ')
