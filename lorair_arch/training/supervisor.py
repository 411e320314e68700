"""What happens around the steps of a training, between BasicSR's loop and a model class of any package."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

import numpy as np
import torch.distributed as dist
from basicsr.utils import set_random_seed

from lorair_arch.errors import CheckpointError, Interrupted
from lorair_arch.training import checkpoints
from lorair_arch.training.interruption import Signals, StopValidation, Watched
from lorair_arch.training.resume import Progress

logger = logging.getLogger('lorair_arch')


class Supervisor:
    """Takes the place of three methods of a model: where a step begins, where it is validated, where it is saved.

    Args:
        model: The model; its methods are replaced.
        opt: All options, complete, with `progress`.
        signals: End the training after a step.
        resumed: The iteration from which the training continues; 0: a fresh start.
        val_loaders: All validation sets.
        board: TensorBoard's writer, or None.
        split: Whether each process validates a share of the images.
    """

    def __init__(
        self, model, opt: dict[str, Any], signals: Signals, resumed: int, val_loaders: list, board, split: bool
    ) -> None:
        self.model, self.opt, self.signals, self.board, self.split = model, opt, signals, board, split
        self.resumed, self.val_loaders = resumed, val_loaders
        self.saved: int | None = None
        self.validated: dict[int, int] = {}  # by the data set's id
        self._begin_step, self._validate, self._save = model.update_learning_rate, model.validation, model.save
        model.update_learning_rate, model.validation, model.save = self.begin_step, self.validation, self.save

    def begin_step(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Begins a step; all that belongs to the one before has been done.

        What is drawn in a step is a function of (manual_seed, rank, iteration), so that nothing of a validation or of
        an interruption is left in the random states.
        """
        if current_iter - 1 == self.resumed:
            self._validate_resumed()
        if self.signals.requested():
            self._leave(current_iter - 1)
        seed = np.random.SeedSequence([self.opt['manual_seed'], self.opt['rank'], current_iter]).generate_state(1)[0]
        set_random_seed(int(seed))
        self._begin_step(current_iter, warmup_iter)

    def _validate_resumed(self) -> None:
        """Validates again what was due: a checkpoint is saved before, and may have been the last thing that was."""
        val = self.opt.get('val')
        if self.resumed and val is not None and self.resumed % val['val_freq'] == 0:
            for loader in self.val_loaders:
                self.validation(loader, self.resumed, self.board, val['save_img'])

    def validation(self, dataloader, current_iter: int, tb_logger, save_img: bool = False) -> None:
        """Validates once for each iteration: at its end BasicSR's loop does it again, and counts one too many."""
        current_iter = min(current_iter, int(self.opt['train']['total_iter']))
        if self.validated.get(id(dataloader)) == current_iter:
            return
        shared = len(dataloader.dataset) // self.opt['world_size']
        if self.split or not self.opt['dist']:  # else the first process validates alone
            watched = Watched(dataloader, self.signals, shared)
        else:
            watched = dataloader
        try:
            self._validate(watched, current_iter, tb_logger, save_img)
        except StopValidation:
            self._leave(current_iter)
        self.validated[id(dataloader)] = current_iter

    def save(self, epoch: int, current_iter: int) -> None:
        """Saves a checkpoint and removes old ones; if it cannot be written, all processes stop.

        Raises:
            CheckpointError: In all processes alike.
        """
        mistake = None
        try:
            self._save(epoch, current_iter)
        except CheckpointError as error:
            mistake = f'{error}; {checkpoints.last_checkpoint(self.opt)}'
        if self.opt['dist']:
            mistakes = [mistake]
            dist.broadcast_object_list(mistakes)  # the first process alone writes
            mistake = mistakes[0]
        if mistake:
            error = CheckpointError(mistake)
            error.everywhere = True
            raise error
        if current_iter == -1:
            return
        self.saved = current_iter
        if self.opt['rank'] == 0 and self.opt['logger'].get('keep_last'):
            checkpoints.prune(self.opt, current_iter, {self.resumed} | checkpoints.best_iterations(self.model))

    def _leave(self, current_iter: int) -> None:
        """Ends the training after an iteration, with a checkpoint of it."""
        number = self.signals.agreed
        if current_iter == self.resumed:
            what = 'nothing new to save'
        else:
            if self.saved != current_iter:
                self.save(Progress(**self.opt['progress']).last_epoch(current_iter), current_iter)
            path = os.path.relpath(checkpoints.state_path(self.opt, current_iter))
            what = f'saved as {path}; --auto_resume continues'
        message = f'{signal.Signals(number).name} after iteration {current_iter:,}: {what}'
        logger.info(message)
        raise Interrupted(message, 128 + number)
