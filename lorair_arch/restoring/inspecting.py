"""`lorair inspect IMAGE`: one picture of what the router saw in an image, and of what each expert makes of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from tqdm import tqdm

from lorair_arch.archs.degradation_router_arch import windows
from lorair_arch.data.images.kinds import IMAGE_SUFFIXES, kind_of
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import read_photo
from lorair_arch.data.images.writing import encode_png
from lorair_arch.errors import DataError, OptionsError
from lorair_arch.files import check_output, write_file
from lorair_arch.restoring.comparing import reduced
from lorair_arch.restoring.given import pixels_of
from lorair_arch.restoring.marks import mark
from lorair_arch.restoring.restorer import Restorer
from lorair_arch.weights.files import guess, may_be_weights
from lorair_arch.weights.pretrained import Paths

_INK, _SOFT, _PAPER, _USED, _TRACK = (24, 24, 27), (113, 113, 122), (255, 255, 255), (29, 78, 216), (228, 228, 231)
_CELL, _GAP, _MARGIN, _COLUMNS = 320, 16, 36, 4
_LINE = 24
_DETAIL = (240, 320)  # rows and columns of an image that are shown pixel by pixel
_AMPLIFIED = (1, 2, 4, 8, 16)


def is_image(path: str | os.PathLike) -> bool:
    """Tells by its content, not by its name, whether a path is that of an image, else of weights, or a name of some.

    Raises:
        DataError: It is neither, or an image that is missing or of a kind that is not read.
    """
    try:
        with open(path, 'rb') as file:
            head = file.read(512)
    except OSError:  # also a folder, or a name: whoever looks for weights there says what is wrong
        if Path(path).suffix.lower() in IMAGE_SUFFIXES and not os.path.lexists(path):
            raise DataError(f"input '{path}' does not exist: check the path") from None
        return False
    if kind_of(head, os.fspath(path)) or Path(path).suffix.lower() in IMAGE_SUFFIXES:
        return True
    if not may_be_weights(head):
        raise DataError(f"'{path}' seems to be {guess(head)}: an image or weights are needed")
    return False


def inspect_image(
    path: str | os.PathLike,
    output: str | os.PathLike,
    weights: Paths,
    device: str | None = None,
    overwrite: bool = False,
) -> str:
    """Writes the picture that `draw` makes of an image.

    Args:
        path: The image.
        output: Where to, `.png`.
        weights, device: See `Restorer.from_pretrained`.
        overwrite: Whether the output may replace a file that exists, other than the image.

    Returns:
        One line that says what the router saw, and where the picture is.

    Raises:
        LoRAIRError: As `draw` and `Restorer.from_pretrained`; or the output's name does not fit, or it exists.
    """
    if Path(output).suffix != '.png':
        raise OptionsError(f"output '{output}' is the name of no PNG: let it end in .png")
    check_output(output, overwrite, [path])
    photo = read_photo(path)  # before PyTorch is asked for anything
    png, degradations = draw(photo, os.path.basename(path), Restorer.from_pretrained(weights, device))
    write_file(output, png)
    seen = ', '.join(f'{name} {value:.0%}' for name, value in sorted(degradations.items(), key=lambda one: -one[1])[:3])
    return f'{path}: {seen}; drawn in {output}'


def draw(photo: Photo, name: str, restorer: Restorer) -> tuple[bytes, dict[str, float]]:
    """Draws what the networks do with an image.

    Args:
        photo: The image.
        name: Of the image, for the title.
        restorer: Router, restorer and experts.

    Returns:
        A PNG: the image and its result; the router's views and probabilities; and what each expert makes of the image,
        with its difference to it and its gate. And the probability of each degradation.

    Raises:
        DataError: The image does not fit into memory.
    """
    names = restorer.names if restorer.net.num_experts else []
    with tqdm(total=1 + len(names), desc='Restoring', leave=False, disable=None) as bar:
        result = restorer.restore(photo.pixels)
        bar.update()
        by_expert = []
        for expert in names:
            by_expert.append(restorer(photo.pixels, expert))
            bar.update()
    sheet = _Sheet()
    sheet.text(f'{name}: what the router sees, and what the experts make of it', _INK, 26)
    height, width = photo.pixels.shape[:2]
    sheet.text(f'{width} x {height} pixels', _SOFT, 16)
    detail = _busiest(_rgb(photo.pixels) - _rgb(result.image))
    times = _amplification(photo.pixels, [result.image, *by_expert])
    stronger = f', {times} times as strong' if times > 1 else ''

    def difference(image: np.ndarray) -> np.ndarray:
        return _levels(0.5 + times * (_rgb(image) - _rgb(photo.pixels)))

    sheet.heading('The image and its result', f'The difference is grey where nothing has changed{stronger}.')
    whole = [_fitted(photo._replace(pixels=pixels)) for pixels in (photo.pixels, result.image)]
    whole.append(_fitted(Photo(difference(result.image))))
    _frame(whole[0], detail, (width, height))
    sheet.row(whole, ['image; in the frame the detail below', 'result', f'difference{stronger}'])

    gates = _gates(result.degradations, restorer.net.top_k or 0)
    views, sides = _views(restorer.router, photo.pixels)
    sheet.heading('What the router looks at, and what it takes it for', sides)
    bars = _bars(result.degradations, gates, _COLUMNS // 2 * (_CELL + _GAP) - _GAP)
    sheet.row([*views.values(), bars], [*views, 'probability of each degradation'])

    if by_expert:
        what = 'Above the detail, below its difference to the image. Blue: the result is made by these, in proportion.'
        sheet.heading('What each expert makes of it', what)
        cells = [(_pair(photo.pixels[detail]), 'image', False)]
        mixture = ' + '.join(f'{gate:.0%} {name}' for name, gate in gates.items())
        made = {f'result: {mixture}': (result.image, True)}
        order = sorted(zip(names, by_expert), key=lambda one: -gates.get(one[0], 0))
        made |= {f'{name}, {gates[name]:.0%}' if name in gates else name: (one, name in gates) for name, one in order}
        cells += [(_pair(one[detail], difference(one)[detail]), name, used) for name, (one, used) in made.items()]
        for start in range(0, len(cells), _COLUMNS):
            sheet.row(*zip(*cells[start : start + _COLUMNS]))
    return mark(encode_png(np.asarray(sheet.drawn())), '.png', comparison=True), result.degradations


class _Sheet:
    """Rows of pictures under headings, from top to bottom."""

    def __init__(self) -> None:
        self._width = 2 * _MARGIN + _COLUMNS * _CELL + (_COLUMNS - 1) * _GAP
        self._image, self._y = Image.new('RGB', (self._width, 16384), _PAPER), _MARGIN
        self._draw = ImageDraw.Draw(self._image)

    def text(self, text: str, ink: tuple[int, int, int], size: int) -> None:
        self._draw.text((_MARGIN, self._y), text, ink, ImageFont.load_default(size), 'la')
        self._y += round(1.5 * size)

    def heading(self, title: str, below: str) -> None:
        self._y += _LINE
        self.text(title, _INK, 21)
        self.text(below, _SOFT, 15)

    def row(self, pictures: Sequence[Image.Image], labels: Sequence[str], used: Sequence[bool] = ()) -> None:
        """Adds pictures, each under its label; those that are used in blue and framed."""
        top, x = self._y + _LINE, _MARGIN
        for i, (picture, label) in enumerate(zip(pictures, labels)):
            marked = bool(used) and used[i]
            self._draw.text((x, top - 8), label, _USED if marked else _INK, ImageFont.load_default(16), 'ls')
            self._image.paste(picture, (x, top))
            if marked:
                box = (x - 4, top - 4, x + picture.width + 3, top + picture.height + 3)
                self._draw.rectangle(box, outline=_USED, width=3)
            x += max(_CELL, picture.width) + _GAP
        self._y = top + max(picture.height for picture in pictures) + _LINE

    def drawn(self) -> Image.Image:
        return self._image.crop((0, 0, self._width, self._y + _MARGIN - _LINE))


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """Gives pixels of 8 or 16 bits, grey or colour, as [H, W, 3] in [0, 1]."""
    pixels = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    return np.broadcast_to(pixels[..., None], (*pixels.shape, 3)) if pixels.ndim == 2 else pixels


def _levels(values: np.ndarray) -> np.ndarray:
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


def _busiest(difference: np.ndarray) -> tuple[slice, slice]:
    """Gives the rows and columns of the detail in which most has changed."""
    height, width = (min(side, length) for side, length in zip(_DETAIL, difference.shape))
    sums = np.pad(np.abs(difference).sum(2).cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)


def _amplification(before: np.ndarray, images: Sequence[np.ndarray]) -> int:
    """Gives how many times stronger the changes can be drawn, so that few of their numbers leave the range."""
    before = _rgb(before)
    strong = max(float(np.quantile(np.abs(_rgb(image) - before), 0.98)) for image in images)
    return max(times for times in _AMPLIFIED if times == 1 or times * strong <= 0.5)


def _fitted(photo: Photo) -> Image.Image:
    """Gives an image in the size of a cell; small ones with visible pixels."""
    image = reduced(photo, _CELL)
    times = _CELL // max(image.size)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST) if times > 1 else image


def _frame(image: Image.Image, detail: tuple[slice, slice], size: tuple[int, int]) -> None:
    rows, columns = detail
    x, y = image.width / size[0], image.height / size[1]
    box = (columns.start * x, rows.start * y, columns.stop * x - 1, rows.stop * y - 1)
    ImageDraw.Draw(image).rectangle(box, outline=_USED, width=2)


def _pair(image: np.ndarray, difference: np.ndarray | None = None) -> Image.Image:
    """Gives the detail as it has become, and below it what has changed."""
    parts = [Image.fromarray(_levels(_rgb(image)))] + ([] if difference is None else [Image.fromarray(difference)])
    times = max(1, _CELL // max(parts[0].size))
    width, height = (times * side for side in parts[0].size)
    pair = Image.new('RGB', (width, height * len(parts) + 4 * (len(parts) - 1)), _PAPER)
    for i, part in enumerate(parts):
        pair.paste(part.resize((width, height), Image.Resampling.NEAREST), (0, i * (height + 4)))
    return pair


@torch.inference_mode()
def _views(router: nn.Module, pixels: np.ndarray) -> tuple[dict[str, Image.Image], str]:
    """Gives pictures of the router's views by their labels, and their sizes in words."""
    size, grid = router.size, router.grid
    views = router.make_views(pixels_of(pixels).bytes(), size, grid)[0]
    views = [Image.fromarray(_levels(view.permute(1, 2, 0).numpy())) for view in views]
    if router.make_views is windows:
        columns = min(grid, -(-pixels.shape[1] // size))
        words = f'{len(views)} windows of {size} x {size} pixels of the image as it is.'
        return {'windows': _mosaic(views, columns)}, words
    whole = {'the whole': views[0].resize((_CELL, _CELL), Image.Resampling.BICUBIC)}
    if grid == 1:
        return whole, f'The image in {size} x {size} pixels.'
    large = grid * size
    words = f'The image in {size} x {size} pixels, and in {large} x {large} pixels cut into {grid} x {grid} pieces.'
    return whole | {'in pieces': _mosaic(views[1:], grid)}, words


def _mosaic(views: list[Image.Image], columns: int) -> Image.Image:
    """Lays square pictures side by side, a little apart."""
    space, across = 3, max(columns, -(-len(views) // columns))
    side = (_CELL - space * (across - 1)) // across
    mosaic = Image.new('RGB', (_CELL, _CELL), _PAPER)
    for i, view in enumerate(views):
        place = tuple(at * (side + space) for at in (i % columns, i // columns))
        mosaic.paste(view.resize((side, side), Image.Resampling.BICUBIC), place)
    return mosaic


def _bars(degradations: dict[str, float], gates: dict[str, float], width: int) -> Image.Image:
    """Draws the probabilities, the largest first; those that choose experts in blue."""
    rows = sorted(degradations.items(), key=lambda item: -item[1])
    step = min(40, max(22, _CELL // len(rows)))
    image = Image.new('RGB', (width, step * len(rows)), _PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(16)
    left = round(max(font.getlength(name) for name, _ in rows)) + 12
    right = width - round(font.getlength('100.0 %')) - 12
    for i, (name, value) in enumerate(rows):
        y, half = step * i + step / 2, step * 0.3
        draw.text((0, y), name, _INK, font, 'lm')
        draw.rectangle((left, y - half, right, y + half), fill=_TRACK)
        draw.rectangle(
            (left, y - half, left + value * (right - left), y + half), fill=_USED if name in gates else _SOFT
        )
        draw.text((width, y), f'{value:.1%}', _INK, font, 'rm')
    return image


def _gates(degradations: dict[str, float], top_k: int) -> dict[str, float]:
    """Gives the experts that are used, with their gates: of the probabilities of the largest, the proportions."""
    top = sorted(degradations, key=degradations.get, reverse=True)[:top_k]
    return {name: degradations[name] / sum(degradations[name] for name in top) for name in top}
