"""What a training runs on and where in its data it is, so that other processes than those that saved it go on there."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Progress:
    """Settings that a training began with, or went on with, at some place of its data; `place` gives the later ones.

    Attributes:
        processes: Number of processes.
        batch: Images in a step of each process.
        images: Number of images in the training set.
        samples: Images in an epoch: `images` times dataset_enlarge_ratio.
        seed: The order of the epochs is a function of it.
        torch: Version of PyTorch.
        iteration: Steps that had been taken at the beginning.
        epoch: The epoch at the beginning.
        start: Images that all processes together had taken from that epoch.
    """

    processes: int
    batch: int
    images: int
    samples: int
    seed: int
    torch: str
    iteration: int = 0
    epoch: int = 0
    start: int = 0

    @property
    def step(self) -> int:
        """Images in a step of all processes."""
        return self.processes * self.batch

    def place(self, iteration: int) -> tuple[int, int]:
        """Gives the epoch after an iteration, and how many of its images were taken.

        What is left of an epoch when it does not fill a step is dropped, as the loaders do.
        """
        steps, first = iteration - self.iteration, (self.samples - self.start) // self.step
        if steps < first:
            return self.epoch, self.start + steps * self.step
        epochs, steps = divmod(steps - first, self.samples // self.step)
        return self.epoch + 1 + epochs, steps * self.step

    def last_epoch(self, total_iter: int) -> int:
        """Gives the epoch in which the last of `total_iter` iterations is taken."""
        return self.place(total_iter - 1)[0]

    def resumed(self, before: Progress, iteration: int) -> Progress:
        """Goes on with these settings at the image that an earlier training would have taken next.

        Where the order of the images has changed, that is a new epoch; else some would be repeated and some left out.
        """
        same_order = (self.images, self.samples, self.seed) == (before.images, before.samples, before.seed)
        if same_order and self.step == before.step:
            return replace(before, processes=self.processes, batch=self.batch, torch=self.torch)
        epoch, start = before.place(iteration)
        if self.samples - start < self.step or (start and not same_order):
            epoch, start = epoch + 1, 0
        return replace(self, iteration=iteration, epoch=epoch, start=start)

    def changes(self, before: Progress) -> list[str]:
        """Says in words what is different from an earlier training."""
        values = {
            'number of processes': (before.processes, self.processes),
            'images in a step of each process': (before.batch, self.batch),
            'images in a step of all': (before.step, self.step),
            'images in the data set': (before.images, self.images),
            'images in an epoch': (before.samples, self.samples),
            'manual_seed': (before.seed, self.seed),
            'version of PyTorch': (before.torch, self.torch),
        }
        return [f'{name} {now} (was {was})' for name, (was, now) in values.items() if was != now]
