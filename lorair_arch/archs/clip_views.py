"""The views of an image that the router's CLIP encoder sees (LoRA-IR, section 3.1: CLIP at a higher resolution)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def device_views(lq: Tensor, size: int, grid: int) -> Tensor:
    """Makes the views on the device of the images.

    Args:
        lq: Images, [B, 3, H, W] in [0, 1].
        size: s, side of a view.
        grid: g, the second resolution is g s by g s, cut into g by g views.

    Returns:
        [B, 1 + g * g, 3, s, s] in [0, 1]: the whole image, then its crops row by row.
    """
    low, high = (
        F.interpolate(lq.float(), (side, side), mode='bicubic', antialias=True).clamp(0, 1)
        for side in (size, grid * size)
    )
    return _stack(low, high, grid)


def pillow_views(lq: Tensor, size: int, grid: int) -> Tensor:
    """Makes the same views with Pillow on 8-bit images, as the official release does; slow.

    Args and returns: as `device_views`.
    """
    images = [Image.fromarray(a) for a in (lq.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()]
    low, high = (
        torch.stack([_to_tensor(image.resize((side, side), Image.Resampling.BICUBIC)) for image in images])
        for side in (size, grid * size)
    )
    return _stack(low, high, grid).to(lq.device)


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)


def _stack(low: Tensor, high: Tensor, grid: int) -> Tensor:
    crops = high.unfold(2, low.shape[2], low.shape[2]).unfold(3, low.shape[3], low.shape[3])  # [B, 3, g, g, s, s]
    crops = crops.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    return torch.cat([low[:, None], crops], dim=1)
