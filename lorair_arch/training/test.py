"""A test from its options to its results, for any model class of BasicSR or of a plugin: BasicSR's `test_pipeline`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from basicsr.models import build_model

from lorair_arch.console import to_file
from lorair_arch.options.reading import load_options
from lorair_arch.training.loaders import build_val_loader
from lorair_arch.training.session import make_folders, run_session, set_seed, start_log

logger = logging.getLogger('lorair_arch')


def run(
    file: str | os.PathLike[str], *, launcher: str = 'none', debug: bool = False, force_yml: Sequence[str] = ()
) -> None:
    """Tests what an options file describes; results go under the current folder.

    Args:
        file, launcher, debug, force_yml: As those of `train.run`.

    Raises:
        LoRAIRError: The options, the data or the files of weights are wrong; nothing of an old test is lost.
    """
    opt = load_options(file, False, os.getcwd(), force_yml, launcher=launcher, debug=debug)
    run_session(lambda signals: measure(opt), opt, launcher)


def measure(opt: dict[str, Any], most: int | None = None) -> None:
    """Measures a model on all data sets, one after another.

    Args:
        opt: All options.
        most: Images of each set that each process sees at most; None: all.
    """
    set_seed(opt)
    make_folders(opt)
    start_log(opt)
    # All data first: a wrong path must not be found after the measurement of another set.
    loaders = [build_val_loader(opt, dataset_opt, most) for _, dataset_opt in sorted(opt['datasets'].items())]
    for loader in loaders:
        to_file(f'Number of test images in {loader.dataset.opt["name"]}: {len(loader.dataset)}')
    model = build_model(opt)
    for loader in loaders:
        logger.info(f'Testing {loader.dataset.opt["name"]}...')
        # The name in the place of the iteration, as BasicSR's `test_pipeline`.
        model.validation(loader, current_iter=opt['name'], tb_logger=None, save_img=opt['val']['save_img'])
    logger.info(f'results in {os.path.relpath(opt["path"]["results_root"])}')
