"""How large the tiles may be: what memory is free, and whether an error says that there is none left."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import torch
from torch import nn

from lorair_arch.restoring.tiling import smallest_tile

# Bytes for each pixel, channel of the first level and byte of a number: at most 4.4 times the features of full size are
# alive at once (tests/test_memory.py); the rest is for what convolutions need for themselves.
_PER_PIXEL = 5
_SHARE = 2  # of the free memory every second byte: others need some as well
_TILES = (2048, 1536, 1024, 768, 512, 384, 256)
_CGROUP = Path('/sys/fs/cgroup')


def free_memory(device: torch.device) -> int:
    """Gives the bytes that a process can still get on a device, within the limits of its container."""
    if device.type == 'cuda':
        # What PyTorch has reserved and does not use is free as well.
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    if device.type == 'mps':
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    free = psutil.virtual_memory().available
    try:  # a container sees the memory of the whole machine
        limit, used = (int((_CGROUP / f'memory.{name}').read_text()) for name in ('max', 'current'))
    except (OSError, ValueError):  # there is none: 'max'
        return free
    return min(free, limit - used + _file_cache())


def _file_cache() -> int:
    """Gives the bytes of files in a container's memory that make room for what needs it; all read images are there."""
    with contextlib.suppress(OSError):
        for line in (_CGROUP / 'memory.stat').read_text().splitlines():
            if line.startswith('inactive_file '):
                return int(line.split()[1])
    return 0


def choose_tile(net: nn.Module, size: tuple[int, int], device: torch.device) -> int | None:
    """Gives the side of the largest tiles that memory is there for, in pixels; None: the image fits in one piece.

    Args:
        net: A `LoRAIR`.
        size: (H, W) of the image.
        device: Where the network runs.
    """
    budget = free_memory(device) // _SHARE
    cost = _PER_PIXEL * 4 * net.plain_settings['width']
    if size[0] * size[1] * cost <= budget:
        return None
    fitting = (tile for tile in tiles(net) if tile**2 * cost <= budget)
    return next(fitting, smallest_tile(net))


def next_smaller(net: nn.Module, size: tuple[int, int], tile: int | None) -> int | None:
    """Gives the side of the next smaller tiles that are smaller than the image; None: there are none."""
    limit = min(tile or max(size), max(size))
    return next((smaller for smaller in tiles(net) if smaller < limit), None)


def tiles(net: nn.Module) -> list[int]:
    """Gives the sides to choose from, largest first."""
    smallest = smallest_tile(net)
    return [*(tile for tile in _TILES if tile > smallest), smallest]


def is_out_of_memory(error: Exception) -> bool:
    """Tells whether an error of PyTorch says that memory ran out, of a GPU or of the machine."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # On a CPU it is a RuntimeError like any other.
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)


_NO_MEMORY = ("can't allocate memory", 'not enough memory', 'could not create a memory', 'out of memory')


def too_large(size: tuple[int, int], tile: int | None, smaller: int | None, device: torch.device) -> str:
    """Says that an image, of (H, W) pixels, does not fit into memory, and what to do."""
    remedy = smaller and f'restore it in {"smaller " if tile else ""}tiles, such as tile = {smaller}'
    return f'an image of {size[1]} x {size[0]} pixels {no_room(device, remedy)}'


def no_room(device: torch.device, remedy: str | None = None) -> str:
    """Ends the sentence about what does not fit into memory, and says what to do."""
    what = 'this machine' if device.type == 'cpu' else 'the GPU'
    remedy = remedy or 'end other programs, or use a machine that has more'
    return f'does not fit into the memory of {what}: {remedy}'
