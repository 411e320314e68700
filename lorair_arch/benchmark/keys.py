"""What the benchmark reports: each key compares two contestants of a group, or rates one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lorair_arch.benchmark import contestants


@dataclass(frozen=True)
class Key:
    """One line of the table.

    Attributes:
        group: Builds the contestants.
        contestant: Whose value it is.
        reference: By whose value of the same round it is divided; None: the value is what the contestant gets done in
            a second.
        what: What it is.
        unit: Of the value; '' for ratios.
        scale: Factor from the quotient to the unit.
    """

    group: Callable[..., contestants.Contestants]
    contestant: str
    reference: str | None
    what: str
    unit: str = ''
    scale: float = 1


_TRAIN, _INFER, _GUIDED = contestants.training, contestants.inference, contestants.guided
_OPS, _RATE = contestants.arithmetic, 'images/s'

KEYS = {
    'finetune_step': Key(_TRAIN, 'experts', 'plain', 'fine-tuning step, top-1, all weights learn'),
    'finetune_step_lora_only': Key(_TRAIN, 'experts learn alone', 'plain', 'fine-tuning step, top-1, experts learn'),
    'finetune_step_topk2': Key(_TRAIN, 'two experts', 'plain', 'fine-tuning step, top-2, all weights learn'),
    'finetune_peak_memory': Key(contestants.memory, 'experts', 'plain', 'peak memory of a fine-tuning step, top-1'),
    'infer_batch_mixed': Key(_INFER, 'experts, batch', 'plain, batch', 'batch whose images use different experts'),
    'infer_single': Key(
        _INFER, 'experts, one image', 'plain, one image', 'one image, another expert than the last; not the first'
    ),
    'local_pool_infer': Key(
        contestants.pooling, 'local mean', 'global mean', 'plain network, local to global means, one larger image'
    ),
    'dense_experts_step': Key(_TRAIN, 'dense experts', 'plain', 'fine-tuning step with one convolution per expert'),
    'naive_plain_step': Key(_TRAIN, 'naive', 'plain', 'plain network in NCHW with hand-written layer norm'),
    'bf16_step': Key(_TRAIN, 'plain bf16', 'plain float32', 'plain network, bf16 autocast to float32'),
    'views_per_image_vs_pillow': Key(
        contestants.views, 'device', 'pillow', "the router's views, made on the device to made by Pillow"
    ),
    'loader_images_per_s_lmdb': Key(contestants.loading, 'lmdb', None, 'pairs that one worker reads, LMDB', _RATE),
    'loader_images_per_s_disk': Key(contestants.loading, 'disk', None, 'pairs that one worker reads, PNG', _RATE),
    'router_share_of_step': Key(
        _GUIDED, 'router', 'fine-tuning', "the router's share of a complete fine-tuning step", '%', 100
    ),
    'router_share_of_step_cached': Key(
        _GUIDED, 'prior in the batch', 'fine-tuning, prior in the batch', 'the same with cached priors', '%', 100
    ),
    'pretrain_images_per_s': Key(_GUIDED, 'pre-training', None, 'complete pre-training steps, with router', _RATE),
    'finetune_images_per_s': Key(_GUIDED, 'fine-tuning', None, 'complete fine-tuning steps, with router', _RATE),
    'dense_images_per_s': Key(
        _GUIDED, 'dense fine-tuning', None, 'the same, one convolution per expert, float32', _RATE
    ),
    'gflops': Key(_OPS, 'plain', None, 'arithmetic of the plain training step', 'GFLOP/s', 1e-9),
    'gflops_peak': Key(_OPS, 'matrix product', None, "the machine's peak: a large matrix product", 'GFLOP/s', 1e-9),
}
