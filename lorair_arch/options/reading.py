"""Reads an options file, and finds everything wrong with it before anything expensive happens."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from typing import Any

from lorair_arch import weights
from lorair_arch.devices import gpu_count
from lorair_arch.errors import OptionsError
from lorair_arch.metrics.protocols import PROTOCOLS
from lorair_arch.options.consistency import check_classes, check_files, check_machine, check_stage, trained_by
from lorair_arch.options.keys import OWN_MODELS, options
from lorair_arch.options.yaml_file import OptionsFile, force, read_files
from lorair_arch.weights.hub import SINGLE


def load_options(
    file: str | os.PathLike,
    is_train: bool,
    root_path: str,
    force_yml: Sequence[str] = (),
    *,
    launcher: str = 'none',
    auto_resume: bool = False,
    debug: bool = False,
    made_before: Collection[str] = (),
) -> dict[str, Any]:
    """Reads, checks and completes an options file as BasicSR's `parse_options` does, without `eval` and `exec`.

    Processes and seeds are the pipeline's affair: `manual_seed` is None where the file gives none.

    Args:
        file: A YAML file; here and below one that has been read is not read again.
        is_train: For training; else for a test.
        root_path: The folder of `experiments/` or `results/`.
        force_yml: Changes such as 'train:total_iter=1000'; the value is read as YAML, new keys are made.
        launcher: 'none', 'pytorch' or 'slurm'.
        auto_resume: For the pipeline.
        debug: Puts 'debug_' before the name; then intervals are short.
        made_before: Names of trainings before this one: weights in their folders in experiments/ may be missing yet.

    Returns:
        The options as BasicSR's pipelines want them; whole numbers are no floats (5e3).

    Raises:
        OptionsError: With every mistake on a line of its own: file, key, what was found, what was expected.
    """
    opt = _check(read_files([file])[0], is_train, force_yml, launcher, made_before)
    opt |= {'dist': launcher != 'none', 'auto_resume': auto_resume, 'is_train': is_train}
    return _complete(opt, root_path, debug)


def load_each(
    files: Sequence[str | os.PathLike], is_train: bool, root_path: str, force_yml: Sequence[str] = (), **more: Any
) -> list[dict[str, Any]]:
    """Reads, checks and completes options files that run one after another, as `load_options` does.

    Weights that an earlier file's training will write may be missing yet.

    Raises:
        OptionsError: With every mistake in all of them.
    """
    opts: list[dict[str, Any]] = []
    mistakes: list[str] = []
    files = read_files(files)
    names = [file.content().get('name') for file in files]  # of files with mistakes; what they write is not missing
    for i, file in enumerate(files):
        try:
            opt = load_options(file, is_train, root_path, force_yml, made_before=tuple(names[:i]), **more)
            names[i] = opt['name']
            mistakes += [f'{file}: {mistake}' for mistake in _other_classes_before(opt, opts)]
            opts.append(opt)
        except OptionsError as error:
            mistakes += str(error).splitlines()
    if mistakes:
        # Each sentence once: a key of a shared base may be wrong in every file.
        raise OptionsError('\n'.join(dict.fromkeys(mistakes)))
    return opts


def _other_classes_before(opt: dict[str, Any], before: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Compares `degradations` with those of the trainings that are to write the weights."""
    names = opt.get('degradations')
    for key in ('pretrain_network_router', 'pretrain_network_experts'):
        for other in before:
            trained = other.get('degradations')
            if trained_by(opt['path'].get(key) or '') == other['name'] and names and trained and trained != names:
                found, there = ', '.join(names), ', '.join(trained)
                yield f'degradations: found {found}, but {other["name"]} is trained for {there}, in this order'


