"""`basicsr train|test --dry-run`: tries everything that a run needs, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import logging
import re
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from basicsr.models import build_model

from lorair_arch.data.foreign import NamedDataset
from lorair_arch.devices import synchronize
from lorair_arch.errors import LoRAIRError, OptionsError
from lorair_arch.options.reading import load_each
from lorair_arch.options.training import OWN_MODELS
from lorair_arch.training import jobs, loaders, pipeline
from lorair_arch.training.resume import check_states

logger = logging.getLogger('lorair_arch')


def dry_run(
    command: str,
    files: Sequence[str],
    force_yml: Sequence[str] = (),
    *,
    launcher: str = 'none',
    auto_resume: bool = False,
    debug: bool = False,
) -> None:
    """Checks options files, opens their data, loads their weights, takes a step and validates or tests an image.

    All that is written goes to a temporary folder. Weights that an earlier one of the files is to train are taken from
    its one step. A training that would be continued begins anew, once it is clear that it could be.

    Args:
        command: 'train' or 'test'.
        files: The options files, in the order in which they are to run.
        force_yml, launcher, auto_resume, debug: See `pipeline.run`.

    Raises:
        LoRAIRError: As `pipeline.run`.
    """
    check_states(command, files, force_yml, launcher=launcher, auto_resume=auto_resume, debug=debug)
    with tempfile.TemporaryDirectory(prefix='lorair_dry_run_') as root:
        opts = load_each(files, command == 'train', root, force_yml, launcher=launcher, debug=debug)
        for i, (file, opt) in enumerate(zip(files, opts)):
            _shorten(opt)
            _use_trained(opt, file, root, {opt['name'] for opt in opts[:i]})
            trial = _Trial(keep=i + 1 < len(files))
            with _peak_memory() as memory, _enough_memory(file), trial.watching():
                pipeline.run_options(command, opt, file, root, launcher, level=logging.WARNING)
            if opt['rank'] == 0:
                logger.info(f'{file}: sound; {trial.result(opt)}, {memory()}')


class _Trial:
    """Watches one run, which sees one image of each validation or test set.

    Args:
        keep: Whether the trained weights are needed afterwards.
    """

    def __init__(self, keep: bool) -> None:
        self.keep, self.start = keep, time.perf_counter()
        self.batch, self.seconds = '', 0.0

    @contextlib.contextmanager
    def watching(self):
        """Puts itself between the pipeline and what it builds."""
        build_val_loader = loaders.build_val_loader

        def build_short(dataset, opt: dict[str, Any], split: bool):
            return build_val_loader(_FirstImages(dataset, opt['world_size']), opt, split)

        with (
            pipeline.replaced(loaders, {'build_val_loader': build_short}),
            pipeline.replaced(jobs, {'build_model': self.build_model}),
        ):
            yield

    def build_model(self, opt: dict[str, Any]):
        model = build_model(opt)
        feed, step = model.feed_data, model.optimize_parameters

        def feed_data(data: dict[str, Any]) -> None:
            self.batch = self.batch or _describe(data.get('lq'))
            feed(data)

        def optimize_parameters(current_iter: int) -> None:
            start = time.perf_counter()
            step(current_iter)
            synchronize()
            self.seconds = time.perf_counter() - start

        model.feed_data, model.optimize_parameters = feed_data, optimize_parameters
        if not self.keep:
            model.save = lambda epoch, current_iter: None
        return model

    def result(self, opt: dict[str, Any]) -> str:
        """Says what was done, and how long it took."""
        each = f' in each of {opt["world_size"]} processes' if opt['world_size'] > 1 else ''
        if opt['is_train']:
            return f'one step{self.batch}{each} took {self.seconds:.2f} s'
        sets = len(opt['datasets'])
        return (
            f'an image of {sets} data set{"s" if sets > 1 else ""}{each} took {time.perf_counter() - self.start:.1f} s'
        )


class _FirstImages(NamedDataset):
    """The first images of a data set."""

    def __init__(self, dataset, count: int) -> None:
        super().__init__(dataset)
        self.count = min(count, len(dataset))

    def __len__(self) -> int:
        return self.count


def _describe(lq: torch.Tensor | list | None) -> str:
    if isinstance(lq, torch.Tensor) and lq.dim() == 4:
        return f' of {len(lq)} images of {lq.shape[3]} x {lq.shape[2]} pixels'
    return f' of {len(lq)} images' if isinstance(lq, (torch.Tensor, list)) else ''


def _shorten(opt: dict[str, Any]) -> None:
    """Leaves one step of a training, with a validation behind it; one bad step ends it."""
    opt['path']['resume_state'] = None
    if not opt['is_train']:
        return
    opt['train']['total_iter'] = 1
    if opt['model_type'] in OWN_MODELS:
        opt['train']['max_bad_steps'] = 1
    opt['logger'] |= {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False, 'wandb': None}
    if opt.get('val') is not None:
        opt['val']['val_freq'] = 1


def _use_trained(opt: dict[str, Any], file: str, root: str, names: set[str]) -> None:
    """Turns paths to weights that trainings of these names are to write to those that their dry runs wrote."""
    for key, value in opt['path'].items():
        found = re.fullmatch(r'experiments/([^/]+)/models/(net_\w+)_(\d+|latest)\.pth', str(value))
        if not found or found[1] not in names:
            continue
        trained = Path(root, 'experiments', found[1], 'models', f'{found[2]}_latest.pth')
        if trained.exists():
            opt['path'][key] = str(trained)
        elif not Path(value).exists():
            raise OptionsError(f'{file}: path.{key}: found {value!r}, which the training {found[1]} does not write')


@contextlib.contextmanager
def _peak_memory():
    """Gives a function that tells the most memory in use since then."""
    gpu = torch.cuda.is_available()
    gc.collect()
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path('/proc/self/clear_refs').write_text('5')  # Linux forgets the peak that was

    def tell() -> str:
        if gpu:
            return f'peak memory {torch.cuda.max_memory_reserved() / 2**30:.2f} GiB of the GPU'
        unit = 2**30 if sys.platform == 'darwin' else 2**20  # bytes there, else KiB
        return f'peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.2f} GiB'

    yield tell


@contextlib.contextmanager
def _enough_memory(file: str):
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise LoRAIRError(
            f'{file}: one step does not fit into the memory of the GPU; lower batch_size_per_gpu or gt_size, or use '
            'amp: bf16'
        ) from error
