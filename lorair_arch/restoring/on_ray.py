"""`lorair restore --ray`: the work on a list of images by several processes, on one machine or a cluster.

Ray Data hands the images out, a few at a time, to actors that keep the networks loaded; each works as `run` does on one
machine, and all write where the plan says, so that machines need a common file system. What a killed actor had is
given to another one, which skips the results that are there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lorair_arch.errors import LoRAIRError
from lorair_arch.restoring.plan import Job
from lorair_arch.restoring.restorer import Restorer
from lorair_arch.restoring.run import Outcome, Steps, Stop, run
from lorair_arch.restoring.settings import Settings
from lorair_arch.weights.pretrained import Paths

# Images that an actor gets at once: while it restores one, it reads and writes others. All that a killed actor has not
# written is done again; with --overwrite nothing tells what it has written, and it gets a single one.
_AT_ONCE = 8


def run_on_ray(
    jobs: Sequence[Job],
    weights: Paths,
    settings: Settings,
    device: str | None,
    precision: str | None,
    pictures: bool,
    address: str,
    stop: Stop,
) -> Iterator[Outcome]:
    """Does the work.

    Args:
        jobs: The images; their files must have the same paths on all machines, and so must the weights.
        weights, device, precision: See `Restorer.from_pretrained`; without a device each actor gets a GPU, if the
            cluster has any.
        settings, pictures: See `Steps`.
        address: Of a cluster, such as 'auto'; '': one of this machine alone, for this run.
        stop: Ends the run.

    Yields:
        What became of each image, in the order in which they are done; fewer, if `stop` gets a signal.

    Raises:
        LoRAIRError: Ray is not installed, there is no such cluster, or one of its machines cannot load the networks. As
            an OutputError: a file cannot be written.
    """
    ray = _connected(address)
    actors, cores, gpus = _shares(ray, device)
    items = [{'index': i, 'job': _absolute(job)} for i, job in enumerate(jobs)]
    at_once = 1 if settings.overwrite else max(1, min(_AT_ONCE, len(items) // (2 * actors)))
    rows = iter(
        ray.data.from_items(items, override_num_blocks=-(-len(items) // at_once))
        .map_batches(
            _Actor,
            batch_size=None,  # a block
            fn_constructor_args=(_absolute_paths(weights), settings, device, precision, pictures),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
            num_cpus=cores,
            num_gpus=gpus,
        )
        .iter_rows()
    )
    try:
        while (row := stop.at_once(lambda: next(rows, None))) is not None:
            outcome = row['outcome']
            if isinstance(outcome, LoRAIRError):
                raise outcome
            there, outcome.job = outcome.job, jobs[row['index']]
            if outcome.error:  # the file as the user has named it
                outcome.error = outcome.error.replace(str(there.source), str(outcome.job.source))
            yield outcome
    finally:
        # Ray first: it lets the actors end, whereas Ray Data would kill them while they write. What Ray Data then asks
        # of Ray, in vain, is of no interest.
        logging.getLogger('ray.data').setLevel(logging.CRITICAL)
        with _silent_stderr():
            ray.shutdown()
            rows.close()


class _Actor:
    """Keeps the networks loaded; gets the numbers and jobs of some images, gives what became of each."""

    def __init__(
        self, weights: Paths, settings: Settings, device: str | None, precision: str | None, pictures: bool
    ) -> None:
        self.error: LoRAIRError | None = None
        try:
            self.steps = Steps(Restorer.from_pretrained(weights, device, precision), settings, pictures)
        except LoRAIRError as error:  # such as of weights that are not on this machine
            self.error = type(error)(f'{error} (on the machine {socket.gethostname()})')

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list]]:
        jobs = list(batch['job'])
        numbers = iter(batch['index'].tolist())
        try:
            if self.error:
                raise self.error
            for outcome in run(jobs, self.steps, Stop()):
                yield {'index': [next(numbers)], 'outcome': _column(outcome)}
        except LoRAIRError as error:  # as an answer: Ray would wrap it, and try again
            yield {'index': [-1], 'outcome': _column(error)}


def _shares(ray: Any, device: str | None) -> tuple[int, int, int]:
    """Gives the number of actors, and how many cores and GPUs each gets."""
    resources = ray.cluster_resources()
    gpus = int(resources.get('GPU', 0)) if device is None else 0
    if gpus:
        return gpus, 1, 1
    # The smallest machine has room for one actor: more would share its cores, which PyTorch uses all. The head of a
    # cluster often has none.
    machines = [int(node['Resources'].get('CPU', 0)) for node in ray.nodes() if node['Alive']]
    cores = min(filter(None, machines), default=1)
    return max(1, int(resources.get('CPU', 1)) // cores), cores, 0


def _column(value: Any) -> np.ndarray:
    """Gives a column of one object, which Ray is not to look into."""
    column = np.empty(1, object)
    column[0] = value
    return column


def _connected(address: str) -> Any:
    """Starts a cluster of this machine, or joins one; gives Ray, which is silent from there on."""
    os.environ.setdefault('RAY_BACKEND_LOG_LEVEL', 'fatal')
    os.environ.setdefault('RAY_ENABLE_AUTO_CONNECT', '0')  # a thread that is late must not start Ray after its end
    os.environ.setdefault('RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO', '0')  # the way of Ray's next version, without a warning
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise LoRAIRError("--ray: Ray is not installed: pip install 'lorair[ray]'") from error
    host, _, port = address.rpartition(':')
    try:
        if host:  # Ray would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        with _silent_stderr():  # Ray's native part would say that it is silent
            ray.init(address or 'local', log_to_driver=False, logging_level='ERROR')
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition('\n')[0]
        raise LoRAIRError(
            f'--ray: there is no cluster at {address!r} ({reason}): start one (ray start --head), or leave the '
            'address out to use this machine alone'
        ) from error
    logging.getLogger('ray.data').setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours counts images
    return ray


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Takes away what is written below Python; what goes wrong is raised."""
    sys.stderr.flush()
    before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nothing)


def _absolute(job: Job) -> Job:
    return job._replace(source=Path(os.path.abspath(job.source)), target=Path(os.path.abspath(job.target)))


def _absolute_paths(weights: Paths) -> list[str]:
    """Actors have a folder of their own; names of weights stay as they are."""
    paths = [weights] if isinstance(weights, (str, os.PathLike)) else weights
    return [os.path.abspath(path) if os.path.exists(path) else os.fspath(path) for path in paths]
