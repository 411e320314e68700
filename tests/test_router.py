"""The degradation router: its views, its frozen encoder, where its encoder comes from."""

import json
import math

import open_clip
import pytest
import torch

from lorair_arch.archs import reference
from lorair_arch.archs.degradation_router_arch import DegradationRouter, device_views, pillow_views
from lorair_arch.errors import CheckpointError, OptionsError

VISION = {'image_size': 28, 'patch_size': 14, 'layers': 1, 'width': 32, 'head_width': 16}
CLIP = {'embed_dim': 32, 'vision_cfg': VISION, 'quick_gelu': True}


@pytest.fixture
def named_clip(tmp_path):
    """A tiny model known to open_clip by name, and a file with weights for it."""
    text = {'context_length': 4, 'vocab_size': 8, 'width': 16, 'heads': 1, 'layers': 1}
    config = tmp_path / 'ViT-tiny-test.json'
    config.write_text(json.dumps({**CLIP, 'text_cfg': text}))
    open_clip.add_model_config(config)
    model = open_clip.create_model('ViT-tiny-test')
    torch.save(model.state_dict(), tmp_path / 'clip.pt')
    return 'ViT-tiny-test', tmp_path / 'clip.pt', model.visual


@pytest.mark.parametrize('size', [(28, 28), (61, 50), (200, 130), (1, 3)])
@pytest.mark.parametrize('grid', [1, 2, 3])
def test_shapes(size, grid):
    router = DegradationRouter(CLIP, 4, clip_grid=grid)
    lq = torch.rand(2, 3, *size)
    assert router.views(lq).shape == (2, 1 + grid * grid, 3, 28, 28)
    logits, prior = router(lq)
    assert logits.shape == (2, 4) and prior.shape == (2, 16)


def test_views_are_the_image_and_its_crops_row_by_row():
    lq = torch.rand(1, 3, 16, 16).mul(255).round() / 255  # whole levels, as images have
    views = device_views(lq, 8, 2)[0]
    rows = [torch.cat([views[1], views[2]], 2), torch.cat([views[3], views[4]], 2)]
    torch.testing.assert_close(torch.cat(rows, 1), lq[0])


def test_views_of_device_and_pillow_are_close():
    lq = torch.nn.functional.avg_pool2d(torch.rand(2, 3, 95, 131), 3, 1)  # smooth, as photographs are
    difference = (device_views(lq, 28, 2) - pillow_views(lq, 28, 2)).abs()
    assert difference.max() < 2 / 255  # Pillow rounds to 8 bits after each axis


@torch.no_grad()
@pytest.mark.parametrize('grid', [1, 2, 3])
def test_the_router_is_the_one_of_the_reference(grid):
    router = DegradationRouter(CLIP, 4, clip_grid=grid).eval()
    lq = torch.nn.functional.avg_pool2d(torch.rand(2, 3, 95, 131), 3, 1).mul(255).round() / 255
    for found, expected in zip(router(lq), reference.classify(router, lq)):
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)  # views of 8 bits


def test_a_batch_equals_its_images_one_by_one():
    router = DegradationRouter(CLIP, 3).eval()
    lq = torch.rand(3, 3, 40, 50)
    for together, single in zip(router(lq), zip(*(router(image[None]) for image in lq))):
        torch.testing.assert_close(together, torch.cat(single))


def test_a_frozen_encoder_stays_as_it_is():
    router = DegradationRouter(CLIP, 3).train()
    assert not router.clip.training and router.head.training
    router(torch.rand(2, 3, 30, 30))[0].sum().backward()
    grads = {name: param.grad for name, param in router.named_parameters()}
    assert all((grad is None) == name.startswith('clip.') for name, grad in grads.items())


def test_an_encoder_trained_from_scratch_learns():
    router = DegradationRouter(CLIP, 3, freeze_clip=False).train()
    router(torch.rand(2, 3, 30, 30))[0].sum().backward()
    assert router.clip.training
    assert all(param.grad is not None for param in router.parameters())


