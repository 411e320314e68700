"""The degradation router: what a frozen CLIP encoder knows of how an image is degraded (LoRA-IR, section 3.1)."""

from __future__ import annotations

import pickle

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from lorair_arch.archs.settings import ROUTER, build_encoder
from lorair_arch.errors import CheckpointError, unsafe_pickle
from lorair_arch.schema import checks_options


def device_views(lq: Tensor, size: int, grid: int) -> Tensor:
    """Makes the views on the device of the images.

    Args:
        lq: Images, [B, 3, H, W] in [0, 1], values beyond are cut off; or uint8.
        size: s, side of a view.
        grid: g, the second resolution is g s by g s, cut into g by g views.

    Returns:
        [B, 1 + g * g, 3, s, s] in [0, 1]: the whole image, then its crops row by row.
    """
    on_cpu = lq.device.type == 'cpu'
    # On a CPU 8 bits are many times faster, and within two levels of what Pillow makes of the same pixels.
    images = _bytes(lq).contiguous(memory_format=torch.channels_last) if on_cpu else lq.float()
    views = torch.empty(len(lq), 1 + grid**2, 3, size, size, device=lq.device)
    views[:, 0] = F.interpolate(images, (size, size), mode='bicubic', antialias=True)
    high = F.interpolate(images, (grid * size, grid * size), mode='bicubic', antialias=True)
    crops = high.unflatten(3, (grid, size)).unflatten(2, (grid, size))  # [B, 3, g, s, g, s]
    views[:, 1:].unflatten(1, (grid, grid)).copy_(crops.permute(0, 2, 4, 1, 3, 5))
    # Bicubic interpolation overshoots at edges; 8 bits saturate by themselves.
    return views.div_(255) if on_cpu else views.clamp_(0, 1)


def pillow_views(lq: Tensor, size: int, grid: int) -> Tensor:
    """Makes the same views with Pillow on 8-bit images, as the official release does; slow.

    Args and returns: as `device_views`.
    """
    images = [Image.fromarray(np.ascontiguousarray(a)) for a in _bytes(lq).permute(0, 2, 3, 1).cpu().numpy()]
    low, high = (
        torch.stack([_to_tensor(image.resize((side, side), Image.Resampling.BICUBIC)) for image in images])
        for side in (size, grid * size)
    )
    crops = high.unfold(2, size, size).unfold(3, size, size)  # [B, 3, g, g, s, s]
    crops = crops.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    return torch.cat([low[:, None], crops], dim=1).to(lq.device)


def _bytes(lq: Tensor) -> Tensor:
    return lq if lq.dtype == torch.uint8 else (lq.clamp(0, 1) * 255).round_().byte()


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)


def windows(lq: Tensor, size: int, grid: int) -> Tensor:
    """Cuts views of the images as they are, spread evenly: what blur, noise and JPEG did to single pixels is in them.

    Args:
        lq: As `device_views`; smaller images are extended by mirroring them.
        size: s, side of a view.
        grid: g, at most so many along each axis; along one of n pixels no more than n / s, rounded up.

    Returns:
        [B, V, 3, s, s] in [0, 1]; crops of s pixels are a single view, so that training costs no more.
    """
    axes = (window_pixels(torch.tensor(side), size, grid) for side in lq.shape[2:])
    rows, columns = (pixels[weights > 0] for pixels, weights in axes)
    views = lq[..., rows[:, None, :, None], columns[:, None]].permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    return views.float().div_(255) if lq.dtype == torch.uint8 else views.float().clamp(0, 1)


