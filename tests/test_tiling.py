"""Tiles: where they lie, how they blend, and that they give what the whole image gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lorair_arch import Restorer
from lorair_arch.archs import kernels
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.errors import OptionsError
from lorair_arch.restoring.tiling import TileMeans, place, restore_bands, smallest_tile
from measures import peak_allocation
from tests.tiny import LORA, NAMES, PLAIN, ROUTER, perturbed

ONE_EXPERT = {**LORA, 'lora': {**LORA['lora'], 'top_k': 1}}
LEVELS = {'enc_blk_nums': [1, 1], 'dec_blk_nums': [1, 1]}
LENGTHS = (1, 31, 32, 33, 47, 48, 49, 64, 100, 129, 255, 256, 257, 1000, 5000)


@pytest.fixture
def restorer():
    return Restorer(perturbed(DegradationRouter(**ROUTER)), perturbed(LoRAIR(**LORA)), NAMES, 'cpu')


def photo(height, width):
    """An image that is dark on one side and bright on the other: no tile has the means of the whole."""
    rng = np.random.default_rng(0)
    return (rng.random((height, width, 3)) * np.linspace(0.1, 1, width)[:, None]).astype(np.float32)


def restore_tiled(net, image, prior, logits, tile):
    """Restores [1, 3, H, W] in tiles, as a whole."""
    bands = restore_bands(net, lambda *part: image[(..., *part)], image.shape[2:], prior, logits, tile)
    rows, bands = zip(*bands)
    assert [(a.start, a.stop) for a in rows] == list(zip([0, *(a.stop for a in rows)], (a.stop for a in rows)))
    return torch.cat(bands, dim=2)


def inputs(net, height, width):
    lq = torch.from_numpy(photo(height, width).transpose(2, 0, 1).copy())[None]
    return lq, torch.randn(1, net.prior_dim), torch.randn(1, 3) if net.num_experts else None


# ---- where tiles lie


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize(('tile', 'multiple'), [(32, 2), (32, 16), (33, 16), (50, 8), (64, 8), (256, 16), (256, 128)])
def test_tiles_cover_an_axis(length, tile, multiple):
    spans = place(length, tile, multiple)
    assert all(span.seen.stop - span.seen.start <= tile for span in spans)
    assert all(span.seen.start % multiple == 0 for span in spans)
    assert all((span.seen.stop - span.seen.start) % multiple == 0 for span in spans[:-1])
    total, cores = torch.zeros(length), torch.zeros(length)
    for span in spans:
        assert 0 <= span.core.start < span.core.stop <= span.seen.stop - span.seen.start
        assert (span.core.start % multiple, span.core.stop % multiple) == (0, 0) or span is spans[-1]
        assert (span.weights >= 0).all()
        total[span.seen] += span.weights
        cores[span.seen][span.core] += 1
    torch.testing.assert_close(total, torch.ones(length))
    assert (cores == 1).all()
    for span in spans[:-1]:
        assert span.weights[-1] == 0
    for span in spans[1:]:
        assert span.weights[0] == 0


@pytest.mark.parametrize(('height', 'width'), [(32, 32), (33, 70), (61, 64), (200, 31), (5, 129), (1, 5000)])
def test_tiles_blend_without_seams(height, width):
    class Net(torch.nn.Module):
        multiple, levels = 2, None

        def runner(self, logits):
            return self

        def forward(self, x, prior, logits):
            return x if self.levels is None else torch.full_like(x, next(self.levels))

    net, image = Net(), torch.rand(1, 3, height, width)
    torch.testing.assert_close(restore_tiled(net, image, torch.zeros(1), None, 32), image)
    net.levels = iter(range(10_000))  # tiles that disagree by a constant step blend into a ramp without jumps
    steps = restore_tiled(net, torch.zeros(1, 3, 32, width), torch.zeros(1), None, 64)
    assert steps.diff(dim=3).abs().max() < 0.5


# ---- what they give


@pytest.mark.parametrize('tile', [32, 33, 64, 100_000])
@pytest.mark.parametrize('size', [(1, 1), (1, 32), (30, 32), (31, 7)])
def test_an_image_that_fits_into_a_tile_is_restored_in_one_piece(restorer, tile, size):
    image = photo(*size)
    np.testing.assert_array_equal(restorer(image, tile=tile), restorer(image))


@pytest.mark.parametrize('options', [PLAIN, LORA, ONE_EXPERT, PLAIN | LEVELS], ids=['plain', 'two', 'one', 'levels'])
@pytest.mark.parametrize('size', [(61, 143), (1, 300)])
@torch.inference_mode()
def test_tiles_give_what_the_whole_image_gives(options, size):
    net = perturbed(LoRAIR(**options)).eval()
    lq, prior, logits = inputs(net, *size)
    whole = net(lq, prior, logits)
    tiled = restore_tiled(net, lq, prior, logits, 48)
    assert psnr(tiled, whole) > 60
    assert psnr(tiled, whole) > psnr(restore_tiled_alone(net, lq, prior, logits, 48), whole) + 20


def restore_tiled_alone(net, *args):
    """Tiles with means of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TileMeans, '__enter__', lambda self: self)
        patch.setattr(TileMeans, '__exit__', lambda *_: None)
        return restore_tiled(net, *args)


