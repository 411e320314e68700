"""The sizes at which the benchmark runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One size.

    Attributes:
        network: Options of `LoRAIR`, without experts; its prior is half of CLIP's embedding.
        crop: Side of the training crops, pixels.
        image: Side of the image for local pooling, pixels.
        experts: The expert of each image of a batch.
        clip_model: Image encoder of the router.
        view: Side of the views in their own comparison, pixels.
        matrix: Side of the matrices whose product tells the machine's peak.
        lora: Experts.
    """

    network: dict[str, Any]
    crop: int
    image: int
    experts: tuple[int, ...]
    clip_model: str | dict[str, Any]
    view: int = 336
    matrix: int = 2048
    lora: dict[str, Any] = field(default_factory=lambda: {'rank': 8, 'num_experts': 3})


# Small enough for two CPU cores; the router is the encoder of the quickstart.
SMALL = Setting(
    network={'width': 32, 'enc_blk_nums': [1, 1, 1, 8], 'middle_blk_num': 1, 'dec_blk_nums': [1, 1, 1, 1]},
    crop=128,
    image=512,
    experts=(0, 1, 2, 1),
    clip_model={
        'embed_dim': 768,
        'vision_cfg': {'image_size': 96, 'layers': [1, 1, 1, 1], 'width': 8, 'head_width': 32},
    },
)
# The published network, and the batch of one of its eight GPUs.
OFFICIAL = Setting(
    network={'width': 64, 'enc_blk_nums': [1, 1, 1, 28], 'middle_blk_num': 1, 'dec_blk_nums': [1, 1, 1, 1]},
    crop=256,
    image=512,
    experts=(0, 1, 2, 1, 0, 2, 1, 0),
    clip_model='ViT-L-14-336-quickgelu',
    matrix=8192,
)
