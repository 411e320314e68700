"""Keys under `network_g` and `network_router`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import open_clip
from basicsr.utils.registry import ARCH_REGISTRY
from open_clip.model import CLIPVisionCfg

from lorair_arch.data.checks import did_you_mean
from lorair_arch.utils.option_schema.specs import (
    Items,
    Report,
    Section,
    Spec,
    Value,
    anything,
    boolean,
    call,
    integer,
    number,
    one_of,
    registered,
    show,
    text,
)


def network(**options: Any) -> Spec:
    """Describes a network; one that is not of this package takes what its class takes."""
    return registered('arch', lambda name: _NETWORKS.get(name) or call(ARCH_REGISTRY.get(name)), **options)


class _ClipModel(Spec):
    """The name of an open_clip model, or a configuration in open_clip's words."""

    expected = 'the name of an open_clip model, or a mapping with embed_dim and vision_cfg'

    def check(self, value: Any, where: str, report: Report) -> Any:
        if isinstance(value, dict):
            return _CLIP.check(value, where, report)
        if not isinstance(value, str):
            report(where, f'found {show(value)}, expected {self.expected}')
        elif ':' not in value and value not in open_clip.list_models():
            report(where, f'unknown open_clip model {value!r}{did_you_mean(value, open_clip.list_models())}')
        return value


def _check_clip(router: dict[str, Any], where: str, report: Report) -> None:
    name, weights = router['clip_model'], router.get('pretrained')
    if weights is None:
        return
    if isinstance(name, dict):
        report(f'{where}.pretrained', f'found {weights!r}, expected null, as clip_model is a configuration of your own')
        return
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags and not Path(weights).expanduser().is_file():
        known = ', '.join(tags) or 'none'
        report(f'{where}.pretrained', f'found {weights!r}, expected a file of weights or one of the tags: {known}')


def _check_patches(vision: dict[str, Any], where: str, report: Report) -> None:
    if not isinstance(vision['layers'], int):  # a residual network
        return
    size, patch, width, head = (vision.get(key, 64) for key in ('image_size', 'patch_size', 'width', 'head_width'))
    if size % patch:
        report(f'{where}.image_size', f'found {size}, expected a multiple of patch_size = {patch}')
    if width % head:
        report(f'{where}.width', f'found {width}, expected a multiple of head_width = {head}')


def _check_levels(restorer: dict[str, Any], where: str, report: Report) -> None:
    encoder, decoder = len(restorer['enc_blk_nums']), len(restorer['dec_blk_nums'])
    if encoder != decoder:
        report(f'{where}.dec_blk_nums', f'found {decoder} levels, expected {encoder}, as many as enc_blk_nums has')
    lora = restorer.get('lora')
    if lora and lora.get('top_k', 1) > lora['num_experts']:
        report(f'{where}.lora.top_k', f'found {lora["top_k"]}, expected at most num_experts = {lora["num_experts"]}')


_LAYERS = Value(
    accepts=lambda value: all(isinstance(n, int) and n >= 1 for n in (value if isinstance(value, list) else [value])),
    expected='a number of transformer layers, or four numbers of residual blocks',
    required=True,
)
_VISION = Section(
    keys={name: anything() for name in inspect.signature(CLIPVisionCfg).parameters}
    | {name: integer(1, required=True) for name in ('image_size', 'width')}
    | {'layers': _LAYERS, 'patch_size': integer(1), 'head_width': integer(1), 'mlp_ratio': number(above=0)},
    required=True,
    also=(_check_patches,),
)
_CLIP = Section(keys={'embed_dim': integer(2, required=True), 'vision_cfg': _VISION, 'quick_gelu': boolean()})
_LORA = Section(
    keys={
        'rank': integer(1, required=True),
        'alpha': number(above=0, null=True),
        'num_experts': integer(1, required=True),
        'top_k': integer(1),
    },
    null=True,
)
_WIDTH = Value(
    accepts=lambda value: isinstance(value, int) and value >= 16 and value % 16 == 0,
    expected='a multiple of 16',
    required=True,
)
_NETWORKS = {
    'LoRAIR': Section(
        keys={
            'width': _WIDTH,
            'enc_blk_nums': Items(item=integer(0), required=True),
            'middle_blk_num': integer(0, required=True),
            'dec_blk_nums': Items(item=integer(0), required=True),
            'prior_dim': integer(1),
            'lora': _LORA,
            'local_pool_size': Items(item=integer(1), length=2, null=True),
            'img_channel': integer(1),
        },
        also=(_check_levels,),
    ),
    'DegradationRouter': Section(
        keys={
            'clip_model': _ClipModel(required=True),
            'num_degradations': integer(1, required=True),
            'pretrained': text(null=True),
            'clip_grid': integer(1),
            'freeze_clip': boolean(),
            'views': one_of('device', 'pillow'),
        },
        also=(_check_clip,),
    ),
}
