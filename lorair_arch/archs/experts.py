"""The mixture of low-rank experts (LoRA-IR, section 3.3): which experts an image uses, what they do, how they merge.

    logits [B, E]                             of the router
       |    the k largest, softmax over them  `route`: once for all layers of the network
    index [B, k], gates g [B, k]

    x [B, in, H, W]                           `ExpertConv2d`: a convolution with the weight
       |    W                                 [out, in, k, k], of the pre-trained network
       |    + sum of g_i * alpha / r * B_i A_i  over the experts i of the image:
       |        A_i [r k, in k], B_i [out k, r k]; their product [out k, in k], read in the order of memory, is a change
       |        of W
    y [B, out, H', W']

The sum is linear in the weights, so no expert runs a convolution of its own: the images that share their experts, an
expert group, share one merged weight. A network all of whose weights are merged is a plain one, the merged network of
the group (`Merging`); inference runs nothing else.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from lorair_arch.archs import kernels
from lorair_arch.archs.kernels.grouping import expert_linear


@dataclass(frozen=True)
class ExpertSettings:
    """The experts of a network.

    Attributes:
        rank: r of a 1x1 convolution; the factors of a k x k one have r * k rows.
        num_experts: E.
        alpha: Experts are scaled by alpha / r; None: 2 * rank.
        top_k: Experts of each image, 1 to E.
    """

    rank: int
    num_experts: int
    alpha: float | None = None
    top_k: int = 1

    @property
    def scale(self) -> float:
        """alpha / r."""
        return (self.alpha or 2 * self.rank) / self.rank  # 2 * rank is all that the official release knows


@dataclass(frozen=True)
class Routing:
    """The experts of each image of a batch in which the images of an expert group are neighbours.

    Attributes:
        index: [B, k], the experts of each image.
        gates: [B, k], softmax over the k largest logits.
        sizes: Number of images of each expert group.
        part_of: Of one expert group: the routing of the whole batch, and the number of the group.
        merged: The merged weights of all groups, for each convolution that has made them.
    """

    index: Tensor
    gates: Tensor
    sizes: tuple[int, ...]
    part_of: tuple[Routing, int] | None = None
    # Kept here, not in the convolution: a routing lives for one pass, and the next step has other weights.
    merged: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def groups(self) -> list[Routing]:
        """The routing of each expert group."""
        parts = zip(self.index.split(self.sizes), self.gates.split(self.sizes), self.sizes)
        return [Routing(index, gates, (size,), (self, i)) for i, (index, gates, size) in enumerate(parts)]

    @cached_property
    def of_groups(self) -> tuple[Tensor, Tensor]:
        """Experts and gates of each group, [G, k]."""
        firsts = [end - size for end, size in zip(accumulate(self.sizes), self.sizes)]
        return self.index[firsts], self.gates[firsts]


def route(logits: Tensor, top_k: int) -> tuple[Routing, Tensor]:
    """Chooses the experts of each image, and an order in which the images of an expert group are neighbours.

    Args:
        logits: [B, E].
        top_k: Experts of each image, 1 to E.

    Returns:
        The routing of the batch in that order, and the order: indices of its images, [B].
    """
    top, index = logits.topk(top_k, dim=1)
    chosen = list(range(len(index)))  # two images never share gates that are real numbers
    if top_k == 1:
        chosen = index.flatten().tolist()  # waits for the device, once: `split` needs numbers of Python
    sizes = tuple(chosen.count(group) for group in sorted(set(chosen)))
    # Neighbours, so that every layer gets the images of a group by `split`: views, no copies.
    order = torch.tensor(sorted(range(len(chosen)), key=chosen.__getitem__), device=logits.device)
    return Routing(index[order], top.softmax(dim=1)[order], sizes), order


class Conv2d(nn.Conv2d):
    """A plain convolution that takes (and ignores) the experts, so that one network code serves both."""

    def forward(self, x: Tensor, experts: None = None, layer_scale: Tensor | None = None) -> Tensor:
        """x [B, in, H, W] -> [B, out, H', W'], times the layer scale, [1, out, 1, 1], if there is one."""
        if layer_scale is not None and not kernels.enabled('layer_scale'):
            return self(x) * layer_scale
        # The inner half of PyTorch's convolution, which takes other weights than the module's own.
        return self._conv_forward(x, _scaled(self.weight, layer_scale, 3), _scaled(self.bias, layer_scale))


def _scaled(values: Tensor | None, layer_scale: Tensor | None, dims: int = 0) -> Tensor | None:
    """Scales weights, which have so many dimensions after that of the outputs, in place of the features.

    No pass over the features, and none is kept for the gradient: otherwise a step that trains the experts alone takes
    1.08 times as long, restoring one image with the plain network 1.0 to 1.14 times. With experts merged in
    inference it costs nothing to speak of.
    """
    if layer_scale is None or values is None:
        return values
    return values * layer_scale.view(-1, *[1] * dims)


class ExpertConv2d(nn.Conv2d):
    """A convolution W plus E low-rank experts, of which each image uses a few.

    Args:
        settings: Of the experts.
        args, kwargs: As for `torch.nn.Conv2d`, with a square kernel.
    """

    def __init__(self, *args, settings: ExpertSettings, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        k, num = self.kernel_size[0], settings.num_experts
        # As loralib lays out a convolution, and the files of the release: the rank grows with the side of the kernel.
        rows = settings.rank * k
        self.scale = settings.scale
        self.lora_A = nn.Parameter(torch.empty(num, rows, self.in_channels * k))
        # Zeros: fine-tuning starts from exactly what the pre-trained network restores.
        self.lora_B = nn.Parameter(torch.zeros(num, self.out_channels // self.groups * k, rows))
        # Each on its own: of [E, rows, in * k] PyTorch would take rows * in * k inputs, and start too small.
        for factor in self.lora_A:
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5))

    def forward(self, x: Tensor, experts: Routing, layer_scale: Tensor | None = None) -> Tensor:
        """x [B, in, H, W] -> [B, out, H', W'].

        Args:
            x, experts: Features, and the experts of each image.
            layer_scale: Scales the output channels of a 1x1 convolution if given, [1, out, 1, 1].
        """
        if layer_scale is not None and not kernels.enabled('layer_scale'):
            return self(x, experts) * layer_scale
        bias = _scaled(self.bias, layer_scale)
        # Patches that do not overlap: a matrix product. The images of a single group share one merged weight.
        if len(experts.sizes) > 1 and self.kernel_size == self.stride and kernels.enabled('expert_linear'):
            a, b = self.factors(experts.index, experts.gates)
            weight, b = _scaled(self.weight, layer_scale, 3), _scaled(b, layer_scale, 1)
            return expert_linear(x, weight, bias, a, b, self.scale, self.stride[0])
        weights = (
            self.merged_weights(experts, layer_scale) if experts.part_of is None else self._of_one(experts, layer_scale)
        )
        parts = x.split(experts.sizes) if len(experts.sizes) > 1 else (x,)  # a copy where a graph is exported
        parts = [self._conv_forward(part, weight, bias) for part, weight in zip(parts, weights)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def factors(self, index: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the factors of N mixtures of k experts, stacked along the rank, with the gates in A.

        Args:
            index, gates: [N, k].

        Returns:
            A, [N, k * rows, in * kernel], and B, [N, out / groups * kernel, k * rows].
        """
        # Its gradient has every expert, zeros where no image uses it: DistributedDataParallel waits for all of them.
        a, b = (factor.index_select(0, index.flatten()) for factor in (self.lora_A, self.lora_B))
        if index.shape[1] == 1:  # the gate of a single expert is 1
            return a, b
        a = (a * gates.view(-1, 1, 1)).view(len(index), -1, a.shape[2])
        return a, b.unflatten(0, index.shape).transpose(1, 2).flatten(2)

    def _of_one(self, group: Routing, layer_scale: Tensor | None) -> tuple[Tensor, ...]:
        """Gives the merged weight of one expert group; those of all groups are made at once."""
        whole, number = group.part_of
        if self not in whole.merged:
            whole.merged[self] = self.merged_weights(whole, layer_scale).unbind()
        return whole.merged[self][number : number + 1]

    def merged_weights(self, experts: Routing, layer_scale: Tensor | None = None) -> Tensor:
        """Gives W plus the experts of each group, times the layer scale, [G, *shape of W]."""
        a, b = self.factors(*experts.of_groups)
        weight = _scaled(self.weight, layer_scale, 3).reshape(b.shape[1], a.shape[2])
        b = _scaled(b, layer_scale, 1)
        autocast = torch.is_autocast_enabled(a.device.type)  # in an exported graph there would be a trace of it
        with torch.autocast(a.device.type, enabled=False) if autocast else contextlib.nullcontext():
            merged = torch.baddbmm(weight, b, a, alpha=self.scale)  # a small change of W must not be rounded away
        return merged.view(-1, *self.weight.shape)


