"""Turns files of weights into one another: this project's and the official release's, PyTorch and safetensors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lorair_arch.errors import CheckpointError, OptionsError, did_you_mean
from lorair_arch.files import check_output
from lorair_arch.weights.bundle import pack
from lorair_arch.weights.files import save_file
from lorair_arch.weights.loading import check_fit, describe
from lorair_arch.weights.official import convert_to_official
from lorair_arch.weights.pretrained import (
    Weights,
    build,
    check_classes,
    choose_restorer,
    load,
    load_networks,
    read_weights,
)

# The official code reads its files by `torch.load` alone.
_SUFFIXES = {'lorair': ('.pth', '.safetensors'), 'official': ('.pth',)}
# fixed in the code of the release
_OFFICIAL_SIZES = {'prior_dim': 384, 'img_channel': 3, 'clip_grid': 2}


def convert(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    to: str = 'lorair',
    degradations: Sequence[str] | None = None,
    half: bool = False,
    overwrite: bool = False,
) -> str:
    """Converts weights; what they are, and which network they fit, is recognised.

    Args:
        inputs: A router, a restorer or a set of experts, in any known form; or a restorer and its experts, which become
            one restorer; or these and their router, which become one file that restores by itself. Averaged weights
            (EMA) are taken where there are any.
        output: Where to. For 'lorair' the suffix says the form: `.safetensors`, or `.pth`, BasicSR's; both hold the
            options of the network. For 'official' it is `.pth`.
        to: 'lorair', this project's names, or 'official', those of the official release, to be read by its code.
        degradations: Names to store along, in the order of the classes; those of the input if not given.
        half: Store float16 in place of float32: half the size, precise to 3 digits.
        overwrite: Whether the output may replace a file that exists, other than an input.

    Returns:
        One line that says what was read, written and, where the input does not tell it, assumed.

    Raises:
        CheckpointError: The input is damaged, incomplete or something else, or the output cannot be written.
        OptionsError: The output's name or the degradations do not fit.
        OutputError: The output exists, or is an input.
    """
    output = Path(output)
    files = read_weights(inputs)
    check_weights_output(output, overwrite, files.values(), to)
    if {'router', 'restorer'} <= files.keys() and to == 'lorair':
        return _to_bundle(inputs, files, output, degradations, half)
    weights = _only(files)
    options = weights.options()
    with torch.device('meta'):
        net = build(weights)
    base = [key for key in net.state_dict() if not key.endswith(('lora_A', 'lora_B'))]
    check_fit(net, weights.state_dict, base if weights.kind == 'experts' else (), weights.path)
    weights = replace(weights, degradations=_names(degradations, options, to) or weights.degradations)
    if half:
        weights = replace(weights, state_dict=_halved(weights.state_dict))
    if to == 'official':
        save_file({'params': _to_official(weights, options)}, output)
    else:
        weights.save(output)
    return _report(weights, options, inputs, output, to)


def _halved(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.half() if value.is_floating_point() else value for key, value in state_dict.items()}


def _to_bundle(
    inputs: Sequence, files: dict[str, Weights], output: Path, degradations: Sequence[str] | None, half: bool
) -> str:
    names = load_networks(inputs)[2]  # which fit together, or it says what does not
    parts = {'router': files['router'], 'restorer': choose_restorer(files)}
    names = _names(degradations, parts['router'].options(), 'lorair') or names
    networks = {kind: (weights.state_dict, weights.options()) for kind, weights in parts.items()}
    if half:
        networks = {kind: (_halved(state_dict), options) for kind, (state_dict, options) in networks.items()}
    training = {kind: weights.training for kind, weights in parts.items()}
    save_file(pack(networks, names, training), output)
    what = ', '.join(f'{describe(weights.state_dict)} ({weights.size})' for weights in parts.values())
    return f'{" and ".join(map(str, inputs))}: {what}; written to {output} for {", ".join(names)}'


def check_weights_output(output: Path, overwrite: bool, files: Iterable[Weights], to: str = 'lorair') -> None:
    """Raises an OptionsError or an OutputError if a file of weights should not be written there."""
    if output.suffix not in _SUFFIXES[to]:
        raise OptionsError(f"output '{output}' ends in '{output.suffix}', expected {' or '.join(_SUFFIXES[to])}")
    check_output(output, overwrite, [file.path for file in files])


def _only(files: dict[str, Weights]) -> Weights:
    if len(files) == 1:
        return next(iter(files.values()))
    if files.keys() != {'restorer', 'experts'}:
        what = ' and '.join(kind if kind == 'experts' else f'a {kind}' for kind in files)
        raise CheckpointError(
            f'{", ".join(str(file.path) for file in files.values())} hold {what}: '
            'convert them one at a time (a restorer and its experts become one file, with or without their router)'
        )
    return choose_restorer(files)


def _names(names: Sequence[str] | None, options: dict, to: str) -> list[str] | None:
    """Checks the names of the degradations."""
    if not names:
        return None
    if to == 'official':
        raise OptionsError('--degradations: official files hold no names, leave it out')
    count = options.get('num_degradations') or (options.get('lora') or {}).get('num_experts') or len(names)
    if len(set(names)) != count or len(names) != count:
        raise OptionsError(f'--degradations: found {", ".join(names)}, expected {count} different names, one for each')
    return list(names)


def _to_official(weights: Weights, options: dict) -> dict[str, Tensor]:
    if weights.kind == 'experts':
        raise CheckpointError(
            f'{weights.path} holds experts alone, but the official code reads whole restorers: '
            'name the file of their restorer too'
        )
    for key, size in _OFFICIAL_SIZES.items():
        if options.get(key, size) != size:
            raise CheckpointError(f'{weights.path} has {key} = {options[key]}, but the official code only knows {size}')
    state_dict, lora = weights.state_dict, options.get('lora') or {}
    if lora.get('alpha'):  # the official code knows 2 * rank alone: the experts take up the rest
        scale = lora['alpha'] / (2 * lora['rank'])
        state_dict = {key: value * scale if key.endswith('lora_B') else value for key, value in state_dict.items()}
    return convert_to_official(state_dict)


def _report(weights: Weights, options: dict, inputs: Sequence, output: Path, to: str) -> str:
    state_dict, lora = weights.state_dict, options.get('lora')
    types = {str(value.dtype).removeprefix('torch.') for value in state_dict.values()}
    notes = [weights.size, '/'.join(sorted(types))]
    if to == 'official' and weights.kind == 'restorer':
        sizes = {key: options[key] for key in ('width', 'enc_blk_nums', 'middle_blk_num', 'dec_blk_nums')}
        if lora:
            sizes |= {'r': lora['rank'], 'num_experts': lora['num_experts'], 'top_k': lora.get('top_k', 1)}
        notes.append('network_g there: ' + ', '.join(f'{key}: {value}' for key, value in sizes.items()))
    if weights.network is None and weights.kind == 'router':
        clip = options['clip_model']
        notes.append(f'assumed of its CLIP: {clip if isinstance(clip, str) else "quick GELU, heads of 64 channels"}')
    elif weights.network is None:
        experts = f'top_k 1, alpha {2 * lora["rank"]}, ' if lora else ''
        notes.append(f'assumed: {experts}means over the whole image')
    source = ' (official release)' if weights.official else ''
    form = ', with the names of the official release' if to == 'official' else ''
    names = ' and '.join(str(path) for path in inputs)
    return f'{names}: {describe(state_dict)}{source}; written to {output}{form} ({"; ".join(notes)})'


def export(
    inputs: Sequence[str | os.PathLike], output: str | os.PathLike, degradation: str, overwrite: bool = False
) -> str:
    """Writes the plain network that the experts of one degradation make of a restorer.

    Args:
        inputs: Files of weights, or folders of them: a restorer with experts, or a restorer and its experts. A router
            among them gives the degradations their names where the experts do not. Averaged weights (EMA) are taken
            where there are any.
        output: Where to, `.safetensors` or `.pth`. The file holds a restorer without experts, the options of its
            network and the degradation (`merged_for`).
        degradation: Name of the degradation; its number from 0 if the weights hold no names.
        overwrite: Whether the output may replace a file that exists, other than an input.

    Returns:
        One line that says what was read and written.

    Raises:
        CheckpointError: The input is damaged, incomplete or has no experts, or the output cannot be written.
        OptionsError: The output's name does not fit, or there is no such degradation.
        OutputError: The output exists, or is an input.
    """
    output = Path(output)
    files = read_weights(inputs)
    check_weights_output(output, overwrite, files.values())
    weights = choose_restorer(files)
    check_classes(files)
    options = weights.options()
    lora = options.pop('lora', None)
    if not lora:
        raise CheckpointError(f'{weights.path} holds {describe(weights.state_dict)}: there is nothing to merge')
    named = weights.degradations or ('router' in files and files['router'].degradations)
    names = named or [str(i) for i in range(lora['num_experts'])]
    if degradation not in names:
        raise OptionsError(f'--degradation is {degradation!r}{did_you_mean(degradation, names)}')
    # By the network itself, as inference merges: the file gives what the experts would have given.
    state_dict = load(weights).merge(names.index(degradation)).state_dict()
    plain = Weights(output, 'restorer', state_dict, options, named or None, official=False, merged_for=degradation)
    plain.save(output)
    return f'{weights.path}: experts for {degradation} merged; written to {output} ({plain.size})'
