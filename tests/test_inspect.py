"""`lorair inspect`: a picture of what router and experts make of an image, and in words what weights are."""

import io
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from lorair_arch import Restorer, cli
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.data.images.reading import read_photo
from lorair_arch.restoring import inspecting
from lorair_arch.restoring.inspecting import draw
from lorair_arch.weights.convert import convert, export
from tests import tiny
from tests.photos import photo, write


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    return tiny.save_weights(tmp_path / 'weights')


def inspect(*args):
    return cli.lorair(['inspect', *map(str, args)])


def test_the_picture_of_an_image(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image = write(tmp_path / 'in.jpg', photo(0, 60, 90))
    assert inspect(image, '--weights', weights, '--device', 'cpu') == 0
    line = capsys.readouterr().err
    sheet = np.asarray(Image.open('in_inspected.png'))
    assert sheet.shape[1] == 1400
    assert sheet.shape[0] > 1000
    assert line.startswith(f'{image}: ')
    assert line.endswith('; drawn in in_inspected.png\n')
    assert all(name in line for name in tiny.NAMES)


def test_labels_say_which_experts_were_used_and_how_much(weights, tmp_path, monkeypatch):
    rows = []
    row = inspecting._Sheet.row
    monkeypatch.setattr(inspecting._Sheet, 'row', lambda sheet, *args: (rows.append(args), row(sheet, *args)))
    restorer = Restorer.from_pretrained(weights, 'cpu')  # two experts for each image
    given = write(tmp_path / 'in.png', photo(0, 60, 90))
    degradations = draw(read_photo(given), 'in.png', restorer)[1]
    (first, second, _), (p, q, _) = zip(*sorted(degradations.items(), key=lambda one: -one[1]))
    gates = p / (p + q), q / (p + q)
    pictures, labels, used = (sum((list(part[i]) for part in rows[2:]), []) for i in range(3))
    assert labels[1] == f'result: {gates[0]:.0%} {first} + {gates[1]:.0%} {second}'
    assert labels[2:4] == [f'{first}, {gates[0]:.0%}', f'{second}, {gates[1]:.0%}']
    assert used == [False, True, True, True, False]
    # the expert alone, in pixels three times as large; its difference below
    alone = Image.fromarray(restorer(photo(0, 60, 90), first)).resize((270, 180), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(pictures[2])[:180], np.asarray(alone))
    assert len(rows[1][0]) == 3  # the whole, the pieces, the bars


@pytest.mark.parametrize('lora', [None, {'rank': 2, 'num_experts': 3}])
@pytest.mark.parametrize(
    'pixels', [photo(0, 1, 1), photo(0, 300, 700), photo(0, 50, 40)[..., 0], photo(0, 50, 40).astype(np.uint16) * 257]
)
def test_images_of_all_kinds(tmp_path, lora, pixels):
    router = DegradationRouter(**tiny.ROUTER | {'clip_grid': 1 if lora else 2})
    restorer = Restorer(router, tiny.perturbed(LoRAIR(**tiny.PLAIN, lora=lora)), tiny.NAMES, 'cpu')
    given = read_photo(write(tmp_path / 'in.png', pixels))
    png, degradations = draw(given, 'in.png', restorer)
    assert Image.open(io.BytesIO(png)).width == 1400
    assert list(degradations) == tiny.NAMES


def test_differences_are_held_one_at_a_time():
    image = photo(0, 300, 400)
    tracemalloc.start()
    try:
        assert inspecting._amplification(image, [image] * 20) == 16
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * image.nbytes  # each has four times the bytes of the image


def test_files_of_weights_in_words(weights, tmp_path, capsys):
    (weights / 'models').mkdir()
    shutil.move(weights / 'router.pth', weights / 'models/router.pth')
    (weights / '1_router.yml').touch()
    assert inspect(weights / 'models') == 0
    text = capsys.readouterr().out
    assert text.startswith(f'{weights / "models/router.pth"}: a degradation router for 3 degradations, in a file of ')
    assert '  trained for   noise, rain, haze\n' in text
    assert 'embed_dim 16, image_size 16, patch_size 8, layers 1' in text
    assert '  views         the whole, and 2 x 2 pieces\n' in text
    assert f'  options       {weights / "1_router.yml"}\n' in text
    assert inspect(weights / 'experts.pth') == 0
    count = sum(p.numel() for key, p in LoRAIR(**tiny.LORA).named_parameters() if '.lora_' in key)
    text = capsys.readouterr().out
    assert f': 3 low-rank experts without their base, in a file of {"98.7 kB"}' in text
    assert f'  experts       3 of rank 2, alpha 4; {count:,} parameters in all, 2 for each image\n' in text
    assert '  blocks        1 | 1 | 1 (encoder, middle, decoder)\n' in text


def test_single_and_merged_files_in_words(weights, tmp_path, capsys):
    convert([weights / f'{name}.pth' for name in ('router', 'base', 'experts')], tmp_path / 'one.safetensors')
    export([weights], tmp_path / 'rain.pth', 'rain')
    assert inspect(tmp_path / 'one.safetensors') == 0
    text = capsys.readouterr().out
    assert ': a degradation router for 3 degradations, in one file with its restorer of ' in text
    assert ': a LoRA-IR restorer, in one file with its router of ' in text
    assert inspect(tmp_path / 'rain.pth') == 0
    text = capsys.readouterr().out
    assert '  merged        the experts for rain\n' in text
    assert '  experts       none\n' in text


def test_what_cannot_be_inspected(weights, tmp_path, capsys):
    image = write(tmp_path / 'in.png', photo(0, 20, 20))
    text, damaged, raw = (tmp_path / name for name in ('notes.txt', 'damaged.jpg', 'page.pdf'))
    text.write_text('nothing to see')
    damaged.write_bytes(b'\xff\xd8\xff' + bytes(100))
    raw.write_bytes(b'%PDF-1.7')
    cases = [
        ([text], f"'{text}' seems to be a text file: an image or weights are needed"),
        ([raw], f"'{raw}' is a PDF file"),
        ([damaged, '-o', tmp_path / 'out.png', '--weights', weights], f"'{damaged}'"),
        ([image, '-o', tmp_path / 'out.jpg'], "out.jpg' is the name of no PNG: let it end in .png"),
        ([image, '-o', image, '--overwrite'], f"output '{image}' would replace the input"),
        ([tmp_path / 'missing.pth'], 'missing.pth does not exist: check the path of the weights'),
        ([tmp_path / 'missing.png'], f"input '{tmp_path / 'missing.png'}' does not exist: check the path"),
    ]
    for args, message in cases:
        assert inspect(*args) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count('\n') == 1
    assert not (tmp_path / 'out.png').exists()
