"""What a set of weights is, and the network it fits, from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lorair_arch.errors import CheckpointError
from lorair_arch.weights.official import official_kind

StateDict = dict[str, Tensor]

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
