"""From the router's logits to the experts that each image of a batch uses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorair_arch.archs.kernels.depthwise import gated_depthwise
from lorair_arch.archs.kernels.expert_linear import expert_linear


@dataclass(frozen=True)
class Routing:
    """The experts of every image of a batch that is ordered so that images of the same expert are neighbours.

    Attributes:
        experts: [B, k], indices of the experts of each image.
        gates: [B, k], their gates: softmax over the k largest logits (paper, section 3.3).
        sizes: Number of images in each group of neighbours that share their experts.
        merged: Weights of the groups, kept by each convolution that has merged them.
    """

    experts: Tensor
    gates: Tensor
    sizes: tuple[int, ...]
    merged: dict = field(default_factory=dict)

    @property
    def mixtures(self) -> list[Mixture]:
        """The experts of each group."""
        return [Mixture(self, i) for i in range(len(self.sizes))]

    @cached_property
    def of_groups(self) -> tuple[Tensor, Tensor]:
        """Experts and gates of each group, [G, k]."""
        if len(self.sizes) == len(self.experts):
            return self.experts, self.gates
        firsts = [end - size for end, size in zip(accumulate(self.sizes), self.sizes)]
        return self.experts[firsts], self.gates[firsts]


class Mixture(NamedTuple):
    """The experts that one group of images shares."""

    routing: Routing
    group: int


def route(logits: Tensor, top_k: int) -> tuple[Routing, Tensor | None]:
    """Chooses the top-k experts of each image and groups images that use the same single expert.

    Args:
        logits: [B, E].
        top_k: Experts for each image, 1 to E.

    Returns:
        The routing of the reordered batch, and the order [B] in which to take the images (None: as they are).
    """
    top, experts = logits.topk(top_k, dim=1)
    gates = top.softmax(dim=1)
    if top_k > 1:  # two images never share gates that are real numbers
        return Routing(experts, gates, (1,) * len(experts)), None
    chosen = experts.flatten().tolist()
    sizes = tuple(chosen.count(expert) for expert in sorted(set(chosen)))
    if chosen == sorted(chosen):
        return Routing(experts, gates, sizes), None
    order = torch.tensor(sorted(range(len(chosen)), key=chosen.__getitem__), device=logits.device)
    return Routing(experts[order], gates[order], sizes), order


class Conv2d(nn.Conv2d):
    """A plain convolution that takes (and ignores) the experts, so that one network code serves both."""

    def forward(self, x: Tensor, experts: None = None, gain: Tensor | None = None) -> Tensor:
        """x [B, in, H, W] -> [B, out, H', W'], times a gain of each output channel if there is one."""
        return self._conv_forward(x, *_amplify(self.weight, self.bias, gain))

    def gated(self, x: Tensor, experts: None = None) -> Tensor:
        """The depthwise 3x3 convolution and the simple gate: x [B, 2C, H, W] -> [B, C, H, W]."""
        return gated_depthwise(x, self.weight[None], self.bias, (len(x),))


def _amplify(weight: Tensor, bias: Tensor | None, gain: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Scales the outputs of a convolution through its weights: no pass over the features, nothing of them kept."""
    if gain is None:
        return weight, bias
    gain = gain.flatten()
    return weight * gain[:, None, None, None], None if bias is None else bias * gain


