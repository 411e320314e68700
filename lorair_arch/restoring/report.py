"""A page to look at after a run: one HTML file with all in it, before and after of each image under a slider."""

from __future__ import annotations

import base64
import html
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from lorair_arch.errors import OptionsError, OutputError
from lorair_arch.files import cannot_write, check_output, exists, writing
from lorair_arch.restoring.run import FAILED, RESTORED, SKIPPED, Outcome
from lorair_arch.restoring.settings import SAME, Settings
from lorair_arch.weights.pretrained import Paths

_START = '<!DOCTYPE html>\n<meta charset="utf-8">\n<meta name="generator" content="LoRA-IR restore report">\n'
_MOST_BARS = 6
# The policy lets a browser fetch nothing, whatever a name might smuggle in.
_HEAD = """\
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Restored images</title>
<style>
:root { --ink: #1b1f24; --dim: #57606a; --paper: #f5f6f8; --card: #fff; --line: #d8dde3; --bar: #2f6fd6;
  --bad: #b42318; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --dim: #a4adb8; --paper: #14171b; --card: #1e2227; --line: #353b43; --bar: #6ea8ff;
    --bad: #ff8a7d; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 16px; max-width: 1500px; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5em; margin: 0 0 12px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 0 0 16px; }
dt, .dim { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 14px;
  align-items: start; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
article > div:last-child { padding: 10px 12px; }
h2 { font-size: 1em; margin: 0; overflow-wrap: anywhere; }
section { margin: 0 0 16px; }
p { margin: 2px 0 0; overflow-wrap: anywhere; }
.bad { color: var(--bad); }
.pair { position: relative; overflow: hidden; max-height: 80vh; margin: 0 auto; }
.pair img { position: absolute; width: 100%; height: 100%; object-fit: fill; }
.pair img + img { clip-path: inset(0 0 0 var(--x, 50%)); }
.pair::after { content: ''; position: absolute; top: 0; bottom: 0; left: var(--x, 50%); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 3px #000; pointer-events: none; }
.pair:focus-within { outline: 3px solid var(--bar); outline-offset: -3px; }
.pair input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
  touch-action: pan-y; z-index: 1; }
.pair span { position: absolute; bottom: 6px; left: 6px; padding: 0 7px; border-radius: 4px; font-size: 12px;
  background: #000a; color: #fff; }
.pair span + span { left: auto; right: 6px; }
ul { list-style: none; margin: 8px 0 0; padding: 0; font-size: 13px; }
li { display: grid; grid-template-columns: 7em 1fr 3em; gap: 8px; align-items: center; }
li > :first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
li > :last-child { text-align: right; }
li i { display: block; height: 7px; border-radius: 4px; background: var(--line); }
li b { display: block; height: 100%; min-width: 2px; border-radius: 4px; background: var(--bar); }
</style>
"""
# A slider by its own lets some phones drag the thumb alone: here a touch anywhere moves the line.
_SCRIPT = """\
<script>
const show = slider => slider.parentNode.style.setProperty('--x', slider.value + '%');
const drag = event => {
  const slider = event.target;
  if (slider.type !== 'range' || !event.buttons) return;
  const box = slider.getBoundingClientRect();
  slider.value = 100 * (event.clientX - box.left) / box.width;
  show(slider);
};
addEventListener('input', event => show(event.target));
addEventListener('pointerdown', drag);
addEventListener('pointermove', drag);
</script>
"""


def check_report(path: Path, overwrite: bool) -> None:
    """Raises an error if a page may not be written: an earlier one may be replaced, another page if asked for.

    Raises:
        OptionsError: The name is that of no page; whatever else it may be of, an image or weights, is not replaced.
        OutputError: The file exists, or cannot be written.
    """
    if path.suffix.lower() not in ('.html', '.htm'):
        raise OptionsError(f"--report: '{path}' is the name of no page: let it end in .html")
    check_output(path, overwrite or (exists(path) and _is_report(path)))


