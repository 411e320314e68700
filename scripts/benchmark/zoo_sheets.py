"""Sheets of zoo_results.py: the best, the median and the worst image of each set, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from classical import Peer
from lorair_arch import Restorer
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.writing import write_photo
from lorair_arch.data.sheets import Row, comparison_sheet
from zoo_sets import OpenSet

_CELL = 480  # width of an image in pixels: most are so wide
_UNPAIRED = 8  # images without a ground truth on a sheet, two in a row


def draw_sheet(images: OpenSet, result: dict | None, peers: Sequence[Peer], restorer: Restorer, folder: Path) -> None:
    """Draws the sheet of a set into folder/NAME.png.

    Args:
        images: The set.
        result: What was measured of it; None: it has no ground truth.
        peers: The classical methods; the one of the highest mean PSNR is drawn.
        restorer: Ours.
        folder: Made if missing.

    Raises:
        DataError: The sheet cannot be written.
    """
    if result is None:
        title, columns, rows = _unpaired(images, restorer)
    else:
        title, columns, rows = _paired(images, result, peers, restorer)
    sheet = comparison_sheet(f'{images.set.name}: {images.set.folder}', title, columns, rows, _CELL)
    write_photo(folder / f'{images.set.name}.png', Photo(np.asarray(sheet)))


def _paired(
    images: OpenSet, result: dict, peers: Sequence[Peer], restorer: Restorer
) -> tuple[str, list[str], list[Row]]:
    peers = sorted(peers, key=lambda peer: -(result['peers'][peer.name]['psnr'] or np.inf))[:1]
    gains = [_psnr(record['ours']) - _psnr(record['input']) for record in result['images']]
    order = np.argsort(gains, kind='stable')[::-1].tolist()
    chosen = dict.fromkeys([order[0], order[len(order) // 2], order[-1]])
    labels = ['best', 'median', 'worst'] if len(chosen) == 3 else ['best', 'worst']
    rows = []
    for label, index in zip(labels, chosen):
        sample, record = images[index], result['images'][index]
        restored = [peer(sample.lq) for peer in peers] + [restorer(sample.lq)]
        scores = [record['input'], *(record['peers'][peer.name] for peer in peers), record['ours']]
        rows.append(Row(label, [sample.lq, *restored, sample.gt], [*map(_caption, scores), sample.name]))
    subtitle = f'Best, median and worst of {len(order)} images by gain in PSNR over the input; PSNR / SSIM.'
    return subtitle, ['input', *(peer.name for peer in peers), 'ours', 'ground truth'], rows


def _unpaired(images: OpenSet, restorer: Restorer) -> tuple[str, list[str], list[Row]]:
    cells = []
    for index in np.linspace(0, len(images), min(_UNPAIRED, len(images)), endpoint=False).astype(int).tolist():
        sample = images[index]
        probabilities = sorted(restorer.degradations(sample.lq).items(), key=lambda item: -item[1])
        seen = ', '.join(f'{name} {share:.2f}' for name, share in probabilities[:2])
        cells.append([(sample.lq, sample.name), (restorer(sample.lq), seen)])
    if len(cells) % 2:
        cells.append([(np.full_like(image, 255), '') for image, _ in cells[-1]])
    rows = []
    for first, second in zip(cells[::2], cells[1::2]):
        pictures, captions = zip(*first, *second)
        rows.append(Row('', pictures, captions))
    return 'No ground truth; below ours, what the router sees.', ['input', 'ours'] * 2, rows


def _psnr(scores: dict) -> float:
    return 100.0 if scores['psnr'] is None else scores['psnr']  # of identical images: more than any other


def _caption(scores: dict) -> str:
    psnr = 'identical' if scores['psnr'] is None else f'{scores["psnr"]:.2f} dB'
    return f'{psnr} / {scores["ssim"]:.3f}'