def window_pixels(side: Tensor, size: int, grid: int) -> tuple[Tensor, Tensor]:
    """Says along one axis which pixels the windows show, in operations that can be traced whatever the side.

    Args:
        side: Pixels of the image, an integer without axes.
        size: s.
        grid: g.

    Returns:
        The pixels of g windows [g, s], and the weight of each window [g]: those that a small image needs not have 0.
    """
    count = ((side + size - 1) // size).clamp(max=grid)
    step = (side - size).clamp(min=0).double() / (count - 1).clamp(min=1)
    pixels = (torch.arange(grid) * step).round().long()[:, None] + torch.arange(size)
    period = (2 * side - 2).clamp(min=1)
    pixels = pixels % period
    return torch.minimum(pixels, period - pixels), (torch.arange(grid) < count) / count


_VIEWS = {'device': device_views, 'pillow': pillow_views, 'windows': windows}


class DegradationRouter(nn.Module):
    """Classifies the degradation of an image and gives the prior that guides the restorer.

    CLIP sees the image at two resolutions: whole, and as g by g crops of a g times larger one. A small MLP turns the
    two embeddings into the prior; its last layer gives the logits that choose the experts.

    Args:
        clip_model: Name of an open_clip model, or a small model of one's own: a dict with `embed_dim`, `vision_cfg` (as
            in open_clip's configurations) and, if wanted, `quick_gelu`.
        num_degradations: E, the number of classes.
        pretrained: Weights of CLIP: a tag of open_clip (downloaded once) or a local file. None: random weights, to be
            trained or loaded.
        clip_grid: g.
        freeze_clip: Keep CLIP as it is, in evaluation mode and without gradients.
        views: 'device' resizes on the device of the images; 'pillow' with Pillow on the CPU, bit-equal to the official
            release from Pillow 13 on; 'windows' resizes nothing: up to g by g views of the image as it is, of which the
            mean stands for both resolutions. The prior of a crop and of a whole image then mean the same.

    Raises:
        OptionsError: With everything that is wrong with the arguments.
        CheckpointError: CLIP's weights cannot be read, or not be downloaded.
    """

    OPTIONS = ROUTER

    @checks_options(OPTIONS)
    def __init__(
        self,
        clip_model: str | dict,
        num_degradations: int,
        pretrained: str | None = None,
        clip_grid: int = 2,
        freeze_clip: bool = True,
        views: str = 'device',
    ) -> None:
        super().__init__()
        self.clip = build_clip(clip_model, pretrained)
        size = self.clip.image_size
        self.size = size[0] if isinstance(size, tuple) else size
        self.grid, self.freeze_clip, self.make_views = clip_grid, freeze_clip, _VIEWS[views]
        self.clip.requires_grad_(not freeze_clip)
        dim = self.clip.output_dim
        self.prior_dim = dim // 2
        self.prior_mlp = nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU(), nn.Linear(dim, self.prior_dim), nn.GELU())
        self.head = nn.Linear(self.prior_dim, num_degradations)
        for name in ('mean', 'std'):
            # Constants: not among the weights, where official files have none either.
            value = torch.tensor(getattr(open_clip, f'OPENAI_DATASET_{name.upper()}')).view(3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def train(self, mode: bool = True) -> DegradationRouter:
        """Sets the mode; a frozen CLIP stays in evaluation mode."""
        # `train()` reaches into all modules: an encoder that drops patches would give other embeddings each time.
        super().train(mode)
        if self.freeze_clip:
            self.clip.eval()
        return self

    def views(self, lq: Tensor) -> Tensor:
        """Gives what CLIP sees of lq [B, 3, H, W]: [B, 1 + g * g, 3, s, s], normalised."""
        return self.make_views(lq, self.size, self.grid).sub_(self.mean).div_(self.std)

    def forward(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images.

        Args:
            lq: [B, 3, H, W] in [0, 1] or, on a CPU, uint8; any size, the aspect is ignored. Or what `views` makes of
                images.

        Returns:
            Logits [B, E] and prior [B, P].
        """
        return self.classify(lq if lq.dim() == 5 else self.views(lq))

    def classify(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Gives logits [B, E] and prior [B, P] of views [B, 1 + g * g, 3, s, s]; see `views`."""
        whole = self.make_views is not windows
        if whole and self.grid == 1:
            views = views[:, 1:]  # both show the whole image: once is enough
        # No gradients through a frozen CLIP: what its layers compute of five views need not be kept.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_clip):
            embedding = self.clip(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        # As they are projected: CLIP scales them to length 1 only to compare them with texts.
        high = embedding[:, -(self.grid**2) :].mean(dim=1)
        return self.classify_embeddings(embedding[:, 0] if whole else high, high)

    def classify_embeddings(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Gives logits [B, E] and prior [B, P] of CLIP's embeddings [B, D] at both resolutions."""
        prior = self.prior_mlp(torch.cat([low, high], dim=1))
        return self.head(prior), prior


def build_clip(clip_model: str | dict, pretrained: str | None = None) -> nn.Module:
    """Builds the image encoder of a CLIP; the text encoder is never kept."""
    if pretrained is not None:
        return _load_clip(clip_model, pretrained)
    return build_encoder(clip_model if isinstance(clip_model, dict) else open_clip.get_model_config(clip_model))


def _load_clip(name: str, pretrained: str) -> nn.Module:
    try:
        return open_clip.create_model(name, pretrained=pretrained).visual
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        # Empty for a local file: then the file is to blame, else the network.
        source = open_clip.get_pretrained_cfg(name, pretrained)
        if not source and isinstance(error, pickle.UnpicklingError):
            raise unsafe_pickle(pretrained, error) from error
        if not source:
            raise CheckpointError(f'{pretrained} does not fit {name}: {str(error).splitlines()[0]}') from error
        place = source.get('hf_hub') or source.get('url')
        raise CheckpointError(
            f'The weights {pretrained!r} of {name} could not be downloaded from {place}. Without a network, put that '
            f'file (open_clip_model.safetensors or open_clip_pytorch_model.bin) on this machine and give its path as '
            f'pretrained.'
        ) from error
