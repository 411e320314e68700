"""`Restorer`: whatever is given comes back as the same kind; steering it; and memory that runs out."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lorair_arch import Restorer, devices
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.writing import write_photo
from lorair_arch.errors import DataError, OptionsError
from lorair_arch.restoring import memory
from lorair_arch.restoring import restorer as module
from measures import peak_allocation
from tests.miniature import REPO
from tests.tiny import LORA, NAMES, PLAIN, ROUTER, perturbed, photo


@pytest.fixture
def restorer():
    return Restorer(perturbed(DegradationRouter(**ROUTER)), perturbed(LoRAIR(**LORA)), NAMES, 'cpu')


@pytest.fixture
def identity():
    """A restorer that changes nothing."""
    net = LoRAIR(**PLAIN)
    for param in net.ending.parameters():
        torch.nn.init.zeros_(param)
    return Restorer(DegradationRouter(**ROUTER), net, NAMES, 'cpu')


# ---- kinds


@pytest.mark.parametrize('tile', [None, 32])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize('channels', [None, 1, 2, 3, 4])
def test_arrays_come_back_bit_for_bit(identity, channels, dtype, tile):
    image = photo(40, 50, dtype, channels or 1)
    image = image if channels else image[..., 0]
    before = image.copy()
    restored = identity(image, tile=tile)
    assert restored.dtype == image.dtype and restored is not image
    np.testing.assert_array_equal(image, before)  # the caller's own is left alone
    if tile is None or dtype in (np.uint8, np.uint16):
        np.testing.assert_array_equal(restored, image)
    np.testing.assert_allclose(restored.astype(float), image.astype(float), rtol=1e-6)


@pytest.mark.parametrize('view', ['read-only', 'flipped', 'BGR', 'big-endian', 'part'])
def test_arrays_in_any_layout_of_memory(identity, view):
    image = photo(40, 50, np.uint16)
    if view == 'read-only':
        image.flags.writeable = False
    image = {'flipped': image[::-1], 'BGR': image[..., ::-1], 'part': image[3:30:2, 5:40:3]}.get(view, image)
    image = image.astype('>u2') if view == 'big-endian' else image
    restored = identity(image)
    assert restored.dtype == image.dtype
    np.testing.assert_array_equal(restored, image)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_tensors_come_back_bit_for_bit(identity, dtype, channels):
    image = torch.from_numpy(photo(20, 33, np.uint16, channels).transpose(2, 0, 1).copy())
    if dtype.is_floating_point:
        image = (image.float() / 65535).to(dtype)
    elif dtype == torch.uint8:
        image = (image.float() / 257).to(dtype)
    restored = identity(image)
    assert restored.dtype == dtype and torch.equal(restored, image)
    batch = torch.stack([image, image])
    assert torch.equal(identity(batch), batch)


def test_tensors_give_what_arrays_give(restorer):
    image = photo(dtype=np.float32)
    expected = restorer(image)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    np.testing.assert_array_equal(restorer(tensor).permute(1, 2, 0).numpy(), expected)
    assert not restorer(tensor.requires_grad_()).requires_grad


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'RGB', 'RGBA', 'P', 'CMYK', 'I;16'])
def test_images_of_pillow_keep_what_they_carry_along(identity, mode):
    image = Image.fromarray(photo(channels=3))
    image = Image.fromarray(photo(dtype=np.uint16, channels=1)[..., 0]) if mode == 'I;16' else image.convert(mode)
    image.info |= {'dpi': (300, 300), 'icc_profile': b'profile', 'exif': b'Exif\0\0MM'}
    restored = identity(image)
    assert restored.mode == {'1': 'L', 'P': 'RGB', 'CMYK': 'RGB'}.get(mode, mode)
    assert restored.info['dpi'] == (300, 300) and restored.info['exif'] == b'Exif\0\0MM'
    assert ('icc_profile' in restored.info) == (mode != 'CMYK')  # the colours are sRGB then
    if mode != 'CMYK':
        np.testing.assert_array_equal(np.asarray(restored), np.asarray(image.convert(restored.mode)))


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_paths_give_arrays(identity, tmp_path, suffix, dtype):
    pixels, alpha = photo(dtype=dtype), photo(dtype=dtype, channels=1)[..., 0]
    write_photo(tmp_path / f'a{suffix}', Photo(pixels, alpha))
    for path in (tmp_path / f'a{suffix}', str(tmp_path / f'a{suffix}')):
        np.testing.assert_array_equal(identity(path), np.dstack([pixels, alpha]))
    with pytest.raises(DataError, match='cannot read .*missing.png'):
        identity(tmp_path / 'missing.png')


def test_lists_of_all_kinds_run_in_groups_of_one_size(restorer, monkeypatch, tmp_path):
    write_photo(tmp_path / 'a.png', Photo(photo()))
    images = [photo(), photo(20, 30), Image.fromarray(photo(20, 30)[::-1].copy()), tmp_path / 'a.png',
              torch.from_numpy(photo(channels=1, dtype=np.float32)).permute(2, 0, 1), photo()[..., ::-1]]  # fmt: skip
    expected = [restorer(image) for image in images]
    batches, forward = [], restorer.router.forward
    monkeypatch.setattr(restorer.router, 'forward', lambda lq: batches.append(len(lq)) or forward(lq))
    restored = restorer(images)
    assert batches == [4, 2]
    for one, other, image in zip(restored, expected, images):
        assert type(one) is type(other) and (type(one) is type(image) or image == tmp_path / 'a.png')
        one, other = (np.asarray(x, dtype=np.float64) for x in (one, other))
        np.testing.assert_allclose(one, other, atol=1 if one.max() > 1 else 1e-5)
    monkeypatch.setattr(module, '_BATCH_PIXELS', 37 * 50 * 2)
    batches.clear()
    restorer(images)
    assert batches == [2, 2, 2]
    assert restorer([]) == []


def test_tells_what_the_router_saw(restorer):
    image = photo()
    restored = restorer.restore(image, tile=32)
    assert restored.degradations == restorer.degradations(image)
    assert restored.tile == 32
    np.testing.assert_array_equal(restored.image, restorer(image, tile=32))
    assert restorer.restore(image).tile is None


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (torch.rand(1, 3), r'image has shape \[1, 3\], expected \[C, H, W\] or \[B, C, H, W\] with 3 channels'),
        (torch.rand(5, 4, 4), r'image has shape \[5, 4, 4\], expected \[C, H, W\]'),
        (torch.rand(3, 4, 4) * 2, r'image has float32 values from 0.\d+ to 1.\d+, expected \[0, 1\]'),
        (torch.ones(3, 4, 4, dtype=torch.int64), 'image has torch.int64 pixels, expected uint8, uint16 or'),
        (Image.new('RGB', (0, 5)), 'image has no pixels: 0 x 5'),
        ('', "cannot read ''"),
    ],
)
def test_refuses_other_kinds(restorer, image, message):
    with pytest.raises(DataError, match=message):
        restorer(image)


def test_no_images_are_no_results(restorer):
    assert restorer([]) == []
    assert restorer(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 8, 8)


# ---- steering


def test_strength_blends_towards_the_input(restorer):
    image = photo(dtype=np.float32)
    full = restorer(image)
    np.testing.assert_array_equal(restorer(image, strength=0), image)
    np.testing.assert_allclose(restorer(image, strength=0.25), 0.75 * image + 0.25 * full, atol=1e-6)
    np.testing.assert_array_equal(restorer(photo(), strength=0), photo())


def test_weights_mix_the_experts(restorer):
    image = photo(dtype=np.float32)
    np.testing.assert_allclose(restorer(image, {'rain': 2.0}), restorer(image, 'rain'), atol=1e-6)
    np.testing.assert_array_equal(restorer(image, {'rain': np.float32(2)}), restorer(image, {'rain': 2.0}))
    mixed = restorer(image, {'rain': 3, 'haze': 1, 'noise': 0})
    np.testing.assert_allclose(mixed, restorer(image, {'rain': 0.75, 'haze': 0.25}), atol=1e-6)
    gates = torch.tensor([[0, 0.75, 0.25]])
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.no_grad():
        _, prior = restorer.router(pixels)
        expected = restorer.net(pixels, prior, gates.log()).clamp(0, 1)[0].permute(1, 2, 0)  # top_k 2
    np.testing.assert_allclose(mixed, expected.numpy(), atol=1e-5)
    all_three = restorer([photo(), photo()[::-1]], {'rain': 1, 'haze': 1, 'noise': 1})  # more than top_k
    assert (all_three[0] != restorer(photo(), {'rain': 1, 'haze': 1})).any()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'degradation': {'rians': 1}}, "degradation is 'rians'; did you mean 'rain'"),
        ({'degradation': {'auto': 1}}, "degradation is 'auto'"),
        ({'degradation': {'rain': -1}}, "degradation gives 'rain' the weight -1, expected a number from 0 up"),
        ({'degradation': {'rain': float('nan')}}, 'the weight nan'),
        ({'degradation': {'rain': '1'}}, "the weight '1'"),
        ({'degradation': {'rain': 0}}, 'gives no degradation a weight above 0'),
        ({'degradation': ['rain']}, "degradation is \\['rain'\\], expected a name, or weights by name"),
        ({'degradation': {}}, 'gives no degradation a weight above 0'),
        ({'strength': 1.5}, 'strength is 1.5, expected a number from 0'),
        ({'strength': float('nan')}, 'strength is nan'),
        ({'strength': '1'}, "strength is '1', expected a number from 0"),
        ({'tile': 'large'}, "tile is 'large', expected 'auto' or a number of pixels"),
        ({'tile': 0}, 'tile is 0 pixels, but must be at least 32'),
        ({'tile': np.int64(8)}, 'tile is 8 pixels, but must be at least 32'),
        ({'tile': 64.0}, "tile is 64.0, expected 'auto' or a number of pixels"),
        ({'tile': [64]}, "tile is \\[64\\], expected 'auto' or a number of pixels"),
    ],
)
def test_refuses_wrong_steering(restorer, options, message):
    with pytest.raises(OptionsError, match=message):
        restorer(photo(), **options)
    with pytest.raises(OptionsError, match=message):
        restorer.check(**options)


@pytest.mark.parametrize(('precision', 'has'), [('fp32', False), ('bf16', True), (None, False)])
def test_precision(monkeypatch, precision, has):
    monkeypatch.setattr(devices, 'has_bf16', lambda kind: has)
    router, net = perturbed(DegradationRouter(**ROUTER)), perturbed(LoRAIR(**LORA))
    restored = Restorer(router, net, NAMES, 'cpu', precision)(photo(dtype=np.float32))
    plain = Restorer(router, net, NAMES, 'cpu', 'fp32')(photo(dtype=np.float32))
    difference = np.abs(restored - plain).max()
    assert 0 < difference < 0.05 if precision == 'bf16' else difference == 0


def test_refuses_a_precision_that_the_device_does_not_have(monkeypatch):
    monkeypatch.setattr(devices, 'has_bf16', lambda kind: False)
    networks = DegradationRouter(**ROUTER), LoRAIR(**PLAIN), NAMES, 'cpu'
    for precision, message in {
        'bf16': 'precision bf16 would take many times as long as fp32 on this CPU: use fp32',
        'fp16': 'precision fp16 would take',
        'half': "precision is 'half'",
    }.items():
        with pytest.raises(OptionsError, match=message):
            Restorer(*networks, precision)


@pytest.mark.parametrize('device', ['meta', 'nonsense', 'cuda:77', 0 if not torch.cuda.is_available() else 77])
def test_refuses_a_device_that_there_is_not(device):
    with pytest.raises(OptionsError, match=f"device '{device}' cannot be used: "):
        Restorer(DegradationRouter(**ROUTER), LoRAIR(**PLAIN), NAMES, device)


def test_numbers_that_overflow_are_no_image(restorer):
    for param in restorer.net.ending.parameters():
        torch.nn.init.constant_(param, 3e38)
    for image, tile in ((photo(), None), (photo(), 32), ([photo(), photo()], None)):
        with pytest.raises(DataError, match='numbers of this image in fp32: its weights are of no use for it'):
            restorer(image, tile=tile)
    restorer.precision = 'bf16'
    with pytest.raises(DataError, match='undefined numbers of this image in bf16: use the precision fp32'):
        restorer(photo())


# ---- memory


def test_tiles_are_chosen_by_the_free_memory(restorer, monkeypatch):
    cost = 5 * 4 * 16  # bytes for each pixel, for which half of the free memory may be used
    tiles = {}
    for side in (2048, 1000, 300, 100, 8):
        monkeypatch.setattr(memory, 'free_memory', lambda device, side=side: 2 * cost * side**2)
        tiles[side] = memory.choose_tile(restorer.net, (1500, 1500), restorer.device)
    assert tiles == {2048: None, 1000: 768, 300: 256, 100: 32, 8: 32}
    monkeypatch.setattr(memory, 'free_memory', lambda device: 0)
    assert restorer.restore(photo(70, 50)).tile == 32
    assert memory.choose_tile(restorer.net, (1, 1), restorer.device) == 32


def test_smaller_tiles_where_memory_runs_out(restorer, monkeypatch):
    whole, tried = module.restore_bands, []

    def crowded(net, window, size, prior, logits, tile):
        tried.append(tile)
        if tile is None or tile > 256:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate')
        yield from whole(net, window, size, prior, logits, tile)

    monkeypatch.setattr(module, 'restore_bands', crowded)
    image = photo(20, 600)
    expected = restorer(image, tile=256)
    tried.clear()
    np.testing.assert_array_equal(restorer(image), expected)
    assert tried == [None, 512, 384, 256]
    with pytest.raises(DataError, match='600 x 20 pixels does not fit .* memory of this machine: restore it in smaller '
                       'tiles, such as tile = 384'):  # fmt: skip
        restorer(image, tile=512)
    with pytest.raises(DataError, match='does not fit .* restore it in tiles, such as tile = 512'):
        restorer(image, tile=None)
    monkeypatch.setattr(module, 'restore_bands', lambda *_: (_ for _ in ()).throw(RuntimeError('broken')))
    with pytest.raises(RuntimeError, match='broken'):  # what has another cause is not tried again
        restorer(image)


def test_a_list_that_does_not_fit_is_restored_one_by_one(restorer, monkeypatch):
    whole, images = module.restore_bands, [photo(), photo()[::-1], photo()[:, ::-1]]
    expected = [restorer(image) for image in images]

    def crowded(net, window, size, prior, logits, tile):
        if len(prior) > 1:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate')
        yield from whole(net, window, size, prior, logits, tile)

    monkeypatch.setattr(module, 'restore_bands', crowded)
    for one, other in zip(restorer(images), expected):
        np.testing.assert_array_equal(one, other)
    asked, forward = [], restorer.router.forward
    monkeypatch.setattr(restorer.router, 'forward', lambda lq: asked.append(len(lq)) or forward(lq))
    for one, image in zip(restorer(images, tile=32), images):
        np.testing.assert_array_equal(one, restorer(image, tile=32))
    assert asked == [1] * 6  # once an image, in tiles too


def test_a_router_that_does_not_fit(restorer, monkeypatch):
    forward, images, asked = restorer.router.forward, [photo(), photo()[::-1]], []
    expected = [restorer(image) for image in images]

    def crowded(lq, most):
        asked.append(len(lq))
        if len(lq) > most:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate')
        return forward(lq)

    monkeypatch.setattr(restorer.router, 'forward', lambda lq: crowded(lq, most=1))
    for one, other in zip(restorer(images), expected):
        np.testing.assert_array_equal(one, other)
    assert asked == [2, 1, 1]
    monkeypatch.setattr(restorer.router, 'forward', lambda lq: crowded(lq, most=0))
    for ask in (restorer, restorer.degradations):
        with pytest.raises(DataError, match='the router does not fit into the memory of this machine: end other'):
            ask(photo())


def test_many_small_images_are_not_shown_to_the_router_at_once(restorer, monkeypatch):
    asked, forward = [], restorer.router.forward
    monkeypatch.setattr(restorer.router, 'forward', lambda lq: asked.append(len(lq)) or forward(lq))
    assert len(restorer([photo(4, 4)] * 40)) == 40
    assert asked == [16, 16, 8]


@pytest.mark.parametrize(('limit', 'free'), [('max', None), ('3000', 1000), ('nonsense', None)])
def test_a_container_has_less_memory(tmp_path, monkeypatch, limit, free):
    monkeypatch.setattr(memory, '_CGROUP', tmp_path)
    (tmp_path / 'memory.max').write_text(f'{limit}\n')
    (tmp_path / 'memory.current').write_text('2000\n')
    found = memory.free_memory(torch.device('cpu'))
    assert found == free if free else found > 10**7
    (tmp_path / 'memory.stat').write_text('anon 600\nfile 1300\ninactive_file 700\n')
    found = memory.free_memory(torch.device('cpu'))  # files that were read make room for what needs it
    assert found == free + 700 if free else found > 10**7


@pytest.mark.skipif(sys.platform != 'linux', reason='limits of the address space are Linux')
def test_a_real_lack_of_memory(tmp_path):
    """A process that may have only some memory more than it has restores in tiles what does not fit."""
    program = f"""
import resource, sys
sys.path.insert(0, {str(REPO)!r})
import numpy as np, psutil, torch
torch.set_num_threads(1)
from lorair_arch import Restorer, devices
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from tests.tiny import NAMES, PLAIN, ROUTER
restorer = Restorer(DegradationRouter(**ROUTER), LoRAIR(**PLAIN), NAMES, 'cpu')
image = np.zeros((1600, 1600, 3), np.uint8)
restorer(image[:64, :64])
have = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (have + 150 * 2**20,) * 2)
print(restorer.restore(image).tile)
"""
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert result.returncode == 0, result.stderr
    assert 32 <= int(result.stdout) <= 1024


def test_nothing_of_full_size_in_floats(restorer):
    """Beside input and output of 8 bits, a large image takes little."""
    image = photo(1500, 400)
    peak = peak_allocation(lambda: restorer(image, tile=64))
    assert peak < 2.6 * image.nbytes  # the output, a copy for the caller, rows of tiles
