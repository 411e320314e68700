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

# torchvision's own schemas of the operators that its Python half registers fakes for on import.
_MISSING_OPS = (
    'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
)
_LIBRARIES = []  # what is defined lives as long as they do


def install() -> None:
    """Lets the imports of BasicSR and torchvision run through this package; more than once does no harm."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())  # first: whoever stands before it would load BasicSR unmended
    if sys.modules.get('basicsr'):  # it was possible without us; training and the registries still need the rest
        from lorair_arch.compat import mending

        mending.mend()
        mending.register()


def _join_basicsr(load: Callable[[], None]) -> None:
    from lorair_arch.compat import mending

    # Without, `import basicsr` fails. Mended is what exists, and registered into what is whole: both come after.
    mending.make_importable()
    load()
    mending.mend()
    mending.register()


def load_with_operators(load: Callable[[], None]) -> None:
    """Imports torchvision also where its operators cannot be loaded.

    Neither BasicSR nor open_clip nor this package uses the operators; their schemas are enough for the import.

    Args:
        load: Executes the module of torchvision.
    """
    try:
        load()
    except RuntimeError as error:
        # As with a CPU build of PyTorch and the registry's torchvision, which is built for CUDA.
        if 'operator torchvision::' not in str(error):
            raise
        import torch

        # Halves of the failed import would be taken for whole ones.
        for name in [name for name in sys.modules if name.startswith('torchvision.')]:
            del sys.modules[name]
        # A fragment, of which a namespace may have several; of whole libraries PyTorch allows it one.
        _LIBRARIES.append(torch.library.Library('torchvision', 'FRAGMENT'))
        for schema in _MISSING_OPS:
            _LIBRARIES[-1].define(schema)
        load()


_JOINED = {'basicsr': _join_basicsr, 'torchvision': load_with_operators}


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
