"""Lets programs that load models by spandrel load ours: the single file of router, restorer and experts."""

from __future__ import annotations

import spandrel
from torch import Tensor, nn

from lorair_arch.errors import CheckpointError
from lorair_arch.weights.bundle import is_bundle
from lorair_arch.weights.loading import describe, kind_of
from lorair_arch.weights.pretrained import load, weights_of


class Guided(nn.Module):
    """A restorer that asks its router: one network that takes images alone, as programs know them.

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


class LoRAIRArch(spandrel.Architecture[Guided]):
    """The architecture `LoRA-IR` of spandrel's registry."""

    def __init__(self) -> None:
        # Also what is ours and no whole: to say what is missing.
        super().__init__(id='LoRA-IR', detect=lambda state_dict: is_bundle(state_dict) or bool(kind_of(state_dict)))

    def load(self, state_dict: dict[str, Tensor]) -> spandrel.ImageModelDescriptor[Guided]:
        """Builds the network that a state dict describes.

        Raises:
            spandrel.UnsupportedModelError: It is a part of a model, or cannot be built.
        """
        if not is_bundle(state_dict):
            raise spandrel.UnsupportedModelError(
                f'This is {describe(state_dict)}, a part of LoRA-IR: make one file of router, restorer and experts by '
                '`lorair convert ROUTER RESTORER EXPERTS model.safetensors`'
            )
        try:
            router, restorer = (load(weights) for weights in weights_of(state_dict, 'the file'))
        except CheckpointError as error:
            raise spandrel.UnsupportedModelError(f'LoRA-IR: {error}') from error
        model = Guided(router, restorer)
        return spandrel.ImageModelDescriptor(
            model,
            model.state_dict(),
            architecture=self,
            purpose='Restoration',
            tags=[f'{restorer.num_experts} experts' if restorer.num_experts else 'no experts'],
            supports_half=False,  # the views that the router looks at are float32
            supports_bfloat16=False,
            scale=1,
            input_channels=3,
            output_channels=3,
            tiling=spandrel.ModelTiling.DISCOURAGED,  # router and means look at the whole image
        )


def register() -> None:
    """Adds the architecture to spandrel's main registry; more than once does no harm."""
    spandrel.MAIN_REGISTRY.add(spandrel.ArchSupport.from_architecture(LoRAIRArch()), ignore_duplicates=True)
