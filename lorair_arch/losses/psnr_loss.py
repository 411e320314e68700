"""Loss of the second and third stage: the negative PSNR."""

from __future__ import annotations

import math

from torch import Tensor, nn


class PSNRLoss(nn.Module):
    """Negative PSNR in dB, averaged over the images of a batch; negative values are normal.

    10 / ln(10) * mean over the batch of ln(MSE_i + 1e-8), as NAFNet (arXiv 2204.04676) and LoRA-IR train it.

    Args:
        loss_weight: Factor of the loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compares restored images with their ground truth.

        Args:
            pred, target: [B, C, H, W], in [0, 1].

        Returns:
            A scalar, at least -80 * loss_weight (the floor of 1e-8).

        Raises:
            ValueError: The shapes differ (broadcasting would hide a mistake).
        """
        if pred.shape != target.shape:
            raise ValueError(f'PSNRLoss needs two equal shapes, got {tuple(pred.shape)} and {tuple(target.shape)}')
        # float32 also under bf16 autocast: a mean of squares does not survive 8 bits of mantissa
        mse = (pred.float() - target.float()).square().mean(dim=(1, 2, 3))
        # 1e-8 keeps the gradient finite where an image is perfect.
        return self.loss_weight * 10 / math.log(10) * (mse + 1e-8).log().mean()
