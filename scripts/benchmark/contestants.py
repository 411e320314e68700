"""What the benchmark reports: keys, and the groups of contestants that take turns for them.

Each function builds those of its group that are asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench import Bench, photo_loader, step
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.models.lorair_model import RestorationModel
from measures import Measure, PeakBytes, Seconds

Contestants = dict[str, Measure]


def training(bench: Bench, names: Iterable[str]) -> Contestants:
    """Training steps; every batch brings its prior and logits."""
    models = {
        'plain': bench.plain,
        'plain float32': partial(bench.plain, bf16=False),
        'plain bf16': partial(bench.plain, bf16=True),
        'naive': lambda: bench.written(bench.plain()),
        'experts': bench.finetune,
        'experts learn alone': partial(bench.finetune, 'lora'),
        'two experts': partial(bench.finetune, top_k=2),
        'dense experts': lambda: bench.written(bench.finetune()),
    }
    batch = bench.batch()
    return {name: Seconds(step(models[name](), batch), bench.device) for name in names}


def memory(bench: Bench, names: Iterable[str]) -> Contestants:
    """Peak memory of training steps."""
    models = {'plain': bench.plain, 'experts': bench.finetune}
    batch, chosen = bench.batch(), {name: models[name]() for name in names}
    return {name: PeakBytes(model, step(model, batch), bench.device) for name, model in chosen.items()}


def inference(bench: Bench, names: Iterable[str]) -> Contestants:
    """Restoring a batch, and its images one by one, in float32 as validation and `Restorer` do."""
    batch = bench.batch()
    inputs = [batch[key] for key in ('lq', 'prior', 'logits')]
    nets = {'plain': bench.plain_net(), 'experts': bench.expert_net()}

    def single(net: torch.nn.Module) -> Callable[[], Tensor]:
        images = [tuple(tensor[i : i + 1] for tensor in inputs) for i in range(len(inputs[0]))]
        for image in images:  # every expert has been used once
            _restore(net, *image)
        following = itertools.cycle(images)
        return lambda: _restore(net, *next(following))

    runs = {}
    for name, net in nets.items():
        runs[f'{name}, batch'] = lambda net=net: _restore(net, *inputs)
        runs[f'{name}, one image'] = single(net)
    return {name: Seconds(runs[name], bench.device) for name in names}


def pooling(bench: Bench, names: Iterable[str]) -> Contestants:
    """The plain network on one larger image, with global and with local means."""
    batch = bench.batch()
    lq, prior = bench.images(1, bench.setting.image), batch['prior'][:1]
    sizes = {'global mean': None, 'local mean': (bench.setting.crop, bench.setting.crop)}
    return {
        name: Seconds(partial(_restore, bench.plain_net(local_pool_size=sizes[name]), lq, prior), bench.device)
        for name in names
    }


def views(bench: Bench, names: Iterable[str]) -> Contestants:
    """The views that the router makes of the crops of a batch."""
    size, lq = bench.setting.view, bench.batch()['lq']
    # only its input size matters
    vision = {'image_size': size, 'patch_size': size // 2, 'layers': 1, 'width': 8, 'head_width': 8}
    clip = {'embed_dim': 8, 'vision_cfg': vision}
    routers = {name: DegradationRouter(clip, num_degradations=3, views=name).to(bench.device) for name in names}
    return {name: Seconds(partial(router.views, lq), bench.device, amount=len(lq)) for name, router in routers.items()}


def loading(bench: Bench, names: Iterable[str]) -> Contestants:
    """One worker's reading of pairs, or degrading of clean images; cropping and turning included."""
    loaders = {name: photo_loader(bench.folder, name, bench.setting.crop) for name in names}
    return {
        name: Seconds(lambda loader=loader: sum(1 for _ in loader), 'cpu', amount=len(loader) * loader.batch_size)
        for name, loader in loaders.items()
    }


def guided(bench: Bench, names: Iterable[str]) -> Contestants:
    """Complete training steps and the router's part in them."""
    batch = bench.batch()
    images = {key: batch[key] for key in ('lq', 'gt')}
    router = bench.router()

    def with_router(model: RestorationModel) -> RestorationModel:
        model.net_router = router
        return model

    def guide(batch: dict[str, Tensor]) -> Callable[[], None]:
        def run() -> None:
            finetuned.feed_data(batch)
            with finetuned.autocast():
                finetuned.guide()

        return run

    finetuned = with_router(bench.finetune())
    runs = {
        'router': lambda: guide(images),
        'prior in the batch': lambda: guide(batch),
        'pre-training': lambda: step(with_router(bench.plain()), images),
        'fine-tuning': lambda: step(finetuned, images),
        'fine-tuning, prior in the batch': lambda: step(finetuned, batch),
        'dense fine-tuning': lambda: step(with_router(bench.written(bench.finetune(bf16=False))), images),
    }
    return {name: Seconds(runs[name](), bench.device, amount=len(images['lq'])) for name in names}