def psnr(a, b):
    return -10 * (a - b).square().mean().clamp(min=1e-12).log10().item()


def test_nothing_stays_behind(restorer):
    image = photo(70, 90)
    before = restorer(image)
    restorer(image, tile=32)
    np.testing.assert_array_equal(restorer(image), before)
    assert not any(module._forward_hooks for module in restorer.net.modules())


def test_nothing_stays_behind_after_an_error(restorer, monkeypatch):
    def fail(*_):
        raise RuntimeError('broken')

    monkeypatch.setattr(TileMeans, 'beforehand', fail)
    with pytest.raises(RuntimeError):
        restorer(photo(70, 90), tile=32)
    assert not any(module._forward_hooks for module in restorer.net.modules())


@torch.inference_mode()
def test_means_over_windows_are_left_alone():
    net = perturbed(LoRAIR(**PLAIN, local_pool_size=(16, 16))).eval()
    lq, prior, logits = inputs(net, 64, 100)
    with_hooks = restore_tiled(net, lq, prior, logits, 48)
    torch.testing.assert_close(with_hooks, restore_tiled_alone(net, lq, prior, logits, 48), rtol=0, atol=0)
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    restore_tiled(net, lq, prior, logits, 48)
    assert len(calls) == len(place(64, 48, 2)) * len(place(100, 48, 2))  # none is run beforehand


def test_tiles_are_guided_by_the_whole_image(restorer, monkeypatch):
    image, guides, sizes = photo(70, 45), [], []
    forward = restorer.net.forward

    def spy(lq, prior, logits):
        sizes.append(lq.shape[-2:])
        guides.append(torch.cat([prior, logits], dim=1))
        return forward(lq, prior, logits)

    monkeypatch.setattr(restorer.net, 'forward', spy)
    with kernels.disabled('merging'):  # the network runs itself
        restorer(image)
        restorer(image, tile=32)
    assert len(guides) > 4
    assert all(torch.equal(guide, guides[0]) for guide in guides)
    assert all(max(size) <= 32 for size in sizes[1:])


# ---- what they cost


@torch.inference_mode()
def test_each_tile_is_run_twice():
    net = perturbed(LoRAIR(**PLAIN)).eval()
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    restore_tiled(net, *inputs(net, 70, 100), 32)
    assert len(calls) == 2 * len(place(70, 32, 2)) * len(place(100, 32, 2))


@torch.inference_mode()
def test_memory_does_not_grow_with_the_image():
    net = perturbed(LoRAIR(**PLAIN)).eval()
    peaks = []
    for height in (128, 1024):
        image, *guides = inputs(net, height, 100)

        def run(image=image, guides=guides):
            for _ in restore_bands(net, lambda *part: image[(..., *part)], image.shape[2:], *guides, 48):
                pass

        peaks.append(peak_allocation(run))
    assert peaks[1] < 1.02 * peaks[0]


@pytest.mark.parametrize(('levels', 'smallest'), [(1, 32), (4, 32), (5, 64)])
def test_the_smallest_tile(levels, smallest):
    blocks = {'enc_blk_nums': [0] * levels, 'dec_blk_nums': [0] * levels}
    net = perturbed(LoRAIR(**PLAIN | blocks))
    assert smallest_tile(net) == smallest
    restorer = Restorer(perturbed(DegradationRouter(**ROUTER)), net, NAMES, 'cpu')
    assert restorer(photo(33, 70), tile=smallest).shape == (33, 70, 3)
    for tile in (1, smallest - 1):
        with pytest.raises(OptionsError, match=f'tile is {tile} pixels, but must be at least {smallest}'):
            restorer(photo(33, 70), tile=tile)
