"""`lorair demo`: a page on which to drop a photograph, with before and after under a slider."""

from __future__ import annotations

import contextlib
import html
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import complete_photo
from lorair_arch.data.images.writing import encode_photo, left_out
from lorair_arch.errors import DataError, LoRAIRError, OptionsError
from lorair_arch.files import write_file
from lorair_arch.restoring.comparing import reduced
from lorair_arch.restoring.examples import write_examples
from lorair_arch.restoring.marks import mark
from lorair_arch.restoring.restorer import AUTO, Restorer
from lorair_arch.weights.pretrained import Paths

logger = logging.getLogger('lorair_arch')

MOST_MEGABYTES, MOST_MEGAPIXELS = 50, 25  # of 2**20 bytes, of 10**6 pixels
WAITING = 20  # visitors; nothing of theirs is in memory before it is their turn
_KEPT = 3600  # seconds that files stay
_SIDE = 1600  # pixels of what the slider shows, at most: it is seen on screens and sent to phones
_CSS = """
#message .html-container { padding: 0; }
#message p { margin: 0; overflow-wrap: anywhere; }
#message .bad { color: var(--error-text-color); font-weight: 600; }
@media (max-width: 700px) { #result { min-height: 100vh; scroll-margin-top: 4rem; } }
"""
# On phones the result is below what was touched, and as tall as the screen, so that it can be scrolled to the top
# before its pictures are there.
_SHOW_RESULT = """() => {
  const result = document.getElementById('result'), top = result.getBoundingClientRect().top;
  if (top < 0 || top > innerHeight / 2) result.scrollIntoView({behavior: 'smooth'});
}"""


class Shown(NamedTuple):
    """A restored photograph, for the page.

    Attributes:
        pictures: Files of before and after, as they look on a screen.
        result: The file to download, as `lorair restore` writes it.
        degradations: Their probabilities, as the router saw the photograph.
        facts: Size, time, and what was left out or changed, a clause each.
    """

    pictures: tuple[str, str]
    result: str
    degradations: dict[str, float]
    facts: list[str]


def serve(
    weights: Paths, device: str | None = None, precision: str | None = None, host: str = '127.0.0.1', port: int = 7860
) -> None:
    """Serves the page until a signal ends it; all that visitors have left is deleted then.

    Args:
        weights, device, precision: See `Restorer.from_pretrained`.
        host: Address to listen on; that of this machine alone unless said otherwise.
        port: To listen on; 0: any that is free.

    Raises:
        CheckpointError: The weights cannot be used.
        LoRAIRError: Gradio is not installed.
        OptionsError: There is no such address or device, or the port is taken.
    """
    with _own_folder() as folder, contextlib.closing(_listening(host, port)) as listening:
        gradio = _gradio()
        restorer = Restorer.from_pretrained(weights, device, precision)
        names = [weights] if isinstance(weights, (str, os.PathLike)) else weights
        page = make_page(gradio, restorer, f'{", ".join(map(str, names))} on {restorer.device}', folder)
        app = _app(gradio, page)
        import uvicorn

        # visitors keep a connection open, for which an end would wait
        config = uvicorn.Config(app, log_level='warning', timeout_graceful_shutdown=1)
        logger.info(f'http://{f"[{host}]" if ":" in host else host}:{listening.getsockname()[1]} (Ctrl-C ends it)')
        uvicorn.Server(config).run([listening])


def restore_upload(restorer: Restorer, path: str, degradation: str, strength: float, folder: Path) -> Shown:
    """Restores what a visitor has uploaded, as `lorair restore` does.

    Args:
        restorer: The networks.
        path: The file.
        degradation, strength: See `Restorer`.
        folder: Gets a folder of its own for the results, of a name that nobody guesses.

    Raises:
        DataError: It is no image, damaged, or too large.
        OptionsError: `degradation` or `strength` is wrong.
        OutputError: The results cannot be written.
    """
    before, start = _read(path), time.perf_counter()
    found = restorer.restore(before.pixels, degradation, strength)
    seconds = time.perf_counter() - start
    after = before._replace(pixels=found.image)
    into = Path(tempfile.mkdtemp(dir=folder))
    result = into / f'{Path(path).stem}_restored.png'
    write_file(result, mark(encode_photo(after, '.png'), '.png'))
    pictures = str(into / 'before.webp'), str(into / 'after.webp')
    for photo, picture in zip((before, after), pictures):
        reduced(photo, _SIDE).save(picture, quality=92, method=2)
    height, width = before.pixels.shape[:2]
    facts = [f'{width} × {height} pixels', f'restored in {seconds:.1f} s', *after.notes, *left_out(after, '.png')]
    return Shown(pictures, str(result), found.degradations, facts)