class ExpertConv2d(nn.Conv2d):
    """A convolution W plus E low-rank experts, of which each image uses a few.

    Expert i changes the weight by B_i A_i alpha / r, reshaped to the shape of W. Because the sum over experts is linear
    in the weights, no expert ever runs a convolution of its own: images that share their experts use one merged weight
    (`Mixture`); in a mixed batch of smaller features (`Routing`) each has a weight of its own.

    Args:
        rank: r; the factors have r * kernel_size rows.
        alpha: Scale of the experts is alpha / rank.
        num_experts: E.
        args, kwargs: As for `torch.nn.Conv2d`, with a square kernel.
    """

    def __init__(self, *args, rank: int, alpha: float, num_experts: int, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        k = self.kernel_size[0]
        self.scale = alpha / rank
        self.lora_A = nn.Parameter(torch.empty(num_experts, rank * k, self.in_channels * k))
        self.lora_B = nn.Parameter(torch.zeros(num_experts, self.out_channels // self.groups * k, rank * k))
        for factor in self.lora_A:
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5))

    def factors(self, experts: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the factors of N mixtures of k experts, stacked along the rank, the gates in A.

        Args:
            experts: [N, k].
            gates: [N, k].

        Returns:
            A, [N, k * rows, in * kernel], and B, [N, out / groups * kernel, k * rows].
        """
        a, b = (factor.index_select(0, experts.flatten()) for factor in (self.lora_A, self.lora_B))
        if experts.shape[1] == 1:  # the gate of a single expert is 1
            return a, b
        a = (a * gates.view(-1, 1, 1)).view(len(experts), -1, a.shape[2])
        return a, b.unflatten(0, experts.shape).transpose(1, 2).flatten(2)

    def merged_weights(self, routing: Routing, gain: Tensor | None = None) -> Tensor:
        """Gives W plus the experts of each group, times the gain, [G, *shape of W]."""
        a, b = self.factors(*routing.of_groups)
        weight = self.weight.reshape(b.shape[1], a.shape[2])
        if gain is not None:
            weight, b = weight * gain.view(-1, 1), b * gain.view(-1, 1)
        with torch.autocast(a.device.type, enabled=False):  # a small change of W must not be rounded away
            # B A read in the order of memory is the change of W: the reshape of the official release
            merged = torch.baddbmm(weight, b, a, alpha=self.scale)
        return merged.view(-1, *self.weight.shape)

    def forward(self, x: Tensor, experts: Mixture | Routing, gain: Tensor | None = None) -> Tensor:
        """x [B, in, H, W] -> [B, out, H', W'].

        Args:
            x: Features.
            experts: One mixture for the whole batch, or the routing of each image.
            gain: Scales the output channels of a 1x1 convolution if given, any shape with `out` elements.
        """
        if isinstance(experts, Mixture):
            weight, bias = self._merged_weight(experts, gain), self.bias
            return self._conv_forward(x, weight, bias if gain is None or bias is None else bias * gain.flatten())
        if self.kernel_size == self.stride:
            return self._linear(x, experts, gain)
        parts = zip(x.split(experts.sizes), self.merged_weights(experts))
        return torch.cat([self._conv_forward(part, weight, self.bias) for part, weight in parts])

    def _linear(self, x: Tensor, routing: Routing, gain: Tensor | None) -> Tensor:
        """The convolution, whose kernel covers the image patch by patch, as a linear map of each image."""
        a, b = self.factors(routing.experts, routing.gates)
        weight, bias = _amplify(self.weight, self.bias, gain)
        b = b if gain is None else b * gain.view(-1, 1)
        patches = x if self.stride == (1, 1) else F.pixel_unshuffle(x, self.stride[0])
        rows = patches.permute(0, 2, 3, 1).flatten(1, 2).contiguous()
        y = expert_linear(rows, weight.flatten(1), bias, a, b, self.scale)
        return y.unflatten(1, patches.shape[2:]).permute(0, 3, 1, 2)

    def gated(self, x: Tensor, experts: Mixture | Routing) -> Tensor:
        """The depthwise 3x3 convolution and the simple gate: x [B, 2C, H, W] -> [B, C, H, W]."""
        if isinstance(experts, Mixture):
            return gated_depthwise(x, self._merged_weight(experts, None)[None], self.bias, (len(x),))
        return gated_depthwise(x, self.merged_weights(experts), self.bias, experts.sizes)

    def _merged_weight(self, mixture: Mixture, gain: Tensor | None) -> Tensor:
        """Gives the merged weight of a group; those of all groups are made at once."""
        routing, group = mixture
        if self not in routing.merged:
            routing.merged[self] = self.merged_weights(routing, gain).unbind()
        return routing.merged[self][group]


def make_conv(in_channels: int, out_channels: int, kernel_size: int, lora: dict | None = None, **kwargs) -> nn.Conv2d:
    """Builds a plain convolution (`lora` None) or one with experts.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Side of the kernel.
        lora: None, or rank, alpha and num_experts.
        kwargs: As for `torch.nn.Conv2d`.
    """
    if lora is None:
        return Conv2d(in_channels, out_channels, kernel_size, **kwargs)
    return ExpertConv2d(in_channels, out_channels, kernel_size, **lora, **kwargs)


# Merged networks that inference keeps; each has the size of the plain network.
_KEPT_NETWORKS = 4


class Merging(nn.Module):
    """A network with experts that can give the plain network of each.

    Attributes:
        num_experts: E.
        plain_settings: Arguments of the network without experts.
    """

    num_experts: int | None
    plain_settings: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self._merged: dict[int, tuple[tuple, Merging]] = {}

    @torch.no_grad()
    def merge(self, expert: int) -> Merging:
        """Builds the plain network that one expert makes of this one.

        Args:
            expert: Index of the expert.

        Returns:
            A network without experts, in evaluation mode; weights that experts do not change are shared with this one.
        """
        state_dict = {key: value for key, value in self.state_dict().items() if not key.endswith(('lora_A', 'lora_B'))}
        logits = F.one_hot(torch.tensor([expert], device=next(self.parameters()).device), self.num_experts).float()
        routing, _ = route(logits, 1)
        for name, module in self.named_modules():
            if isinstance(module, ExpertConv2d):
                state_dict[f'{name}.weight'] = module.merged_weights(routing)[0]
        with torch.device('meta'):
            plain = type(self)(**self.plain_settings)
        plain.load_state_dict(state_dict, assign=True)
        return plain.eval()

    def kept(self, expert: int) -> Merging:
        """Gives the merged network of an expert, the one kept if no weight has changed since; the oldest goes first."""
        # nn.Module.parameters() looks for duplicates, which takes as long again
        params = (p for module in self.modules() for p in module._parameters.values() if p is not None)
        state = tuple((p.data_ptr(), None if p.is_inference() else p._version) for p in params)
        kept, net = self._merged.pop(expert, (None, None))
        if kept != state:
            net = self.merge(expert)
        self._merged[expert] = (state, net)
        while len(self._merged) > _KEPT_NETWORKS:
            del self._merged[next(iter(self._merged))]
        return net

    def __getstate__(self) -> dict:
        """A copy, or a pickled network, makes merged networks of its own."""
        return super().__getstate__() | {'_merged': {}}

    def train(self, mode: bool = True) -> Merging:
        """Sets the mode; training gives back the memory of the merged networks."""
        if mode:
            self._merged.clear()
        return super().train(mode)