def arithmetic(bench: Bench, names: Iterable[str]) -> Contestants:
    """Floating-point operations a second: of training, and of nothing but a matrix product."""
    batch = bench.batch()
    model = bench.plain()
    side, dtype = bench.setting.matrix, torch.bfloat16 if bench.bf16 else torch.float32
    a, b = (torch.rand(side, side, device=bench.device, dtype=dtype) for _ in range(2))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.net(batch['lq'], batch['prior'])
    # The backward pass has two products for each of the forward pass. PyTorch's counter is not asked: it takes the
    # gradient of a depthwise convolution for that of a full one.
    contestants = {
        'plain': Seconds(step(model, batch), bench.device, amount=3 * counter.get_total_flops()),
        'matrix product': Seconds(partial(torch.mm, a, b), bench.device, amount=2 * side**3),
    }
    return {name: contestants[name] for name in names}


@torch.inference_mode()
def _restore(net: torch.nn.Module, *inputs: Tensor) -> Tensor:
    return net(*inputs)


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

    group: Callable[..., Contestants]
    contestant: str
    reference: str | None
    what: str
    unit: str = ''
    scale: float = 1


_TRAIN, _INFER, _GUIDED = training, inference, guided
_OPS, _RATE = arithmetic, 'images/s'

KEYS = {
    'finetune_step': Key(_TRAIN, 'experts', 'plain', 'fine-tuning step, top-1, all weights learn'),
    'finetune_step_lora_only': Key(_TRAIN, 'experts learn alone', 'plain', 'fine-tuning step, top-1, experts learn'),
    'finetune_step_topk2': Key(_TRAIN, 'two experts', 'plain', 'fine-tuning step, top-2, all weights learn'),
    'finetune_peak_memory': Key(memory, 'experts', 'plain', 'peak memory of a fine-tuning step, top-1'),
    'infer_batch_mixed': Key(_INFER, 'experts, batch', 'plain, batch', 'batch whose images use different experts'),
    'infer_single': Key(
        _INFER, 'experts, one image', 'plain, one image', 'one image, another expert than the last; not the first'
    ),
    'local_pool_infer': Key(
        pooling, 'local mean', 'global mean', 'plain network, local to global means, one larger image'
    ),
    'dense_experts_step': Key(
        _TRAIN, 'dense experts', 'plain', 'fine-tuning step of reference.py: one convolution per expert'
    ),
    'naive_plain_step': Key(_TRAIN, 'naive', 'plain', 'plain network of reference.py: NCHW, hand-written layer norm'),
    'bf16_step': Key(_TRAIN, 'plain bf16', 'plain float32', 'plain network, bf16 autocast to float32'),
    'views_per_image_vs_pillow': Key(
        views, 'device', 'pillow', "the router's views, made on the device to made by Pillow"
    ),
    'loader_images_per_s_lmdb': Key(loading, 'lmdb', None, 'pairs that one worker reads, LMDB', _RATE),
    'loader_images_per_s_disk': Key(loading, 'disk', None, 'pairs that one worker reads, PNG', _RATE),
    'loader_images_per_s_zoo': Key(loading, 'zoo', None, 'crops that one worker degrades as options/zoo says', _RATE),
    'router_share_of_step': Key(
        _GUIDED, 'router', 'fine-tuning', "the router's share of a complete fine-tuning step", '%', 100
    ),
    'router_share_of_step_cached': Key(
        _GUIDED, 'prior in the batch', 'fine-tuning, prior in the batch', 'the same with cached priors', '%', 100
    ),
    'pretrain_images_per_s': Key(_GUIDED, 'pre-training', None, 'complete pre-training steps, with router', _RATE),
    'finetune_images_per_s': Key(_GUIDED, 'fine-tuning', None, 'complete fine-tuning steps, with router', _RATE),
    'dense_images_per_s': Key(_GUIDED, 'dense fine-tuning', None, 'the same of reference.py, float32', _RATE),
    'gflops': Key(_OPS, 'plain', None, 'arithmetic of the plain training step', 'GFLOP/s', 1e-9),
    'gflops_peak': Key(_OPS, 'matrix product', None, "the machine's peak: a large matrix product", 'GFLOP/s', 1e-9),
}
