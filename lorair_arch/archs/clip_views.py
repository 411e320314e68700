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
        lq: Images, [B, 3, H, W] in [0, 1]; values beyond are cut off.
        size: s, side of a view.
        grid: g, the second resolution is g s by g s, cut into g by g views.

    Returns:
        [B, 1 + g * g, 3, s, s] in [0, 1]: the whole image, then its crops row by row.
    """
    on_cpu = lq.device.type == 'cpu'
    # On a CPU 8 bits are many times faster, and within two levels of what Pillow makes of the same pixels.
    images = (
        (lq.clamp(0, 1) * 255).round_().byte().contiguous(memory_format=torch.channels_last) if on_cpu else lq.float()
    )
    views = torch.empty(len(lq), 1 + grid**2, 3, size, size, device=lq.device)
    views[:, 0] = F.interpolate(images, (size, size), mode='bicubic', antialias=True)
    high = F.interpolate(images, (grid * size, grid * size), mode='bicubic', antialias=True)
    crops = high.unflatten(3, (grid, size)).unflatten(2, (grid, size))  # [B, 3, g, s, g, s]
    views[:, 1:].unflatten(1, (grid, grid)).copy_(crops.permute(0, 2, 4, 1, 3, 5))
    return views.div_(255) if on_cpu else views.clamp_(0, 1)


def pillow_views(lq: Tensor, size: int, grid: int) -> Tensor:
    """Makes the same views with Pillow on 8-bit images, as the official release does; slow.

    Args and returns: as `device_views`.
    """
    images = [Image.fromarray(a) for a in (lq.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()]
    low, high = (
        torch.stack([_to_tensor(image.resize((side, side), Image.Resampling.BICUBIC)) for image in images])
        for side in (size, grid * size)
    )
    crops = high.unfold(2, size, size).unfold(3, size, size)  # [B, 3, g, g, s, s]
    crops = crops.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    return torch.cat([low[:, None], crops], dim=1).to(lq.device)


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)
