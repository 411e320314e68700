"""What the networks of this package take (their `OPTIONS`), and the encoder that a configuration of CLIP describes."""

from __future__ import annotations

import functools
import inspect
import json
import os
from dataclasses import asdict, replace
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPVisionCfg
from torch import nn

from lorair_arch.errors import did_you_mean
from lorair_arch.schema import Items, Report, Section, Spec, Value, boolean, integer, like, number, one_of, show, text

_MOST_CHANNELS = 2**16  # of the deepest level: a weight has at most as many rows and columns
# The smallest text encoder: open_clip builds a CLIP whole, and one half is thrown away.
_NO_TEXT = {'width': 64, 'heads': 1, 'layers': 1, 'vocab_size': 1, 'context_length': 1}


def build_encoder(config: dict[str, Any]) -> nn.Module:
    """Builds the image encoder of a configuration in open_clip's words; the text encoder is never kept."""
    quick_gelu = config.get('quick_gelu', False)
    return open_clip.CLIP(config['embed_dim'], config['vision_cfg'], _NO_TEXT, quick_gelu=quick_gelu).visual


class _ClipModel(Spec):
    """The name of an open_clip model, or a configuration in open_clip's words."""

    expected = 'the name of an open_clip model, or a mapping with embed_dim and vision_cfg'

    def check(self, value: Any, where: str, report: Report) -> Any:
        if isinstance(value, dict):
            return _CLIP.check(value, where, report)
        if not isinstance(value, str):
            report(where, f'found {show(value)}, expected {self.expected}')
        # Of these two forms open_clip has no list.
        elif not value.startswith(('hf-hub:', 'local-dir:')) and value not in open_clip.list_models():
            report(where, f'unknown open_clip model {value!r}{did_you_mean(value, open_clip.list_models())}')
        return value


def _check_weights(router: dict[str, Any], report: Report) -> None:
    name, weights = router['clip_model'], router.get('pretrained')
    if weights is None:
        return
    # Tags and files belong to names: open_clip loads no weights into a configuration.
    if isinstance(name, dict):
        report('pretrained', f'found {weights!r}, expected null, as clip_model is a configuration of your own')
        return
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags and not os.path.isfile(os.path.expanduser(weights)):
        known = ', '.join(tags) or 'none'
        report('pretrained', f'found {weights!r}, expected a file of weights or one of the tags: {known}')


def _check_encoder(clip: dict[str, Any], report: Report) -> None:
    # As a text, for a cache takes no mappings; constructors and options files ask for the same again and again.
    mistake = _mistake_of_encoder(json.dumps(clip))
    if mistake:
        report('', mistake)


@functools.cache
def _mistake_of_encoder(config: str) -> str | None:
    """Builds and runs an encoder, without its memory: what its settings mean together, open_clip alone knows."""
    clip = json.loads(config)
    size, dim = clip['vision_cfg']['image_size'], clip['embed_dim']
    try:
        with torch.device('meta'):
            shape = list(build_encoder(clip).eval()(torch.empty(1, 3, size, size)).shape)
    except Exception as error:  # whatever open_clip raises
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        return f'open_clip cannot build it ({reason}); check its sizes'
    return None if shape == [1, dim] else f'found an encoder that makes {shape} of an image, expected {[1, dim]}'


def _check_patches(vision: dict[str, Any], report: Report) -> None:
    if not isinstance(vision['layers'], int):  # a residual network
        return
    whole = asdict(CLIPVisionCfg()) | vision
    size, patch, width, head = (whole[key] for key in ('image_size', 'patch_size', 'width', 'head_width'))
    if size % patch:
        report('image_size', f'found {size}, expected a multiple of patch_size = {patch}')
    if width % head:
        report('width', f'found {width}, expected a multiple of head_width = {head}')


def _check_levels(restorer: dict[str, Any], report: Report) -> None:
    encoder, decoder, width = len(restorer['enc_blk_nums']), len(restorer['dec_blk_nums']), restorer['width']
    if encoder != decoder:
        report('dec_blk_nums', f'found {decoder} levels, expected {encoder}, as many as enc_blk_nums has')
    most = (_MOST_CHANNELS // width).bit_length() - 1
    if encoder > most:
        report('enc_blk_nums', f'found {encoder} levels, expected at most {most}: width = {width} doubles with each')
    lora = restorer.get('lora')
    if lora and lora.get('top_k', 1) > lora['num_experts']:
        report('lora.top_k', f'found {lora["top_k"]}, expected at most num_experts = {lora["num_experts"]}')
    if lora and lora['rank'] > width:
        what = f'found {lora["rank"]}, expected at most width = {width}: no weight has a higher rank there'
        report('lora.rank', what)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 100


_LAYERS = Value(
    accepts=lambda value: (
        all(map(_is_count, value)) and len(value) == 4 if isinstance(value, (list, tuple)) else _is_count(value)
    ),
    expected='a number of transformer layers, or four numbers of residual blocks',
    required=True,
)
_VISION = Section(
    keys={name: like(parameter.default) for name, parameter in inspect.signature(CLIPVisionCfg).parameters.items()}
    | {'image_size': integer(1, 4096, required=True), 'width': integer(1, 16384, required=True), 'layers': _LAYERS}
    | {'patch_size': integer(1), 'head_width': integer(1), 'mlp_ratio': number(above=0, high=64)}
    | {'pool_type': one_of('tok', 'avg'), 'pos_embed_type': one_of('learnable', 'sin_cos_2d')},
    required=True,
    # Before open_clip is tried: these two mistakes are named with their keys.
    also=_check_patches,
)
_CLIP = Section(
    keys={'embed_dim': integer(2, 16384, required=True), 'vision_cfg': _VISION, 'quick_gelu': boolean()},
    also=_check_encoder,
)
ROUTER = Section(
    keys={
        'clip_model': _ClipModel(required=True),
        'num_degradations': integer(1, 1000, required=True),
        'pretrained': text(null=True),
        'clip_grid': integer(1, 32),
        'freeze_clip': boolean(),
        'views': one_of('device', 'pillow', 'windows'),
    },
    also=_check_weights,
)

# The modulation narrows to a sixteenth of the channels.
_WIDTH = Value(
    accepts=lambda value: isinstance(value, int) and 16 <= value <= 4096 and value % 16 == 0,
    expected='a multiple of 16, at most 4096',
    required=True,
)
_BLOCKS = integer(0, 200)
_LORA = Section(
    keys={
        'rank': integer(1, required=True),
        'alpha': number(above=0, null=True),
        'num_experts': integer(1, 1000, required=True),
        'top_k': integer(1),
    },
    null=True,
)
RESTORER = Section(
    keys={
        'width': _WIDTH,
        'enc_blk_nums': Items(item=_BLOCKS, required=True),
        'middle_blk_num': replace(_BLOCKS, required=True),
        'dec_blk_nums': Items(item=_BLOCKS, required=True),
        'prior_dim': integer(1, 16384),
        'lora': _LORA,
        'local_pool_size': Items(item=integer(1, 100_000), length=2, null=True),
        'img_channel': integer(1, 1000),
    },
    also=_check_levels,
)