def make_page(gradio: ModuleType, restorer: Restorer, about: str, folder: Path) -> Any:
    """Builds the page.

    Args:
        gradio: The package.
        restorer: The networks.
        about: Which weights they are, and where they run.
        folder: For what the page gives out.

    Returns:
        Blocks of Gradio.
    """
    gr, has_experts = gradio, bool(restorer.net.num_experts)
    examples = [str(path) for path in write_examples(folder / 'examples', restorer.names)]

    def restore(path: str | None, degradation: str, strength: float) -> tuple:
        try:
            shown = path and restore_upload(restorer, path, degradation, strength, folder)
        except LoRAIRError as error:
            shown, text = None, f'<p role="alert" class="bad">{html.escape(str(error))}</p>'
        else:
            text = shown and f'<p role="status">{html.escape("; ".join(shown.facts))}</p>'
        download = gr.DownloadButton(value=shown and shown.result, interactive=bool(shown))
        seen = shown and shown.degradations
        return gr.HTML(text, visible=bool(text)), shown and shown.pictures, download, seen

    with gr.Blocks(title='LoRA-IR', analytics_enabled=False, delete_cache=(_KEPT // 6, _KEPT)) as page:
        gr.Markdown(
            '# LoRA-IR\nDrop a photograph: what is wrong with it is recognised and removed. At most '
            f'{MOST_MEGABYTES} MB and {MOST_MEGAPIXELS} megapixels; it is deleted after an hour.'
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = gr.File(label='Photograph', height=150)
                samples = gr.Dataset(
                    label='Examples',
                    components=[gr.Image(visible=False)],
                    samples=[[path] for path in examples],
                    type='index',
                )
                chosen = gr.Dropdown(
                    [('auto: the router decides', AUTO), *restorer.names],
                    value=AUTO,
                    label='Experts',
                    info='Of which degradation.' if has_experts else 'These weights have none to choose from.',
                    interactive=has_experts,
                    filterable=False,  # no keyboard on phones
                )
                strength = gr.Slider(0, 1, 1, step=0.05, label='Strength', info='0 changes nothing.')
                button = gr.Button('Restore', variant='primary')
            with gr.Column(scale=5, min_width=300, elem_id='result'):
                message = gr.HTML(visible=False, elem_id='message')
                pictures = gr.ImageSlider(label='Before and after', interactive=False, buttons=['fullscreen'])
                download = gr.DownloadButton('Download the result (PNG)', interactive=False)
                seen = gr.Label(label='What the router saw', show_heading=False)
                gr.Markdown(f'Weights: {about}')
        samples.click(lambda number: examples[number], samples, photo, queue=False, api_visibility='private')
        gr.on(
            [photo.change, chosen.input, strength.release, button.click],
            restore,
            [photo, chosen, strength],
            [message, pictures, download, seen],
            concurrency_limit=1,  # the networks take all cores, or the GPU, already
            trigger_mode='always_last',
            api_visibility='private',
        ).then(None, js=_SHOW_RESULT)
    return page.queue(max_size=WAITING, api_open=False)


def _read(path: str) -> Photo:
    name = os.path.basename(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"'{name}' is not here any more: drop it again") from error
    if len(content) > MOST_MEGABYTES * 2**20:
        raise DataError(f"'{name}' has {len(content) / 2**20:.1f} MB, at most {MOST_MEGABYTES} are taken")
    return complete_photo(content, name, MOST_MEGAPIXELS * 10**6)


def _gradio() -> ModuleType:
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise LoRAIRError("lorair demo needs Gradio, which is not installed: pip install 'lorair[demo]'") from error
    return gradio


def _app(gradio: ModuleType, page: Any) -> Any:
    from fastapi import FastAPI

    # Not `launch`, which needs a way to itself through the proxies of the environment and would share pages if asked
    # to by a variable of it.
    return gradio.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        '/',
        theme=gradio.themes.Default(font=gradio.themes.Font('system-ui'), font_mono=gradio.themes.Font('monospace')),
        css=_CSS,
        footer_links=[],
        max_file_size=MOST_MEGABYTES * 2**20,
        run_history=False,  # which browsers would keep
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise OptionsError(f'--port: found {port}, expected 0 to 65535')
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ':' in host else socket.AF_INET)
    except OSError as error:
        # Python adds the address to what the system says; of names that are not found the system has no such words
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno)
        raise OptionsError(f'--host, --port: cannot listen on {host}, port {port} ({reason}); choose others') from error


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """Gives a folder for uploads and results, which goes at the end."""
    with tempfile.TemporaryDirectory(prefix='lorair-demo-', ignore_cleanup_errors=True) as folder:
        # both are read when Gradio is imported
        os.environ |= {'GRADIO_TEMP_DIR': os.path.realpath(folder), 'GRADIO_ANALYTICS_ENABLED': 'False'}
        yield Path(os.path.realpath(folder))
