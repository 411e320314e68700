"""Key names of the official LoRA-IR release (github.com/shallowdream204/LoRA-IR) and this project's, both ways.

The release wraps every convolution of the restorer (`X.conv.weight`) and takes CLIP from Hugging Face `transformers`,
where query, key and value are three matrices; open_clip keeps them in one. Nothing is rounded: a round trip gives the
same bits.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from lorair_arch.errors import CheckpointError

StateDict = dict[str, Tensor]

_TOWER = 'clip_model.vision_tower.'
_VISION = _TOWER + 'vision_model.'

# applied in this order to every key: official pattern -> ours
_RESTORER = (
    (r'^intro_de\.', 'prior_mlp.'),
    (r'^middle_blks\.', 'middle.'),
    (r'^(encoders\.\d+|middle)\.(conv\d|norm|beta)\b', r'\1.modulation.\2'),
    (r'^ups\.(\d+)\.0\.', r'ups.\1.'),
    (r'\.sca\.1\.', '.sca.'),
    (r'\.conv\.(weight|bias)$', r'.\1'),
    (r'\.(lora_[AB])_list$', r'.\1'),
)
# The other way round, from the last rule to the first; norms are not wrapped there.
_RESTORER_BACK = (
    (r'\.(lora_[AB])$', r'.\1_list'),
    (r'(?<!norm)(?<!norm\d)\.(weight|bias)$', r'.conv.\1'),
    (r'\.sca\.', '.sca.1.'),
    (r'^ups\.(\d+)\.', r'ups.\1.0.'),
    (r'\.modulation\.', '.'),
    (r'^middle\.', 'middle_blks.'),
    (r'^prior_mlp\.', 'intro_de.'),
)
# pairs of literal beginnings or parts: official, ours
_ROUTER = (
    (_VISION + 'encoder.layers.', 'clip.transformer.resblocks.'),
    (_VISION + 'embeddings.class_embedding', 'clip.class_embedding'),
    (_VISION + 'embeddings.patch_embedding.', 'clip.conv1.'),
    (_VISION + 'embeddings.position_embedding.weight', 'clip.positional_embedding'),
    (_VISION + 'pre_layrnorm.', 'clip.ln_pre.'),  # sic: the misspelling is in transformers
    (_VISION + 'post_layernorm.', 'clip.ln_post.'),
    # A linear layer there, a matrix to multiply with here: transposed below.
    (_TOWER + 'visual_projection.weight', 'clip.proj'),
    ('.layer_norm1.', '.ln_1.'),
    ('.layer_norm2.', '.ln_2.'),
    ('.mlp.fc1.', '.mlp.c_fc.'),
    ('.mlp.fc2.', '.mlp.c_proj.'),
    ('.self_attn.out_proj.', '.attn.out_proj.'),
    ('de_extractor.', 'prior_mlp.'),
    ('cls_head.', 'head.'),
)
_QKV = ('q_proj', 'k_proj', 'v_proj')


def official_kind(state_dict: StateDict) -> str | None:
    """Recognises the official release by its key names: 'restorer', 'router' or None."""
    if any(key.startswith(_TOWER) for key in state_dict):
        return 'router'
    if any(key.startswith('intro_de.') for key in state_dict):
        return 'restorer'
    return None


def convert_official(state_dict: StateDict) -> StateDict:
    """Renames the weights of an official file to this project's names.

    Args:
        state_dict: Restorer, pre-trained or with experts, or router (CLIP included). Any dtype.

    Returns:
        A new dict; the dtype stays. Keys that are not the release's keep their names, so that loading reports them.

    Raises:
        CheckpointError: The names are not those of the official release, or a part of an attention layer is missing.
    """
    kind = official_kind(state_dict)
    if kind is None:
        raise CheckpointError(
            'these are not weights of the official LoRA-IR release: no key begins with "intro_de." (restorer) or '
            f'"{_TOWER}" (router); the first keys are {", ".join(list(state_dict)[:3]) or "missing"}'
        )
    return _restorer(state_dict, _RESTORER) if kind == 'restorer' else _router_to_ours(state_dict)


def convert_to_official(state_dict: StateDict) -> StateDict:
    """Renames this project's weights to the official names, the exact inverse of `convert_official`.

    Args:
        state_dict: A restorer with or without experts, or a router whose backbone is a CLIP vision transformer.

    Raises:
        CheckpointError: It is neither of them.
    """
    if 'clip.class_embedding' in state_dict:
        return _router_to_official(state_dict)
    if 'prior_mlp.0.weight' in state_dict and 'intro.weight' in state_dict:
        return _restorer(state_dict, _RESTORER_BACK)
    raise CheckpointError(
        'only a whole restorer, or a router with a vision transformer, has official names; '
        f'the first keys are {", ".join(list(state_dict)[:3]) or "missing"}'
    )


def _restorer(state_dict: StateDict, rules: tuple[tuple[str, str], ...]) -> StateDict:
    renamed = {}
    for key, value in state_dict.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _router_to_ours(state_dict: StateDict) -> StateDict:
    renamed = {}
    for key, value in state_dict.items():
        # the position ids are a buffer 0, 1, 2, ... of old transformers versions; k and v come along with q
        if key.endswith('.position_ids') or '.self_attn.k_proj.' in key or '.self_attn.v_proj.' in key:
            continue
        if '.self_attn.q_proj.' in key:
            parts = [key.replace('q_proj', name) for name in _QKV]
            missing = [name for name in parts if name not in state_dict]
            if missing:
                raise CheckpointError(f'the official router lacks {", ".join(missing)}: the file is incomplete')
            value = torch.cat([state_dict[name] for name in parts])
            key = key.replace('self_attn.q_proj.', 'attn.in_proj_')
        for official, ours in _ROUTER:
            key = key.replace(official, ours)
        renamed[key] = value.T.contiguous() if key == 'clip.proj' else value
    return renamed


def _router_to_official(state_dict: StateDict) -> StateDict:
    renamed = {}
    for key, value in state_dict.items():
        for official, ours in reversed(_ROUTER):
            key = key.replace(ours, official)
        if key == _TOWER + 'visual_projection.weight':
            value = value.T.contiguous()
        if '.attn.in_proj_' in key:
            for name, chunk in zip(_QKV, value.chunk(3), strict=True):
                # A copy: `torch.save` keeps the whole tensor behind a view.
                renamed[key.replace('attn.in_proj_', f'self_attn.{name}.')] = chunk.clone()
        else:
            renamed[key] = value
    return renamed