def test_weights_of_clip_come_from_a_local_file(named_clip):
    name, path, visual = named_clip
    router = DegradationRouter(name, 3, pretrained=str(path))
    for key, value in visual.state_dict().items():
        torch.testing.assert_close(router.clip.state_dict()[key], value, rtol=0, atol=0)
    assert not any('transformer.token' in key or 'text' in key for key in router.state_dict())


def test_the_published_encoder_has_the_published_size():
    router = DegradationRouter('ViT-L-14-336-quickgelu', 3)
    assert (router.size, router.prior_dim) == (336, 384)
    count = sum(p.numel() for p in router.parameters())
    assert count == 304_293_888 + (2 * 768 * 768 + 768) + (768 * 384 + 384) + (384 * 3 + 3)


def test_without_a_network_the_error_says_what_to_do():
    with pytest.raises(
        CheckpointError, match=r"'openai' of RN50 could not be downloaded from timm/resnet50_clip.*put that file"
    ):
        DegradationRouter('RN50', 3, pretrained='openai')


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'clip_model': 'ViT-XXL'}, "^clip_model: unknown open_clip model 'ViT-XXL'; did you mean"),
        (
            {'clip_model': 'RN50', 'pretrained': 'nobody'},
            "^pretrained: found 'nobody', expected a file of weights or one",
        ),
        ({'clip_model': {'vision_cfg': VISION}}, '^clip_model.embed_dim: missing, expected a whole number'),
        ({'clip_model': {**CLIP, 'widht': 3}}, '^clip_model.widht: unknown key; known are embed_dim, vision_cfg'),
        ({'clip_model': CLIP, 'pretrained': 'openai'}, "^pretrained: found 'openai', expected null, as clip_model"),
        ({'clip_model': CLIP, 'views': 'cuda'}, "^views: found 'cuda', expected device or pillow or windows$"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(OptionsError, match=message):
        DegradationRouter(num_degradations=3, **settings)


def test_a_patch_size_that_is_not_given_is_open_clip_s():
    vision = {key: value for key, value in VISION.items() if key != 'patch_size'} | {'image_size': 48}
    router = DegradationRouter({'embed_dim': 16, 'vision_cfg': vision}, num_degradations=2)
    assert router.clip.conv1.kernel_size == (16, 16)
    with pytest.raises(OptionsError, match='image_size: found 40, expected a multiple of patch_size = 16'):
        DegradationRouter({'embed_dim': 16, 'vision_cfg': vision | {'image_size': 40}}, num_degradations=2)


@pytest.mark.parametrize('size', [(28, 28), (29, 28), (5, 40), (1, 1), (1, 33), (60, 90)])
def test_windows_show_the_image_as_it_is(size):
    router = DegradationRouter(CLIP, 4, clip_grid=3, views='windows').eval()
    lq = torch.rand(2, 3, *size)
    views = router.views(lq).mul(router.std).add(router.mean)
    counts = [min(3, -(-side // 28)) for side in size]
    assert views.shape == (2, math.prod(counts), 3, 28, 28)
    if min(size) >= 28:
        torch.testing.assert_close(views[:, 0], lq[..., :28, :28])
        torch.testing.assert_close(views[:, -1], lq[..., -28:, -28:])
    content = (lq * 255).round().byte()
    torch.testing.assert_close(router.views(content), router.views(content.float() / 255))
    logits, prior = router(lq)
    assert logits.shape[0] == prior.shape[0] == 2 and logits.isfinite().all()


def test_windows_judge_a_crop_and_an_image_of_the_same_crops_alike():
    router = DegradationRouter(CLIP, 4, clip_grid=3, views='windows').eval()
    crop = torch.rand(1, 3, 28, 28)
    for one, other in zip(router(crop), router(crop.tile(1, 1, 3, 2))):
        torch.testing.assert_close(one, other)
