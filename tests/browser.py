"""A headless Chromium, for what people look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

# Without a look at the world outside, which Chromium takes by itself.
_FLAGS = [
    *('--no-sandbox', '--disable-gpu', '--no-first-run'),
    *('--disable-background-networking', '--disable-component-update', '--disable-sync'),
]


@pytest.fixture(scope='module')
def browser() -> Iterator:
    """Debian's Chromium, driven by Playwright."""
    playwright = pytest.importorskip('playwright.sync_api', reason='needs playwright (the extra dev)')
    path = shutil.which('chromium')
    if not path:
        pytest.skip('needs Chromium (apt-get install chromium)')
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()


class Visitor:
    """A page, and what went wrong in it.

    Args:
        browser: Chromium. All visitors with screens of the same width share what it has loaded: that takes seconds.
        width: Of the screen, in pixels.

    Attributes:
        page: Playwright's.
        errors: What the console said.
        outside: Addresses that it asked beside its own server's.
    """

    def __init__(self, browser, width: int = 1280) -> None:
        screen = {'width': width, 'height': 812}
        contexts = {context.pages[0].viewport_size['width']: context for context in browser.contexts}
        context = contexts.get(width) or browser.new_context(viewport=screen, has_touch=width < 500)
        context.pages or context.new_page()  # which stays, and the context with it
        self.page = context.new_page()
        self.page.set_default_timeout(60_000)  # machines may be busy
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.page.on('console', lambda message: message.type == 'error' and self.errors.append(message.text))
        self.page.on('pageerror', lambda error: self.errors.append(str(error)))
        self.page.on('request', lambda request: self._asked(request.url))

    def _asked(self, url: str) -> None:
        if not url.startswith(('http://127.0.0.1:', 'file:', 'data:', 'blob:')):
            self.outside.append(url)

    def check(self) -> None:
        """Asserts that nothing went wrong, nobody else was asked, and the page is not wider than the screen."""
        assert not self.errors
        assert not self.outside
        width, screen = self.page.evaluate('[document.documentElement.scrollWidth, innerWidth]')
        assert width <= screen
