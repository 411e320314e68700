"""LoRA-IR for BasicSR: all-in-one image restoration with low-rank experts (arXiv 2410.15385).

Importing the package takes milliseconds. Whenever BasicSR is imported, before or afterwards, the networks, models, data
sets, losses and metrics of this package are in its registries.
"""

from importlib import import_module

from lorair_arch import compat

__version__ = '0.1.0'
__all__ = ['Restorer', 'register', 'register_spandrel']

# Here, so that no order of imports matters; it imports nothing heavy itself.
compat.install()


def register() -> None:
    """Registers everything with BasicSR, by importing it; more than once does no harm."""
    import basicsr  # noqa: F401


def register_spandrel() -> None:
    """Lets spandrel's `ModelLoader` load the single file that `save_pretrained` and `lorair convert` write."""
    from lorair_arch.errors import LoRAIRError

    try:
        import spandrel  # noqa: F401
    except ModuleNotFoundError as error:
        raise LoRAIRError('spandrel is not installed: pip install spandrel') from error
    from lorair_arch.weights.spandrel import register

    register()


def __getattr__(name: str):
    if name == 'Restorer':  # not at the top: it needs PyTorch, and --help does not
        return import_module(f'{__name__}.restoring.restorer').Restorer
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
