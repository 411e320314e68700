"""The memory of one large image: linear in its pixels, and no more full-size features than a block needs."""

import pytest
import torch

from lorair_arch.archs.kernels import strips
from lorair_arch.archs.lorair_arch import LoRAIR
from measures import peak_allocation

NET = {'width': 16, 'enc_blk_nums': [1], 'middle_blk_num': 1, 'dec_blk_nums': [1], 'prior_dim': 8}


def peak_in_features(side, **options):
    """Gives the peak of restoring an image, as a multiple of its features of full size."""
    net = LoRAIR(**NET, **options).eval()
    prior, logits = torch.randn(1, 8), torch.tensor([[1.0, 0.0]]) if options.get('lora') else None
    with torch.inference_mode():
        net(torch.rand(1, 3, 2, 2), prior, logits)  # merges the expert, which stays
        image = torch.rand(1, 3, side, side)
        return peak_allocation(lambda: net(image, prior, logits)) / (4 * NET['width'] * side**2)


@pytest.mark.parametrize(
    ('options', 'features'),
    [
        ({}, 2),  # the features and, after the gate, those that their mean is taken of
        ({'lora': {'rank': 2, 'num_experts': 2}}, 2),
        ({'local_pool_size': (8, 8)}, 4),  # and their means along one axis and along both
    ],
    ids=['plain', 'experts', 'local means'],
)
def test_memory_grows_linearly_and_holds_no_more_than_it_must(monkeypatch, options, features):
    monkeypatch.setitem(strips._NUMBERS, 'cpu', 2**12)  # strips do not grow with the image, but these are small images
    small, large = (peak_in_features(side, **options) for side in (320, 512))
    assert large == pytest.approx(small, rel=0.03)
    assert large < features + 0.4  # the image, padded and as it is restored: 3 channels of 16 each


def test_the_count_of_allocations_is_exact():
    def run():
        a = torch.zeros(1000)
        b = a + a
        del a
        return torch.cat([b, b])

    assert peak_allocation(run) == 3 * 4000
