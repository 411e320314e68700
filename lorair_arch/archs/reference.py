"""LoRA-IR (arXiv 2410.15385) as its formulas are written: slow and obvious, no line for speed or memory.

The page to start from; the oracle of the tests and the baseline of the benchmark. Each function computes what a module
of `lorair_arch.py`, `nafblock.py`, `experts.py` or `degradation_router_arch.py` does, with the weights of that module.
Features are [B, c, H, W]; P is the size of the prior, E the number of experts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def classify(router: nn.Module, lq: Tensor) -> tuple[Tensor, Tensor]:
    """Section 3.1: logits [B, E] and prior [B, P] of images [B, 3, H, W], by a `DegradationRouter`."""
    s, g = router.size, router.grid
    # Bicubic interpolation overshoots at edges; CLIP was trained on images in [0, 1].
    low, high = (F.interpolate(lq, (n, n), mode='bicubic', antialias=True).clamp(0, 1) for n in (s, g * s))
    crops = [high[:, :, i * s : i * s + s, j * s : j * s + s] for i in range(g) for j in range(g)]
    low, *high = (router.clip((view - router.mean) / router.std) for view in (low, *crops))
    prior = router.prior_mlp(torch.cat([low, sum(high) / len(high)], dim=1))
    return router.head(prior), prior


def restore(net: nn.Module, lq: Tensor, prior: Tensor, logits: Tensor | None = None) -> Tensor:
    """Section 3.2: images [B, 3, H, W] in [0, 1], prior [B, P], logits [B, E] -> restored images, by a `LoRAIR`."""
    height, width = lq.shape[-2:]
    gates = gates_of(logits, net.top_k) if net.num_experts else None  # the same in every layer
    # Each level halves the size: zeros make it divisible, and are cut off at the end.
    image = F.pad(lq, (0, -width % net.multiple, 0, -height % net.multiple))
    first, _, second, _ = net.prior_mlp
    # A prior is an image of one pixel: its layers are 1x1 convolutions, and so have experts.
    prior = F.gelu(conv(second, F.gelu(conv(first, prior[:, :, None, None], gates)), gates))
    x, skips = conv(net.intro, image, gates), []
    for encoder, down in zip(net.encoders, net.downs):
        x = blocks(encoder, modulation(encoder.modulation, x, prior, gates), gates)
        skips.append(x)
        x = conv(down, x, gates)
    x = blocks(net.middle, modulation(net.middle.modulation, x, prior, gates), gates)
    for up, decoder in zip(net.ups, net.decoders):
        x = blocks(decoder, F.pixel_shuffle(conv(up, x, gates), 2) + skips.pop(), gates)
    return (conv(net.ending, x, gates) + image)[..., :height, :width]


def gates_of(logits: Tensor, top_k: int) -> Tensor:
    """Section 3.3: logits [B, E] -> gates [B, E], softmax over the k largest, 0 elsewhere."""
    top, index = logits.topk(top_k, dim=1)
    # Softmax of the chosen alone, so that the gates sum to 1: a single expert works in full.
    return torch.zeros_like(logits).scatter(1, index, top.softmax(dim=1))


def conv(m: nn.Conv2d, x: Tensor, gates: Tensor | None) -> Tensor:
    """conv(x; W, bias) + sum over all experts i of g_i conv(x; B_i A_i alpha / r)."""
    y = F.conv2d(x, m.weight, m.bias, m.stride, m.padding, groups=m.groups)
    if gates is not None:
        for gate, a, b in zip(gates.unbind(dim=1), m.lora_A, m.lora_B):
            # [out k, in k], read in the order of memory: so the release lays out its factors.
            change = (b @ a).reshape(m.weight.shape) * m.scale
            y = y + gate.view(-1, 1, 1, 1) * F.conv2d(x, change, None, m.stride, m.padding, groups=m.groups)
    return y


def modulation(m: nn.Module, x: Tensor, prior: Tensor, gates: Tensor | None) -> Tensor:
    """What the prior [B, P, 1, 1] says of the degradation scales the normalised channels."""
    h = conv(m.conv2, F.gelu(conv(m.conv1, prior, gates)), gates)
    scale = conv(m.conv4, F.relu(conv(m.conv3, h, gates)), gates).sigmoid()
    return x + layer_norm(m.norm, x) * scale * m.beta


def blocks(stage: nn.Module, x: Tensor, gates: Tensor | None) -> Tensor:
    """NAFNet's blocks (arXiv 2204.04676) of one level."""
    for m in stage.blocks:
        y = simple_gate(conv(m.conv2, conv(m.conv1, layer_norm(m.norm1, x), gates), gates))
        y = y * conv(m.sca, spatial_mean(m.mean, y), gates)
        x = x + conv(m.conv3, y, gates) * m.beta
        y = simple_gate(conv(m.conv4, layer_norm(m.norm2, x), gates))
        x = x + conv(m.conv5, y, gates) * m.gamma
    return x


def layer_norm(m: nn.Module, x: Tensor) -> Tensor:
    """Normalises over the channels."""
    x = x - x.mean(1, keepdim=True)
    x = x / (x.square().mean(1, keepdim=True) + m.eps).sqrt()
    return x * m.weight.view(1, -1, 1, 1) + m.bias.view(1, -1, 1, 1)


def simple_gate(x: Tensor) -> Tensor:
    """[B, 2 c, H, W] -> [B, c, H, W]."""
    a, b = x.chunk(2, dim=1)
    return a * b


def spatial_mean(m: nn.Module, x: Tensor) -> Tensor:
    """The mean over all pixels; at test time, if crops were given, over a window around each pixel (TLC)."""
    if m.training or m.window.train_size is None:
        return x.mean((2, 3), keepdim=True)
    # 1.5 times the crop, in pixels of these features: a crop is padded by the network as well.
    window = [
        min(int(1.5 * crop) * (-(-crop // m.window.multiple) * m.window.multiple // m.window.stride) // crop, size)
        for crop, size in zip(m.window.train_size, x.shape[2:])
    ]
    left_over = [side - 1 for side in window]  # positions at which the window does not fit, half of them on either side
    before = [n // 2 for n in left_over]
    (top, left), (bottom, right) = before, [n - half for n, half in zip(left_over, before)]
    return F.pad(F.avg_pool2d(x, window, stride=1), (left, right, top, bottom), mode='replicate')
