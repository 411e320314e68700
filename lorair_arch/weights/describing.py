"""`lorair inspect WEIGHTS`: what files of weights are, in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorair_arch.weights.downloads import in_words
from lorair_arch.weights.loading import describe
from lorair_arch.weights.pretrained import Weights, choose_restorer, read_weights

_EXPERTS = ('lora_A', 'lora_B')


def described(name_or_path: str | os.PathLike) -> str:
    """Says what weights are: parameters, sizes, experts, degradations, and the options they were trained by.

    Args:
        name_or_path: A file, a folder of files that belong together, or a name (see `weights.located`).

    Raises:
        CheckpointError: As `read_weights`.
    """
    files = read_weights(name_or_path)
    return '\n\n'.join('\n'.join(_lines(weights, files)) for weights in files.values())


def _lines(weights: Weights, files: dict[str, Weights]) -> Iterator[str]:
    path = Path(weights.path)
    what = 'a LoRA-IR restorer' if weights.kind == 'restorer' else describe(weights.state_dict)
    beside = [other.kind for other in files.values() if other.path == weights.path and other is not weights]
    where = f'in one file with its {beside[0]}' if beside else 'in a file'
    yield f'{path}: {what}, {where} of {in_words(path.stat().st_size)}'
    for label, value in _facts(weights, files):
        yield f'  {label:<14}{value}'


def _facts(weights: Weights, files: dict[str, Weights]) -> Iterator[tuple[str, Any]]:
    state_dict, path = weights.state_dict, Path(weights.path)
    numbers = [value for value in state_dict.values() if value.is_floating_point()]
    types = sorted({str(value.dtype).removeprefix('torch.') for value in numbers})
    yield 'parameters', f'{sum(value.numel() for value in numbers):,}, {"/".join(types)}'
    yield 'names', f'of the {"official release" if weights.official else "project"}'
    yield 'trained for', ', '.join(weights.degradations) if weights.degradations else 'not said in the file'
    for number, training in enumerate(weights.training):
        steps = f'{training["iterations"]:,} iterations'
        yield 'then by' if number else 'trained by', f'{training["name"]} ({training["model_type"]}), {steps}'
    if weights.merged_for:
        yield 'merged', f'the experts for {weights.merged_for}'
    options = _options(weights, files)
    if weights.kind == 'router':
        clip = options['clip_model']
        yield 'CLIP', clip if isinstance(clip, str) else _joined(clip | clip['vision_cfg'], leave=('vision_cfg',))
        grid = options.get('clip_grid', 2)
        whole = options.get('views') != 'windows'
        yield 'views', f'the whole, and {grid} x {grid} pieces' if whole else f'windows, up to {grid} x {grid}'
    elif options:
        yield 'width', options['width']
        blocks = (options['enc_blk_nums'], [options['middle_blk_num']], options['dec_blk_nums'])
        yield 'blocks', ' | '.join('-'.join(map(str, part)) for part in blocks) + ' (encoder, middle, decoder)'
        yield 'prior', options.get('prior_dim', 384)
        pool = options.get('local_pool_size')
        yield 'means', f'over windows of 1.5 x {pool[0]} x {pool[1]} pixels' if pool else 'over the whole image'
        lora = options.get('lora')
        if lora:
            alpha, top_k = lora.get('alpha') or 2 * lora['rank'], lora.get('top_k', 1)
            count = sum(value.numel() for key, value in state_dict.items() if key.endswith(_EXPERTS))
            each = f'{count:,} parameters in all, {top_k} for each image'
            yield 'experts', f'{lora["num_experts"]} of rank {lora["rank"]}, alpha {alpha}; {each}'
        elif 'experts' not in files:
            yield 'experts', 'none'
    if weights.network is None:
        yield 'sizes', 'as the shapes tell: the file does not say them'
    # BasicSR copies the options beside the folder of checkpoints.
    trained_by = sorted(path.resolve().parent.parent.glob('*.yml')) if path.parent.name == 'models' else []
    if trained_by:
        yield 'options', ', '.join(map(str, trained_by))


def _options(weights: Weights, files: dict[str, Weights]) -> dict[str, Any]:
    """Gives the options of the network; of experts whose base is not there, and who do not say them, nothing."""
    if weights.kind == 'experts' and weights.network is None:
        return choose_restorer(files).options() if 'restorer' in files else {}
    return weights.options()


def _joined(options: dict[str, Any], leave: tuple[str, ...]) -> str:
    return ', '.join(f'{key} {value}' for key, value in options.items() if key not in leave)
