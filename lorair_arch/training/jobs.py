"""What a training and a test put in the place of names in BasicSR's pipelines."""

from __future__ import annotations

import argparse
import logging
import os
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from basicsr.models import build_model
from basicsr.utils import MessageLogger, get_time_str, make_exp_dirs, set_random_seed
from basicsr.utils.dist_util import master_only
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY
from torch.utils.data import DataLoader

from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.data.sampler import EpochSampler
from lorair_arch.training import checkpoints, loaders
from lorair_arch.training.board import Board
from lorair_arch.training.continuing import options_of
from lorair_arch.training.interruption import Signals
from lorair_arch.training.resume import Progress, load_resume_state
from lorair_arch.training.supervisor import Supervisor

logger = logging.getLogger('lorair_arch')


class Job:
    """What both pipelines have in common."""

    hint = ''

    def __init__(self, opt: dict[str, Any], file: str | os.PathLike, received: Signals) -> None:
        self.opt, self.file, self.signals = opt, file, received
        self.own_model = getattr(MODEL_REGISTRY.get(opt['model_type']), 'restores_own_weights', False)

    def replacements(self) -> dict[str, Any]:
        """Gives what takes the place of names in the module of BasicSR's pipeline."""
        return {
            'parse_options': self.parse_options,
            'make_exp_dirs': self.make_exp_dirs,
            'build_dataset': loaders.build_dataset,
        }

    def parse_options(self, root_path: str, is_train: bool) -> tuple[dict[str, Any], argparse.Namespace]:
        return self.opt, argparse.Namespace(opt=self.file)

    def make_exp_dirs(self, opt: dict[str, Any]) -> None:
        """Makes the folders that `path` names; BasicSR would make one of any key that it does not know."""
        make_exp_dirs({**opt, 'path': {key: value for key, value in opt['path'].items() if key != 'prior_cache'}})
        if opt['dist']:
            dist.barrier()  # what another process saves sooner would be moved away with the old folder

    def renew_folder(self, path: str) -> None:
        """Makes an empty folder for the results; an old one is kept under another name."""
        kept = _keep(path)
        if kept:
            logger.info(f'{os.path.relpath(path)} existed; it is kept as {os.path.relpath(kept)}{self.hint}')
        os.makedirs(path)

    def close(self) -> None:
        """Ends what would outlive the run."""

    def seed(self, default: int | None = None) -> None:
        """Seeds this process, the same way in every process where the options give no seed."""
        opt = self.opt
        if opt['manual_seed'] is None:
            drawn = [random.randint(1, 10000) if default is None else default]
            if opt['dist']:
                dist.broadcast_object_list(drawn)
            opt['manual_seed'] = drawn[0]
        set_random_seed(opt['manual_seed'] + opt['rank'])
        for dataset_opt in opt['datasets'].values():
            if issubclass(DATASET_REGISTRY.get(dataset_opt['type']), AllInOneDataset):
                dataset_opt.setdefault('seed', opt['manual_seed'])


class Test(Job):
    """BasicSR's test pipeline."""

    def replacements(self) -> dict[str, Any]:
        return super().replacements() | {'build_dataloader': self.build_dataloader}

    def parse_options(self, root_path: str, is_train: bool) -> tuple[dict[str, Any], argparse.Namespace]:
        self.seed()
        return super().parse_options(root_path, is_train)

    def build_dataloader(self, dataset, dataset_opt, **_):
        return loaders.build_val_loader(dataset, self.opt, split=self.own_model)