def make_conv(
    in_channels: int, out_channels: int, kernel_size: int, lora: ExpertSettings | None = None, **kwargs
) -> nn.Conv2d:
    """Builds a plain convolution (`lora` None) or one with experts; `kwargs` as for `torch.nn.Conv2d`."""
    if lora is None:
        return Conv2d(in_channels, out_channels, kernel_size, **kwargs)
    return ExpertConv2d(in_channels, out_channels, kernel_size, settings=lora, **kwargs)


# Merged networks that inference keeps, each of the size of the plain network. Without any, restoring a crop of 128
# pixels takes 1.25 times as long; to make one takes as long as two thirds of restoring it.
_KEPT_NETWORKS = 4


class Merging(nn.Module):
    """A network with experts, in whose place inference runs merged networks.

    Attributes:
        num_experts: E, or None in a plain network.
        top_k: Experts of each image.
        plain_settings: Arguments of the network without experts.
    """

    num_experts: int | None
    top_k: int | None
    plain_settings: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self._merged: dict[int, tuple[tuple, Merging]] = {}

    def merge(self, experts: int | Sequence[float]) -> Merging:
        """Gives the plain network, in evaluation mode, that one expert, or a mixture, makes of this one.

        Args:
            experts: The number of an expert, or the weights of all, [E], of which the gates are the proportions.

        Returns:
            The network; weights that experts do not change are shared with this one.
        """
        if isinstance(experts, int):
            experts = [float(i == experts) for i in range(self.num_experts)]
        weights = torch.tensor([experts], device=next(self.parameters()).device)
        # softmax(log w) is w / sum(w), however many experts an image may use otherwise
        return self._merge(route(weights.log(), int(weights.count_nonzero()))[0])

    def merges(self) -> bool:
        """Tells whether merged networks run in place of this one: weights stay as they are, and need no gradients."""
        inference = not (self.training or torch.is_grad_enabled())
        return self.num_experts is not None and inference and kernels.enabled('merging')

    def runner(self, logits: Tensor | None) -> Merging:
        """Gives the network that runs a batch: the merged one of the experts that its images share, or this one."""
        experts = route(logits, self.top_k)[0] if self.merges() else None
        return self._kept(experts) if experts and len(experts.sizes) == 1 else self

    def run_merged(self, lq: Tensor, prior: Tensor, experts: Routing) -> Tensor:
        """Runs the merged network of each expert group; the batch is in the order of the routing."""
        parts = zip(experts.groups, lq.split(experts.sizes), prior.split(experts.sizes))
        return torch.cat([self._kept(group)(*images) for group, *images in parts])

    @torch.no_grad()
    def _merge(self, group: Routing) -> Merging:
        state_dict = {key: value for key, value in self.state_dict().items() if not key.endswith(('lora_A', 'lora_B'))}
        for name, module in self.named_modules():
            if isinstance(module, ExpertConv2d):
                state_dict[f'{name}.weight'] = module.merged_weights(group)[0]
        # Nothing is initialised only to be replaced; `assign` then shares what the experts leave as it is.
        with torch.device('meta'):
            plain = type(self)(**self.plain_settings)
        plain.load_state_dict(state_dict, assign=True)
        return plain.eval()

    def _kept(self, group: Routing) -> Merging:
        """Gives a merged network, of a single expert the one kept if no weight has changed since."""
        if self.top_k > 1:  # no other image has these gates
            return self._merge(group)
        expert = group.index[0].item()
        # nn.Module.parameters() looks for duplicates, which takes as long again
        params = (p for module in self.modules() for p in module._parameters.values() if p is not None)
        # Changes in place count in the version, other memory in the address; tensors of inference mode count nothing.
        state = tuple((p.data_ptr(), None if p.is_inference() else p._version) for p in params)
        kept, net = self._merged.pop(expert, (None, None))  # put back below: a dict keeps the order of use
        self._merged[expert] = (state, net if kept == state else self._merge(group))
        while len(self._merged) > _KEPT_NETWORKS:  # the one not used for the longest time
            del self._merged[next(iter(self._merged))]
        return self._merged[expert][1]

    def __getstate__(self) -> dict:
        """A copy, or a pickled network, makes merged networks of its own."""
        return super().__getstate__() | {'_merged': {}}

    def train(self, mode: bool = True) -> Merging:
        """Sets the mode; training gives back the memory of the merged networks."""
        if mode:
            self._merged.clear()
        return super().train(mode)