class Report:
    """Collects what a page shows, on the disk and not in memory, and writes the page at the end.

    Args:
        path: The page.
        weights, settings, restorer: What the summary tells of; no `Restorer` if all images were done.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path, weights: Paths, settings: Settings, restorer) -> None:
        self.path, self.about = path, _about(weights, settings, restorer)
        self.count = dict.fromkeys((RESTORED, SKIPPED, FAILED), 0)
        self.errors: list[str] = []
        self.start = time.perf_counter()
        self._cards: BinaryIO | None = None

    def __enter__(self) -> Report:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Beside the page, as the system's folder for such files may be memory; without a name, so that it goes
            # however the process ends.
            self._cards = tempfile.TemporaryFile(dir=self.path.parent)
        except OSError as error:
            raise OutputError(cannot_write(self.path, error)) from error
        return self

    def __exit__(self, *_) -> None:
        self._cards.close()

    def add(self, outcome: Outcome) -> None:
        """Adds an image; raises an OutputError if the disk is full."""
        self.count[outcome.status] += 1
        if outcome.error:
            self.errors.append(outcome.error)
            return
        try:
            self._cards.write(_encoded(card(outcome)))
        except OSError as error:
            raise OutputError(cannot_write(self.path, error)) from error

    def finish(self) -> None:
        """Writes the page, whole or not at all; raises an OutputError if it cannot."""
        try:
            self._cards.seek(0)
            with writing(self.path) as file:
                file.write(_encoded(_START + _HEAD + self._summary() + '<main>\n'))
                shutil.copyfileobj(self._cards, file)
                file.write(_encoded('</main>\n' + _SCRIPT))
        except OSError as error:
            raise OutputError(cannot_write(self.path, error)) from error

    def _summary(self) -> str:
        seconds = time.perf_counter() - self.start
        count = self.count
        rows = {'restored': str(count[RESTORED])}
        if count[RESTORED]:
            rows['restored'] += f', {count[RESTORED] / seconds:.2f} images/s'
        if count[SKIPPED]:
            rows['earlier'] = f'{count[SKIPPED]}, restored in an earlier run'
        if count[FAILED]:
            rows['failed'] = str(count[FAILED])
        rows |= self.about | {'date': time.strftime('%Y-%m-%d %H:%M')}
        title = f'{sum(count.values())} image{"s" if sum(count.values()) != 1 else ""}'
        terms = ''.join(
            f'<dt>{html.escape(name)}<dd{" class=bad" if name == "failed" else ""}>{html.escape(value)}\n'
            for name, value in rows.items()
        )
        errors = ''.join(f'<p class="bad">{html.escape(error)}</p>\n' for error in self.errors)
        return f'<h1>{title}</h1>\n<dl>\n{terms}</dl>\n<section>\n{errors}</section>\n'


def card(outcome: Outcome) -> str:
    """Gives what the page shows of an image that is restored."""
    name = html.escape(outcome.job.name)
    parts = ['<article>']
    if outcome.pictures:
        width, height = outcome.size
        images = ''.join(
            f'<img alt="{alt}" src="data:image/webp;base64,{base64.b64encode(picture).decode()}">'
            for alt, picture in zip(('original', 'restored'), outcome.pictures)
        )
        # As wide as the card, but not so tall that the slider leaves the screen.
        size = f'aspect-ratio: {width} / {height}; max-width: calc(80vh * {width / height:.4f})'
        parts.append(
            f'<div class="pair" style="{size}">{images}<span>original</span><span>restored</span>'
            f'<input type="range" aria-label="original or restored: {name}"></div>'
        )
    parts.append(f'<div><h2>{name}</h2>')
    facts = [f'{outcome.size[0]} × {outcome.size[1]}'] if outcome.size else []
    if outcome.seconds is not None:
        facts.append(f'{outcome.seconds:.1f} s')
    if outcome.tile:
        facts.append(f'tiles of {outcome.tile}')
    if outcome.status == SKIPPED:
        facts.append('restored in an earlier run')
    if facts:
        parts.append(f'<p class="dim">{" · ".join(facts)}</p>')
    parts += [f'<p class="dim">{html.escape(note)}</p>' for note in outcome.notes]
    if outcome.degradations:
        parts.append(_bars(outcome.degradations))
    return ''.join(parts) + '</div></article>\n'


def _bars(degradations: Mapping[str, float]) -> str:
    """Draws what the router saw, the likeliest first."""
    likeliest = sorted(degradations.items(), key=lambda item: -item[1])[:_MOST_BARS]
    rows = (
        f'<li><span>{html.escape(name)}</span><i><b style="width: {100 * value:.1f}%"></b></i>'
        f'<span>{100 * value:.0f} %</span></li>'
        for name, value in likeliest
    )
    return f'<ul aria-label="what the router saw">{"".join(rows)}</ul>'


def _about(weights: Paths, settings: Settings, restorer) -> dict[str, str]:
    names = [weights] if isinstance(weights, (str, os.PathLike)) else weights
    degradation = settings.degradation
    if isinstance(degradation, Mapping):
        degradation = ', '.join(f'{name} {weight:g}' for name, weight in degradation.items())
    about = {'weights': ', '.join(map(str, names)), 'degradation': degradation, 'strength': f'{settings.strength:g}'}
    about['tile'] = str(settings.tile)
    about['format'] = "each image's own" if settings.format == SAME else settings.format or 'png'
    if restorer:
        about['device'] = f'{restorer.device}, {restorer.precision}'
    return about


def _is_report(path: Path) -> bool:
    with path.open('rb') as file:
        return file.read(len(_START)) == _START.encode()


def _encoded(text: str) -> bytes:
    return text.encode('utf-8', 'backslashreplace')  # names of files may be any bytes
