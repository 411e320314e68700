"""Weights for the networks: from a file to a state dict by our names, what it is, and from there into a network."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lorair_arch.errors import CheckpointError
from lorair_arch.weights.files import load_file
from lorair_arch.weights.official import convert_official, official_kind

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
    # What DistributedDataParallel and torch.compile put before names.
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
    # Not strict, as `check_fit` has been: it knows what may be missing.
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
    # Of each ending all or none: a part of the experts would pass for the whole.
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
        if value.is_floating_point() and not torch.isfinite(value).all():  # last, as it reads every number
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


# architectures that people are likely to hand over by mistake, by a key that only they have
_OTHERS = {
    'middle_blks.0.conv1.weight': 'a NAFNet',
    'patch_embed.proj.weight': 'a Restormer or a vision transformer',
    'conv_first.weight': 'a super-resolution network such as RRDBNet, EDSR or SwinIR',
    'visual.conv1.weight': 'a whole CLIP model in open_clip form',
    'vision_model.embeddings.class_embedding': 'a CLIP model in Hugging Face form',
}
# the encoder of the official release; a name of open_clip says in one word what these sizes say
_OFFICIAL_CLIP = 'ViT-L-14-336-quickgelu'
_OFFICIAL_VISION = {
    'image_size': 336, 'patch_size': 14, 'layers': 24, 'width': 1024, 'head_width': 64, 'mlp_ratio': 4.0,
}  # fmt: skip


def kind_of(state_dict: StateDict) -> str | None:
    """Recognises weights by our names.

    Returns:
        'restorer' (with or without experts), 'experts' (without their base), 'router', or None.
    """
    if 'head.weight' in state_dict and 'prior_mlp.0.weight' in state_dict:
        return 'router'
    if 'intro.weight' in state_dict and 'prior_mlp.0.weight' in state_dict:
        return 'restorer'
    if _num_experts(state_dict):
        return 'experts'
    return None


def describe(state_dict: StateDict) -> str:
    """Says in a few words what a set of weights seems to be, for error messages."""
    kind = kind_of(state_dict)
    if kind == 'router':
        return f'a degradation router for {len(state_dict["head.weight"])} degradations'
    if kind == 'experts':
        return f'{_num_experts(state_dict)} low-rank experts without their base'
    if kind == 'restorer':
        experts = _num_experts(state_dict)
        return f'a LoRA-IR restorer {f"with {experts} experts" if experts else "without experts"}'
    if official_kind(state_dict):
        return f'the {official_kind(state_dict)} of the official LoRA-IR release'
    for key, name in _OTHERS.items():
        if key in state_dict:
            return name
    return f'a network unknown here, with {len(state_dict)} tensors'


def other_classes(description: Mapping[str, Any], names: Sequence[str] | None) -> str | None:
    """Compares the degradations that a file of weights was trained for with those of the options.

    Args:
        description: What the file says of itself; of a restorer without experts the order of the classes is no matter.
        names: `degradations` of the options, if they have any.

    Returns:
        What is different, in words that follow on the name of the file; None: nothing, as far as one can tell.
    """
    trained = description.get('degradations')
    ordered = description.get('kind') != 'restorer' or (description.get('network') or {}).get('lora')
    if not (trained and names and ordered) or list(trained) == list(names):
        return None
    return (
        f'tells {", ".join(trained)} apart, in this order, but degradations says {", ".join(names)}: '
        "one would be taken for another; write the file's list there"
    )


def infer_network(state_dict: StateDict) -> dict:
    """Gives the options of the network that a set of weights fits, as an options file would write them.

    Shapes do not tell everything: the number of active experts (`top_k`), `alpha` and `local_pool_size` stay at the
    network's defaults, a CLIP backbone is taken for an OpenAI one (quick GELU, heads of 64 channels), by its name if it
    has the sizes of the official release's.

    Args:
        state_dict: A restorer with or without experts, or a router with a vision transformer, by our names.

    Raises:
        CheckpointError: It is neither of them, or a tensor that tells a size is missing.
    """
    kind = kind_of(state_dict)
    if kind not in ('restorer', 'router'):
        raise CheckpointError(f'a restorer or a router is needed, but this seems to be {describe(state_dict)}')
    try:
        return _restorer(state_dict) if kind == 'restorer' else _router(state_dict)
    except KeyError as error:
        raise CheckpointError(f'{describe(state_dict)} is incomplete: {error.args[0]} is missing') from error


def _num_experts(state_dict: StateDict) -> int:
    return next((len(value) for key, value in state_dict.items() if key.endswith('.lora_A')), 0)


def _count(state_dict: StateDict, prefix: str) -> int:
    """Number of modules in the list `prefix`."""
    indices = [int(m[1]) for m in (re.match(rf'{re.escape(prefix)}\.(\d+)\.', key) for key in state_dict) if m]
    return max(indices, default=-1) + 1


def _restorer(state_dict: StateDict) -> dict:
    levels = _count(state_dict, 'downs')
    network = {
        'type': 'LoRAIR',
        'width': len(state_dict['intro.weight']),
        'enc_blk_nums': [_count(state_dict, f'encoders.{i}.blocks') for i in range(levels)],
        'middle_blk_num': _count(state_dict, 'middle.blocks'),
        'dec_blk_nums': [_count(state_dict, f'decoders.{i}.blocks') for i in range(levels)],
        'prior_dim': state_dict['prior_mlp.0.weight'].shape[1],
    }
    if _num_experts(state_dict):
        num_experts, rank, _ = state_dict['prior_mlp.0.lora_A'].shape  # a 1x1 convolution: its rows are the rank
        network['lora'] = {'rank': rank, 'num_experts': num_experts}
    return network


def _router(state_dict: StateDict) -> dict:
    width, _, patch_size, _ = state_dict['clip.conv1.weight'].shape
    # A position for each patch, and one for the class token.
    grid = round((len(state_dict['clip.positional_embedding']) - 1) ** 0.5)
    vision = {
        'image_size': grid * patch_size,
        'patch_size': patch_size,
        'layers': _count(state_dict, 'clip.transformer.resblocks'),
        'width': width,
        'head_width': min(64, width),
        'mlp_ratio': len(state_dict['clip.transformer.resblocks.0.mlp.c_fc.weight']) / width,
    }
    clip = {'embed_dim': state_dict['clip.proj'].shape[1], 'vision_cfg': vision, 'quick_gelu': True}
    return {
        'type': 'DegradationRouter',
        'clip_model': _OFFICIAL_CLIP if vision == _OFFICIAL_VISION and clip['embed_dim'] == 768 else clip,
        'num_degradations': len(state_dict['head.weight']),
    }
