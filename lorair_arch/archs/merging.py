"""Networks in which the weights of an expert are merged, made once and kept for inference."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lorair_arch.archs.expert_conv import ExpertConv2d
from lorair_arch.archs.routing import route

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
