"""A training from its options to its last checkpoint, for any model class of BasicSR or of a plugin.

To be read from top to bottom, as BasicSR's `train_pipeline`; whose options, logs, folders and files these are.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.models import build_model
from basicsr.utils import AvgTimer, MessageLogger, set_random_seed

from lorair_arch.console import to_file
from lorair_arch.errors import CheckpointError, NumericsError
from lorair_arch.models.stage import is_stage
from lorair_arch.options.reading import load_options
from lorair_arch.options.yaml_file import copy_opt_file
from lorair_arch.training import checkpoints
from lorair_arch.training.board import keep_board, open_board
from lorair_arch.training.continuing import options_of
from lorair_arch.training.interruption import Signals, Watched, interrupted
from lorair_arch.training.loaders import Batches, build_train_loader, build_val_loader
from lorair_arch.training.resume import load_resume_state, progress_of
from lorair_arch.training.session import from_first, make_folders, run_session, set_seed, start_log

logger = logging.getLogger('lorair_arch')


def run(
    file: str | os.PathLike[str],
    *,
    launcher: str = 'none',
    auto_resume: bool = False,
    debug: bool = False,
    force_yml: Sequence[str] = (),
) -> None:
    """Trains what an options file describes; results go under the current folder.

    Args:
        file: The options file (YAML).
        launcher: 'none', 'pytorch' (the process was started by torchrun) or 'slurm'.
        auto_resume: Continue the experiment from its newest state, if there is one.
        debug: BasicSR's debug mode: short intervals, the name starts with 'debug_'.
        force_yml: Changes to the options, such as 'train:total_iter=1000'.

    Raises:
        LoRAIRError: The options, the data or the files of weights are wrong; nothing of an old experiment is lost.
    """
    settings = {'launcher': launcher, 'auto_resume': auto_resume, 'debug': debug}
    opt = load_options(file, True, os.getcwd(), force_yml, **settings) | {'root_path': os.getcwd()}
    run_session(lambda signals: Training(opt, file, signals).run(), opt, launcher)


class Training:
    """One training: what it needs is made first, then it `run`s; what is done in a step and around it follows.

    Args:
        opt, file: All options, and where they were read.
        signals: End the training after a step.

    Attributes:
        most_validated: Images that each process validates at most; None: all.
    """

    most_validated: int | None = None

    def __init__(self, opt: dict[str, Any], file: str | os.PathLike[str], signals: Signals) -> None:
        self.opt, self.signals, self.total = opt, signals, int(opt['train']['total_iter'])
        self.saved = self.validated = -1  # iterations of the last checkpoint and of the last validation of this run
        # In this order: the state says which seed data sets get, and they which of its places the steps begin at.
        self.begin(file)
        self.board = open_board(opt, self.resumed)
        self.load_data()
        self.model = build_model(opt)
        # From here on: what came before can be done again, and may take minutes.
        signals.listen(opt['dist'])
        if self.state:
            self.model.resume_training(self.state)
            logger.info(f'Resuming training from epoch: {self.batches.epoch}, iter: {self.resumed}.')

    def begin(self, file: str | os.PathLike[str]) -> None:
        """Finds the state to continue from, or makes the folders of a new experiment; starts the log."""
        opt = self.opt
        if opt['rank'] == 0:
            checkpoints.clean(opt)
        # Before anything is built: BasicSR's models pop `type` out of optimisers and schedulers.
        options = options_of(opt)
        self.state = load_resume_state(opt)
        self.resumed = self.state['iter'] if self.state else 0
        # Without a seed in the file: that of the training which goes on, else its order of images is lost.
        set_seed(opt, ((self.state or {}).get('progress') or {}).get('seed'))
        root = opt['path']['experiments_root']
        # The state may be another experiment's: then an old folder of this name makes way all the same.
        if not self.state or not Path(opt['path']['resume_state']).resolve().is_relative_to(root):
            make_folders(opt, '' if opt['auto_resume'] else ' (--auto_resume continues instead)')
            keep_board(opt)
        if opt['rank'] == 0:
            copy_opt_file(file, root)
        start_log(opt)
        opt['options'] = options

    def load_data(self) -> None:
        """Builds all data sets; finds the place of the training set where the steps begin."""
        opt, datasets = self.opt, dict(self.opt['datasets'])
        loader, sampler = build_train_loader(opt, datasets.pop('train'))
        self.val_loaders = [
            build_val_loader(opt, dataset_opt, self.most_validated) for dataset_opt in datasets.values()
        ]
        self.progress = progress_of(loader, sampler, opt, self.state)
        # In the options, for `save_training_state` of any model class has nothing else.
        opt['progress'] = asdict(self.progress)
        epoch, sampler.start = self.progress.place(self.resumed)
        self.batches = Batches(loader, sampler, epoch, opt)
        logger.info(
            f'{opt["name"]}: {len(loader.dataset)} images, {self.total} iterations, {len(loader)} an epoch, '
            f'{loader.batch_size * opt["world_size"]} images each; log and weights in '
            f'{os.path.relpath(opt["path"]["experiments_root"])}'
        )

    def run(self) -> None:
        """Goes through the iterations that are left, and saves what has been trained."""
        opt, logged = self.opt, self.opt['logger']
        messages = MessageLogger(opt, self.resumed, self.board)
        messages.max_iters += 1  # it counts one too few when it estimates the time left
        to_file(f'Start training from epoch: {self.batches.epoch}, iter: {self.resumed}')
        with contextlib.closing(self.batches), self.board or contextlib.nullcontext():
            if 0 < self.resumed < self.total:
                # what was due: a checkpoint is saved before, and may have been the last thing that was
                self.validate(self.resumed)
            start, data_timer, iter_timer = time.time(), AvgTimer(), AvgTimer()
            # The numbers first: at the end `zip` then asks for no batch more.
            for iteration, (epoch, batch) in zip(range(self.resumed + 1, self.total + 1), self.batches):
                data_timer.record()
                self.begin_step(iteration)
                self.step(batch, iteration)
                iter_timer.record()
                # As BasicSR: the first step warms up, and would spoil the estimate.
                if iteration == 1:
                    messages.reset_start_time()
                if iteration % logged['print_freq'] == 0:
                    line = {'epoch': epoch, 'iter': iteration, 'lrs': self.model.get_current_learning_rate()}
                    line |= {'time': iter_timer.get_avg_time(), 'data_time': data_timer.get_avg_time()}
                    messages(line | self.model.get_current_log())
                if iteration % logged['save_checkpoint_freq'] == 0:
                    to_file('Saving models and training states.')
                    self.save(epoch, iteration)
                self.validate(iteration)
                data_timer.start()
                iter_timer.start()
            consumed = datetime.timedelta(seconds=int(time.time() - start))
            logger.info(f'End of training. Time consumed: {consumed}')
            to_file('Save the latest model.')
            self.save(-1, -1)  # -1 are BasicSR's words for net_*_latest.pth
            # Once: BasicSR validates a second time at the end, also where the last iteration just was.
            self.validate(self.total, due=True)

    def begin_step(self, iteration: int) -> None:
        """Begins a step, unless a signal has come.

        What is drawn in a step is a function of (manual_seed, rank, iteration), so that nothing of a validation or of
        an interruption is left in the random states.
        """
        self.leave_if_asked(iteration - 1)
        seed = np.random.SeedSequence([self.opt['manual_seed'], self.opt['rank'], iteration]).generate_state(1)[0]
        set_random_seed(int(seed))
        self.model.update_learning_rate(iteration, warmup_iter=self.opt['train'].get('warmup_iter', -1))

    def step(self, batch: dict[str, Any], iteration: int) -> None:
        """Trains with a batch."""
        self.model.feed_data(batch)
        try:
            self.model.optimize_parameters(iteration)
        except NumericsError as error:
            raise NumericsError(f'{error}; {checkpoints.last_checkpoint(self.opt)}') from None

    def save(self, epoch: int, iteration: int) -> None:
        """Saves a checkpoint (-1: the latest weights alone) and removes old ones.

        Raises:
            CheckpointError: It cannot be written; in all processes alike, though the first alone writes.
        """
        mistake = None
        try:
            self.model.save(epoch, iteration)
        except CheckpointError as error:
            mistake = f'{error}; {checkpoints.last_checkpoint(self.opt)}'
        # Others would wait for the first process in the next step, which it never takes.
        mistake = from_first(mistake)
        if mistake:
            error = CheckpointError(mistake)
            error.everywhere = True
            raise error
        if iteration == -1:
            return
        self.saved = iteration
        if self.opt['rank'] == 0 and self.opt['logger'].get('keep_last'):
            checkpoints.prune(self.opt, iteration, {self.resumed} | checkpoints.best_iterations(self.model))

    def validate(self, iteration: int, due: bool = False) -> None:
        """Validates on all sets where the options ask for it, or if it is `due`; once for each iteration."""
        val = self.opt.get('val')
        if val is None or self.validated == iteration or not (due or iteration % val['val_freq'] == 0):
            return
        # a model class that validates in the first process alone cannot be stopped together with the others
        together = is_stage(self.opt) or not self.opt['dist']
        for loader in self.val_loaders:
            images = len(loader.dataset) // self.opt['world_size'] if together else 0
            watched = Watched(loader, partial(self.leave_if_asked, iteration), images)
            self.model.validation(watched, iteration, self.board, val['save_img'])
        self.validated = iteration

    def leave_if_asked(self, iteration: int) -> None:
        """Ends the training after an iteration, with a checkpoint of it, where a signal has come.

        Raises:
            Interrupted: It has.
        """
        if not self.signals.requested():
            return
        path = None
        if iteration != self.resumed:
            if self.saved != iteration:
                self.save(self.progress.last_epoch(iteration), iteration)
            path = checkpoints.state_path(self.opt, iteration)
        raise interrupted(self.signals.agreed, iteration, path)
