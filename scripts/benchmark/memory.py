"""Measures how much memory the restoration of one image needs, on the CPU in float32; prints a table."""

from __future__ import annotations

import argparse
import os
import sys

# before PyTorch is imported: its profiler would write between the lines
os.environ |= {'KINETO_LOG_LEVEL': '99', 'TORCH_CPP_LOG_LEVEL': 'ERROR'}

import torch  # noqa: E402

from bench import SMALL  # noqa: E402
from lorair_arch.archs.lorair_arch import LoRAIR  # noqa: E402
from measures import peak_allocation  # noqa: E402

VARIANTS = {
    'plain': {},
    'plain, local means': {'local_pool_size': (SMALL.crop, SMALL.crop)},
    'experts': {'lora': SMALL.lora},
    'experts, local means': {'lora': SMALL.lora, 'local_pool_size': (SMALL.crop, SMALL.crop)},
}


@torch.inference_mode()
def peak_of_restoring(net: LoRAIR, width: int, height: int) -> int:
    """Gives the bytes that restoring one image needs at once, beside the weights and the image itself."""
    prior, logits = torch.randn(1, net.prior_dim), torch.eye(net.num_experts)[:1] if net.num_experts else None
    net(torch.rand(1, 3, net.multiple, net.multiple), prior, logits)  # merges the expert, which stays
    image = torch.rand(1, 3, height, width)
    return peak_allocation(lambda: net(image, prior, logits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = ['960x540', '1920x1080', '3840x2160']
    parser.add_argument('--sizes', nargs='+', default=sizes, metavar='WxH', help=f'default: {" ".join(sizes)}')
    args = parser.parse_args()
    write = sys.stdout.write
    write('| network | image | peak | bytes per pixel | full-resolution feature maps |\n|---|---|---|---|---|\n')
    for name, options in VARIANTS.items():
        net = LoRAIR(**SMALL.network, **options).eval()
        for size in args.sizes:
            width, height = map(int, size.split('x'))
            peak, pixels = peak_of_restoring(net, width, height), width * height
            features = SMALL.network['width'] * pixels * 4
            write(f'| {name} | {size} | {peak / 2**20:.0f} MiB | {peak / pixels:.0f} | {peak / features:.2f} |\n')
            sys.stdout.flush()


if __name__ == '__main__':
    main()
