"""The memory of one large image: linear in its pixels, and no more full-size features than a block needs."""

import pytest
import torch

from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.benchmark.allocations import peak_allocation

NET = {'width': 16, 'enc_blk_nums': [1, 1], 'middle_blk_num': 1, 'dec_blk_nums': [1, 1], 'prior_dim': 8}


def peak_bytes_per_pixel(side, **options):
    net = LoRAIR(**NET, **options).eval()
    prior, logits = torch.randn(1, 8), torch.tensor([[1.0, 0.0]]) if options.get('lora') else None
    with torch.inference_mode():
        net(torch.rand(1, 3, 16, 16), prior, logits)  # merges the expert, which stays
        image = torch.rand(1, 3, side, side)
        return peak_allocation(lambda: net(image, prior, logits)) / side**2


@pytest.mark.parametrize(
    'options',
    [{}, {'local_pool_size': (32, 32)}, {'lora': {'rank': 2, 'num_experts': 2}}],
    ids=['plain', 'local means', 'experts'],
)
def test_memory_grows_linearly_and_holds_nothing_twice(options):
    small, large = (peak_bytes_per_pixel(side, **options) for side in (128, 384))
    assert large < 1.03 * small
    # the features themselves, and twice as many channels before and after the depthwise convolution
    assert large < 5.3 * 4 * NET['width']


def test_the_count_of_allocations_is_exact():
    def run():
        a = torch.zeros(1000)
        b = a + a
        del a
        return torch.cat([b, b])

    assert peak_allocation(run) == 3 * 4000
