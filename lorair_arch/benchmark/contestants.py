"""The groups of contestants that take turns. Each function builds those of its group that are asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.benchmark.bench import Bench, step
from lorair_arch.benchmark.dense import dense_experts
from lorair_arch.benchmark.measures import Measure, PeakBytes, Seconds
from lorair_arch.benchmark.photos import photo_loader
from lorair_arch.models.lorair_model import RestorationModel

Contestants = dict[str, Measure]


def training(bench: Bench, names: Iterable[str]) -> Contestants:
    """Training steps; every batch brings its prior and logits."""
    models = {
        'plain': bench.plain,
        'plain float32': partial(bench.plain, bf16=False),
        'plain bf16': partial(bench.plain, bf16=True),
        'naive': bench.naive,
        'experts': bench.finetune,
        'experts learn alone': partial(bench.finetune, 'lora'),
        'two experts': partial(bench.finetune, top_k=2),
        'dense experts': bench.finetune,
    }
    batch = bench.batch()
    steps = {name: step(models[name](), batch) for name in names}
    if 'dense experts' in steps:
        steps['dense experts'] = dense_experts()(steps['dense experts'])
    return {name: Seconds(run, bench.device) for name, run in steps.items()}


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
    """One worker's reading of pairs, cropping and turning included."""
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
        'dense fine-tuning': lambda: dense_experts()(step(with_router(bench.finetune(bf16=False)), images)),
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
