"""PSNR loss."""

import pytest
import torch
from basicsr.losses import build_loss

from lorair_arch.losses.psnr_loss import PSNRLoss


def images(*mse):
    """Pairs of images with the given mean squared errors."""
    target = torch.rand(len(mse), 3, 6, 5)
    return target + torch.tensor(mse).sqrt().view(-1, 1, 1, 1), target


def test_is_the_mean_of_the_negative_psnr_of_each_image():
    pred, target = images(1e-2, 1e-4)
    assert PSNRLoss()(pred, target).item() == pytest.approx(-(20 + 40) / 2, abs=1e-3)


def test_equal_images_reach_the_floor_and_have_a_finite_gradient():
    target = torch.rand(2, 3, 4, 4)
    pred = target.clone().requires_grad_()
    loss = PSNRLoss()(pred, target)
    loss.backward()
    assert loss.item() == pytest.approx(-80, abs=1e-4)
    assert torch.isfinite(pred.grad).all()


def test_is_built_from_options_with_its_weight():
    pred, target = images(1e-3)
    loss = build_loss({'type': 'PSNRLoss', 'loss_weight': 0.5})
    assert loss(pred, target).item() == pytest.approx(-15, abs=1e-3)


def test_bf16_images_are_averaged_in_float32():
    pred, target = images(1e-2, 1e-3)
    pred, target = pred.bfloat16(), target.bfloat16()
    loss = PSNRLoss()(pred, target)
    assert loss.dtype == torch.float32
    assert loss == PSNRLoss()(pred.float(), target.float())


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r'\(2, 3, 4, 4\) and \(2, 1, 4, 4\)'):
        PSNRLoss()(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))