class _Progress(MessageLogger):
    """The lines of a training; BasicSR counts one iteration too few when it estimates the time left."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.max_iters += 1


class Training(Job):
    """BasicSR's training pipeline."""

    @property
    def hint(self) -> str:
        return '' if self.opt['auto_resume'] else ' (--auto_resume continues instead)'

    def replacements(self) -> dict[str, Any]:
        return super().replacements() | {
            'load_resume_state': self.load_resume_state,
            'create_train_val_dataloader': self.create_train_val_dataloader,
            'build_model': self.build_model,
            'init_tb_logger': master_only(self.open_board),
            'mkdir_and_rename': _keep,  # TensorBoard's folder, which moves along with the experiment
            'CPUPrefetcher': self.closed_at_the_end(loaders.CPUPrefetcher),
            'CUDAPrefetcher': self.closed_at_the_end(loaders.CUDAPrefetcher),
            'MessageLogger': _Progress,
        }

    board: Board | None = None
    prefetcher: loaders.CPUPrefetcher | loaders.CUDAPrefetcher | None = None

    def closed_at_the_end(self, kind: Callable) -> Callable:
        """Gives a prefetcher that ends with the run, also where an error or a signal ends it."""

        def build(*args):
            self.prefetcher = kind(*args)
            return self.prefetcher

        return build

    def close(self) -> None:
        if self.prefetcher:
            self.prefetcher.close()

    def open_board(self, log_dir: str) -> Board:
        self.board = Board(log_dir, self.resumed)
        return self.board

    @property
    def resumed(self) -> int:
        """The iteration from which the training continues; 0: a fresh start."""
        return self.state['iter'] if self.state else 0

    def load_resume_state(self, opt: dict[str, Any]) -> dict[str, Any] | None:
        if opt['rank'] == 0:
            checkpoints.clean(opt)
        self.options = options_of(opt)
        self.state = load_resume_state(opt)
        if self.state and not Path(opt['path']['resume_state']).resolve().is_relative_to(
            opt['path']['experiments_root']
        ):
            self.begin_elsewhere(opt)
        self.seed(((self.state or {}).get('progress') or {}).get('seed'))
        return self.state

    def begin_elsewhere(self, opt: dict[str, Any]) -> None:
        """Makes the folders of an experiment that goes on from another one's state."""
        self.make_exp_dirs(opt)
        if opt['rank'] == 0:
            _keep(os.path.join(opt['root_path'], 'tb_logger', opt['name']))

    def create_train_val_dataloader(self, opt: dict[str, Any], _) -> tuple:
        """Builds all loaders and tells BasicSR's loop how many epochs there are; sets the place to continue at."""
        val_loaders = self.val_loaders = []
        for phase, dataset_opt in opt['datasets'].items():
            if phase == 'train':
                train_loader, sampler = loaders.build_train_loader(opt, dataset_opt)
            else:
                dataset = loaders.build_dataset(dataset_opt)
                val_loaders.append(loaders.build_val_loader(dataset, opt, split=self.own_model))
        progress = self.progress(train_loader, sampler)
        opt['progress'], opt['options'] = asdict(progress), self.options
        if self.state:
            self.state['epoch'], sampler.start = progress.place(self.state['iter'])
        per_epoch, total = len(train_loader), int(opt['train']['total_iter'])
        logger.info(
            f'{opt["name"]}: {len(train_loader.dataset)} images, {total} iterations, {per_epoch} an epoch, '
            f'{train_loader.batch_size * opt["world_size"]} images each; log and weights in '
            f'{os.path.relpath(opt["path"]["experiments_root"])}'
        )
        # BasicSR's loop goes through the epoch that it is told, too
        return train_loader, sampler, val_loaders, progress.last_epoch(total), total

    def progress(self, loader: DataLoader, sampler: EpochSampler) -> Progress:
        """Relates the settings to those of the training that is continued, if any; says what is not as it was."""
        opt, state = self.opt, self.state
        sizes = opt['world_size'], loader.batch_size, len(loader.dataset), sampler.total
        now = Progress(*sizes, opt['manual_seed'], str(torch.__version__))
        if not state:
            return now
        before = Progress(**state['progress']) if state.get('progress') else now
        resumed, changes = now.resumed(before, state['iter']), now.changes(before)
        if changes:
            epoch, start = resumed.place(state['iter'])
            logger.warning(
                f'{os.path.relpath(opt["path"]["resume_state"])} was saved with other settings: {", ".join(changes)}; '
                f'going on after {start} images of epoch {epoch}'
            )
        return resumed

    def build_model(self, opt: dict[str, Any]):
        """Builds the model; from here on signals end the training after a step."""
        model = build_model(opt)
        Supervisor(model, opt, self.signals, self.resumed, self.val_loaders, self.board, split=self.own_model)
        self.signals.listen(opt['dist'])
        return model


def _keep(path: str) -> str | None:
    """Gives a folder another name, if it exists; returns the name."""
    if not os.path.exists(path):
        return None
    archived = f'{path}_archived_{get_time_str()}'
    names = (archived, *(f'{archived}_{i}' for i in range(1, 1000)))
    kept = next(name for name in names if not os.path.exists(name))
    os.rename(path, kept)
    return kept
