"""The results of zoo_results.py: kept in a JSON file, with what classical methods gave, and shown as a table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lorair_arch.errors import DataError
from lorair_arch.files import check_folder, exists, write_json

_COLUMNS = ('set', 'images', 'input', 'classical (s/MP)', 'ours (s/MP)', 'right expert', 'router', 'memory')
_WRITE_EVERY = 10  # seconds, while single images are measured


class ResultsFile:
    """Results of sets, and of classical methods on single images, which take long and never change.

    Args:
        path: A JSON file; one that exists is read, and written again as results come. None: nothing is kept.

    Attributes:
        sets: What is known of each set, by name: the means, and 'images', a record of each.

    Raises:
        DataError: The file is something else.
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self.sets, self._peers, self._written = path, {}, {}, time.monotonic()
        if path is None:
            return
        check_folder(path.parent)
        if exists(path):
            try:
                content = json.loads(path.read_text(encoding='utf-8'))
                self.sets, self._peers = content['sets'], content['peers']
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"--json: '{path}' holds something else than results: name another file") from error

    def remembered(self, key: str, measure: Callable[[], dict]) -> dict:
        """Gives what is known under a key, or measures it and keeps that."""
        if key not in self._peers:
            self._peers[key] = measure()
            if time.monotonic() - self._written > _WRITE_EVERY:
                self._write()
        return self._peers[key]

    def add(self, name: str, result: dict) -> None:
        """Adds the means over a set's images to its result, and keeps it in the place of an older one."""
        images = result['images']
        means = {'input': _mean(image['input'] for image in images)}
        means['peers'] = {
            peer: _mean((image['peers'][peer] for image in images), images) for peer in images[0]['peers']
        }
        if 'ours' in images[0]:
            means['ours'] = _mean((image['ours'] for image in images), images)
        if 'forced' in images[0]:
            means['forced'] = _mean(image['forced'] for image in images)
        if 'recognised' in images[0]:
            means['router_accuracy'] = sum(image['recognised'] for image in images) / len(images)
        self.sets[name] = means | result
        self._write()

    def _write(self) -> None:
        if self._path is not None:
            write_json(self._path, {'sets': self.sets, 'peers': self._peers})
            self._written = time.monotonic()


def title(about: dict) -> str:
    """Gives the head of the table."""
    machine = about['machine']
    weights = f'{about["weights"]} ({about["digest"]})' if 'weights' in about else 'none'
    return (
        f'Weights: {weights}; {machine.get("gpu", machine["cpu"])}, {machine["threads"]} threads; PSNR in dB / SSIM\n\n'
        f'| {" | ".join(_COLUMNS)} |\n{"|---" * len(_COLUMNS)}|\n'
    )


def row(name: str, result: dict) -> str:
    """Gives one row of the table."""
    peers = '; '.join(f'{peer} {_scores(values)}' for peer, values in result['peers'].items())
    accuracy, peak = result.get('router_accuracy'), result.get('peak_bytes')
    cells = (
        name,
        str(len(result['images'])),
        _scores(result['input']),
        peers or '-',
        _scores(result.get('ours')),
        _scores(result.get('forced')),
        '-' if accuracy is None else f'{accuracy:.0%}',
        '-' if peak is None else f'{peak / 2**20:.0f} MiB',
    )
    return f'| {" | ".join(cells)} |\n'


def _scores(values: dict | None) -> str:
    if values is None:
        return '-'
    psnr = 'identical' if values['psnr'] is None else f'{values["psnr"]:.2f}'
    seconds = f' ({values["seconds_per_megapixel"]:.3g})' if 'seconds_per_megapixel' in values else ''
    return f'{psnr} / {values["ssim"]:.3f}{seconds}'


def _mean(scores: Iterable[dict], timed: list[dict] | None = None) -> dict[str, float | None]:
    """Gives the mean PSNR (None, infinite, if one of them is) and SSIM and, of timed images, the seconds."""
    scores = list(scores)
    psnrs = [score['psnr'] for score in scores]
    mean = {
        'psnr': None if None in psnrs else sum(psnrs) / len(psnrs),
        'ssim': sum(score['ssim'] for score in scores) / len(scores),
    }
    if timed is not None:
        pixels = sum(image['megapixels'] for image in timed)
        mean['seconds_per_megapixel'] = sum(score['seconds'] for score in scores) / pixels
    return mean