def _check(
    file: OptionsFile, is_train: bool, force_yml: Sequence[str], launcher: str, made_before: Collection[str]
) -> dict[str, Any]:
    """Checks an options file without side effects."""
    opt, mistakes, forced = file.content(), [], {}

    def report(where: str, what: str) -> None:
        entry = next((entry for place, entry in forced.items() if f'{where}.'.startswith(f'{place}.')), None)
        what = what if where in forced else f'{where}: {what}'
        mistakes.append(f'--force_yml {entry}: {what}' if entry else f'{file.says(where)}: {what}')

    for entry in force_yml:
        try:
            forced[force(opt, entry)] = entry
        except OptionsError as error:
            mistakes.append(str(error))
    opt = options(opt.get('model_type'), is_train).check(opt, '', report)
    if not mistakes:
        _name_files(opt)
    if not mistakes:  # from here on every value has the type that it should have
        check_machine(opt, launcher, report)
        check_files(opt, made_before, report)
        if opt['model_type'] in OWN_MODELS:
            check_stage(opt, is_train, report)
            check_classes(opt, is_train, made_before, report)
    if mistakes:
        raise OptionsError('\n'.join(dict.fromkeys(mistakes)))
    return opt


def _name_files(opt: dict[str, Any]) -> None:
    """Turns names of weights that come with the package into their files."""
    path = opt.get('path') or {}
    for key, value in path.items():
        if key.startswith('pretrain_network_') and value in weights.shipped() and not os.path.exists(value):
            path[key] = str(weights.located(value)[0] / SINGLE)


def complete_datasets(opt: dict[str, Any]) -> None:
    """Tells each data set its phase and scale, and where the home folder is."""
    for phase, dataset in opt['datasets'].items():
        dataset['phase'] = phase.split('_')[0]
        if 'scale' in opt:
            dataset['scale'] = opt['scale']
        for mapping in (dataset, *(dataset.get('sources') or ())):
            for key in ('dataroot_gt', 'dataroot_lq', 'meta_info_file'):
                if isinstance(mapping.get(key), str):
                    mapping[key] = os.path.expanduser(mapping[key])


def _complete(opt: dict[str, Any], root_path: str, debug: bool) -> dict[str, Any]:
    """Adds what BasicSR's `parse_options` adds, and the values of keys that may be left out."""
    opt.setdefault('manual_seed', None)
    if debug and not opt['name'].startswith('debug'):
        opt['name'] = f'debug_{opt["name"]}'
    if opt.get('num_gpu', 'auto') == 'auto':
        opt['num_gpu'] = gpu_count(opt['dist'])
    if opt['model_type'] in OWN_MODELS:
        opt.setdefault('scale', 1)
    complete_datasets(opt)
    router = opt.get('network_router')
    if isinstance(router, dict) and isinstance(router.get('pretrained'), str):
        router['pretrained'] = os.path.expanduser(router['pretrained'])
    path = opt['path'] = opt.get('path') or {}
    for key, value in path.items():
        # `~` is the shell's affair, which does not look into YAML.
        if value is not None and ('resume_state' in key or 'pretrain_network' in key or key == 'prior_cache'):
            path[key] = os.path.expanduser(value)
    is_train = opt['is_train']
    root = os.path.join(root_path, 'experiments' if is_train else 'results', opt['name'])
    path['experiments_root' if is_train else 'results_root'] = path['log'] = root
    path['visualization'] = os.path.join(root, 'visualization')
    if is_train:
        path |= {name: os.path.join(root, name) for name in ('models', 'training_states')}
        path.setdefault('resume_state', None)
        opt['logger'].setdefault('use_tb_logger', False)
        if 'debug' in opt['name']:
            # BasicSR's numbers for its debug mode.
            opt['logger'] |= {'print_freq': 1, 'save_checkpoint_freq': 8}
            if opt.get('val'):
                opt['val']['val_freq'] = 8
    elif not opt.get('val'):
        opt['val'] = {}
    if opt.get('val') is not None:
        val = opt['val'] = {'save_img': False, 'suffix': None, 'metrics': None} | opt['val']
        if val.get('protocol'):
            val['metrics'] = deepcopy(PROTOCOLS[val['protocol']].metrics) | (val['metrics'] or {})
    return opt
