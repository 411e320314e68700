"""Router and restorer as one graph without choices: what other runtimes, such as onnxruntime, are given.

It takes one image of any size. What the networks decide in Python by its size is computed in the graph: the views, in
the same 8 bits as on a CPU, and windows of local means. With experts, the graph makes the merged weights of the image
out of the low-rank factors, so that its file is no larger than theirs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorair_arch.archs.degradation_router_arch import window_pixels, windows
from lorair_arch.archs.experts import Routing
from lorair_arch.archs.nafblock import PoolWindow, simple_gate


class Graph(nn.Module):
    """Restores one image of any size, without a line of Python that depends on it.

    Args:
        router: A `DegradationRouter`.
        restorer: The `LoRAIR` that it guides; with experts, the router chooses them.
    """

    def __init__(self, router: nn.Module, restorer: nn.Module) -> None:
        super().__init__()
        self.router, self.restorer = router, restorer

    def forward(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """Restores an image.

        Args:
            lq: [1, 3, H, W] in [0, 1].

        Returns:
            The restored image, [1, 3, H, W] in [0, 1], and the probability of each degradation, [1, E].
        """
        net = self.restorer
        logits, prior = _classify(self.router, lq)
        experts = None
        if net.num_experts:
            top, index = logits.topk(net.top_k, dim=1)
            experts = Routing(index, top.softmax(dim=1), (1,))
        return _restore(net, lq, prior, experts).clamp(0, 1), logits.softmax(dim=1)


def _classify(router: nn.Module, lq: Tensor) -> tuple[Tensor, Tensor]:
    if router.make_views is not windows:
        return router.classify((graph_views(lq, router.size, router.grid) - router.mean) / router.std)
    axes = (window_pixels(torch.full((), side), router.size, router.grid) for side in lq.shape[2:])
    (rows, of_rows), (columns, of_columns) = axes
    views = lq[0].index_select(1, rows.flatten()).index_select(2, columns.flatten())  # [3, g s, g s]
    views = views.unflatten(2, columns.shape).unflatten(1, rows.shape).permute(1, 3, 0, 2, 4).flatten(0, 1)
    embedding = router.clip((views.clamp(0, 1) - router.mean) / router.std)
    # As many views for every size: those that a small image needs not have no weight.
    mean = (of_rows[:, None] * of_columns).flatten()[None] @ embedding
    return router.classify_embeddings(mean, mean)


def _restore(net: nn.Module, lq: Tensor, prior: Tensor, experts: Routing | None) -> Tensor:
    """Does what `LoRAIR` does without its kernels, which look at sizes: no numbers while a graph is traced."""
    height, width = lq.shape[-2:]
    image = F.pad(lq, (0, -width % net.multiple, 0, -height % net.multiple))
    prior = net.prior_mlp(prior, experts)
    x, skips = net.intro(image, experts), []
    for encoder, down in zip(net.encoders, net.downs):
        x = _blocks(encoder, _modulation(encoder.modulation, x, prior, experts), experts)
        skips.append(x)
        x = down(x, experts)
    x = _blocks(net.middle, _modulation(net.middle.modulation, x, prior, experts), experts)
    for up, decoder in zip(net.ups, net.decoders):
        x = _blocks(decoder, skips.pop() + F.pixel_shuffle(up(x, experts), 2), experts)
    restored = net.ending(x, experts) + image
    # Not cut by a slice: whether that is contiguous depends on the size, and torch.export would allow no other.
    return restored.index_select(2, torch.arange(height)).index_select(3, torch.arange(width))


def _modulation(m: nn.Module, x: Tensor, prior: Tensor, experts: Routing | None) -> Tensor:
    h = m.conv2(F.gelu(m.conv1(prior, experts)), experts)
    scale = m.conv4(F.relu(m.conv3(h, experts)), experts).sigmoid()
    return x + m.norm(x) * (scale * m.beta)


def _blocks(stage: nn.Module, x: Tensor, experts: Routing | None) -> Tensor:
    for m in stage.blocks:
        y = simple_gate(m.conv2(m.conv1(m.norm1(x), experts), experts))
        x = x + m.conv3(y * m.sca(_mean(m.mean.window, y), experts), experts, m.beta)
        x = x + m.conv5(simple_gate(m.conv4(m.norm2(x), experts)), experts, m.gamma)
    return x


def _mean(window: PoolWindow, x: Tensor) -> Tensor:
    """The mean over space, or over windows, spread over all pixels (see `local_mean`): the same operations always."""
    if window.train_size is None:
        return x.mean((2, 3), keepdim=True)
    for dim, train in zip((2, 3), window.train_size):
        length = x.shape[dim]
        side = torch.full((), length).clamp(max=window._side(train))
        # The window around each pixel; where it does not fit, the nearest that does.
        first = torch.minimum((torch.arange(length) - (side - 1) // 2).clamp(min=0), length - side)
        sums = F.pad(x.cumsum(dim), (1, 0) if dim == 3 else (0, 0, 1, 0))
        x = (sums.index_select(dim, first + side) - sums.index_select(dim, first)) / side
    return x


def graph_views(lq: Tensor, size: int, grid: int) -> Tensor:
    """Makes the views that `device_views` makes on a CPU, bit for bit, as matrix products.

    Runtimes resize in floats, if they know the filter at all; PyTorch rounds weights and rows to integers.

    Args:
        lq: One image, [1, 3, H, W] in [0, 1].
        size, grid, returns: As of `device_views`.
    """
    levels = (lq.clamp(0, 1) * 255).round().double()  # which hold sums of 8 times 15 bits exactly
    low, high = (_resized(_resized(levels, side).mT, side).mT for side in (size, grid * size))
    crops = high.unflatten(3, (grid, size)).unflatten(2, (grid, size))  # [1, 3, g, s, g, s]
    crops = crops.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    return torch.cat([low[:, None], crops], dim=1).float() / 255


def _resized(levels: Tensor, size: int) -> Tensor:
    """Resizes the last axis of levels, 0 to 255."""
    weights, unit = _bicubic(levels.shape[-1], size)
    return ((levels @ weights + unit / 2) / unit).floor().clamp(0, 255)


def _bicubic(length: int, size: int) -> tuple[Tensor, Tensor]:
    """Gives the weights by which PyTorch resizes 8 bits with antialiasing, integers [length, size], and their unit."""
    real = {'dtype': torch.float64}
    scale = torch.full((), length, **real) / size  # pixels for each of the result
    wide = scale.clamp(min=1)
    centers = scale * (torch.arange(size, **real) + 0.5)
    first, stop = ((centers + side * 2 * wide + 0.5).trunc() for side in (-1, 1))
    pixels = torch.arange(length, **real)[:, None]
    x = ((pixels - centers + 0.5) / wide).abs()
    # Keys' cubic with a = -0.5.
    curve = torch.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)
    weights = torch.where((x < 2) & (pixels >= first) & (pixels < stop), curve, 0)
    weights = weights / weights.sum(0)
    # As many bits as the largest weight leaves of 16, with a sign.
    units = 2.0 ** torch.arange(1, 23, **real)
    unit = 2.0 ** ((weights.max() * units + 0.5).trunc() < 2**15).sum().double()
    return (weights * unit + weights.sign() / 2).trunc(), unit
