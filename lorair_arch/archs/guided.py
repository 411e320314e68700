"""Router and restorer as one network that takes images alone."""

from __future__ import annotations

from torch import Tensor, nn


class Guided(nn.Module):
    """A restorer that asks its router: what programs run that know nothing of priors.

    Args:
        router: A `DegradationRouter`.
        restorer: A `LoRAIR` that it guides.
    """

    def __init__(self, router: nn.Module, restorer: nn.Module) -> None:
        super().__init__()
        self.router, self.restorer = router, restorer

    def forward(self, lq: Tensor) -> Tensor:
        """Restores images, [B, 3, H, W] in [0, 1]; the result is not clipped."""
        logits, prior = self.router(lq)
        return self.restorer(lq, prior, logits)
