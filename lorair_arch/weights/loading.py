"""Weights for the networks: from a file to a state dict by our names, and from there into a network."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection

import torch
from torch import Tensor, nn

from lorair_arch.errors import CheckpointError
from lorair_arch.weights.files import load_file, save_file
from lorair_arch.weights.official import convert_official, convert_to_official, official_kind
from lorair_arch.weights.recognise import describe, infer_network, kind_of

__all__ = [
    'check_fit',
    'convert_official',
    'convert_to_official',
    'infer_network',
    'kind_of',
    'load_file',
    'load_into',
    'save_file',
    'state_dict_of',
]

StateDict = dict[str, Tensor]


def state_dict_of(path: str | os.PathLike, param_key: str = 'params') -> tuple[StateDict, dict | None]:
    """Reads the weights of one network, by our names.

    Takes BasicSR's container, a bare state dict, safetensors, weights saved from DataParallel or torch.compile, and
    files of the official release.

    Args:
        path: The file.
        param_key: Which weights of BasicSR's container: 'params' or 'params_ema'; if it has only the other, that one.

    Returns:
        The state dict on the CPU, and the description that this project saves along (kind, network, degradations);
        {'official': True} for a file of the official release, None where there is none.

    Raises:
        CheckpointError: As `load_file`, or the file holds no state dict.
    """
    loaded = load_file(path)
    meta = loaded.get('lorair')
    keys = [key for key in (param_key, 'params', 'params_ema', 'state_dict') if isinstance(loaded.get(key), dict)]
    if keys and keys[0] != param_key:
        logging.getLogger('basicsr').info(f'{path} has no {param_key!r}: {keys[0]!r} is used')
    state_dict = loaded[keys[0]] if keys else loaded
    if {'iter', 'optimizers'} <= state_dict.keys():
        raise CheckpointError(f'{path} is a training state without weights: name it under path.resume_state instead')
    wrong = next((k for k, v in state_dict.items() if not (isinstance(k, str) and isinstance(v, Tensor))), None)
    if wrong is not None or not state_dict:
        found = f'{wrong!r} is a {type(state_dict[wrong]).__name__}' if state_dict else 'there is no tensor in it'
        raise CheckpointError(f'{path} holds no state dict: {found}')
    state_dict = {re.sub(r'^(module\.|_orig_mod\.)+', '', key): value for key, value in state_dict.items()}
    if official_kind(state_dict):
        try:
            state_dict = convert_official(state_dict)
        except CheckpointError as error:
            raise CheckpointError(f'{path}: {error}') from error
        meta = {'official': True}
    return state_dict, meta if isinstance(meta, dict) else None


def load_into(
    net: nn.Module, state_dict: StateDict, allow_missing: Collection[str] = (), path: str | os.PathLike = 'state dict'
) -> None:
    """Copies weights into a network; names and shapes must fit exactly. The network keeps its dtype and device.

    Args:
        net: The bare network (not wrapped by DDP).
        state_dict: Weights by the network's names.
        allow_missing: Names or endings of names, such as 'lora_A', that may be missing; of each ending, all or none.
        path: Where the weights come from, for the messages.

    Raises:
        CheckpointError: As `check_fit`. The network is unchanged then.
    """
    check_fit(net, state_dict, allow_missing, path)
    net.load_state_dict(state_dict, strict=False)


def check_fit(
    net: nn.Module, state_dict: StateDict, allow_missing: Collection[str] = (), path: str | os.PathLike = 'state dict'
) -> None:
    """Compares weights with a network, which may be on the meta device; see `load_into`.

    Raises:
        CheckpointError: Names or shapes differ, or a value is not finite.
    """
    own = net.state_dict()
    optional = {key for key in own if key.endswith(tuple(allow_missing))}
    partial = {_ending(key) for key in optional if key in state_dict}
    missing = [key for key in own if key not in state_dict and (key not in optional or _ending(key) in partial)]
    extra = [key for key in state_dict if key not in own]
    shapes = [
        f'{key} is {list(value.shape)} in the file and {list(own[key].shape)} in the network'
        for key, value in state_dict.items()
        if key in own and value.shape != own[key].shape
    ]
    found = {
        f"missing are {len(missing)} of the network's {len(own)} tensors ({_some(missing)})": missing,
        f'unknown to the network: {len(extra)} ({_some(extra)})': extra,
        f'of another shape: {len(shapes)} ({_some(shapes)}{_hint(state_dict) if shapes else ""})': shapes,
    }
    problems = [problem for problem, keys in found.items() if keys]
    if problems:
        raise CheckpointError(
            f'{path} does not fit {type(net).__name__}: it seems to hold {describe(state_dict)}; {"; ".join(problems)}'
        )
    for key, value in state_dict.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f'{path} holds infinite or undefined numbers in {key}: its training has diverged')


def _ending(key: str) -> str:
    return key.rpartition('.')[2]


def _some(items: list[str], count: int = 3) -> str:
    return ', '.join(items[:count]) + (', ...' if len(items) > count else '')


def _hint(state_dict: StateDict) -> str:
    """The options of the network that the weights would fit."""
    if kind_of(state_dict) != 'restorer':
        return ''
    try:
        return '; it fits ' + ', '.join(f'{key}: {value}' for key, value in infer_network(state_dict).items())
    except CheckpointError:
        return ''
