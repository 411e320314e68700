"""Networks: the method (`experts`, `nafblock`, ...), and what makes it fast (`kernels`). Free of BasicSR."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

_OWN = {'LoRAIR': 'lorair_arch', 'DegradationRouter': 'degradation_router_arch'}


def network_class(name: str) -> type:
    """Gives a network of this package, or one of BasicSR's or a plugin's, by the name in options and files of weights.

    Raises:
        KeyError: There is none of this name.
    """
    # Not by BasicSR's registry alone: restoring must work where BasicSR is not installed.
    if name in _OWN:
        with uncollected():  # open_clip, and all that it brings along
            return getattr(import_module(f'{__name__}.{_OWN[name]}'), name)
    try:
        from basicsr.utils.registry import ARCH_REGISTRY
    except ModuleNotFoundError as error:
        raise KeyError(f'{name} is not of this package, and BasicSR is not installed') from error
    return ARCH_REGISTRY.get(name)


@contextmanager
def uncollected() -> Iterator[None]:
    """Makes imports quicker: the garbage collector would look through what they make again and again.

    Importing torch and open_clip takes 0.8 of the time so (6 runs, two cores of an AMD EPYC).
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
