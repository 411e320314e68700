"""Where BasicSR is joined: it is mended, and all that this package adds is registered, the moment that it is imported.

Whoever imports BasicSR, in whichever order, gets the same; who does not need it, as `lorair restore`, never waits for
it. Import hooks of libraries (wrapt's) run after a module has been imported; BasicSR 1.4.2 cannot be before it is
mended.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def install() -> None:
    """Lets the imports of BasicSR and torchvision run through this package; more than once does no harm."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    if sys.modules.get('basicsr'):  # it was possible without us; training and the registries still need the rest
        from lorair_arch.compat import mending

        mending.mend()
        mending.register()


def _join_basicsr(load: Callable[[], None]) -> None:
    from lorair_arch.compat import mending

    mending.make_importable()
    load()
    mending.mend()
    mending.register()


def _join_torchvision(load: Callable[[], None]) -> None:
    from lorair_arch.compat.torchvision_ops import load_with_operators

    load_with_operators(load)


_JOINED = {'basicsr': _join_basicsr, 'torchvision': _join_torchvision}


class _Finder(MetaPathFinder):
    """Finds two packages where they are, and has `_JOINED` load them."""

    def __init__(self) -> None:
        self._asking = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _JOINED or self._asking:
            return None
        self._asking = True  # the finders behind this one know
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: _JOINED[name](lambda: execute(module))
        return spec
