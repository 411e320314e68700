"""BasicSR, and the packages that add to it."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points

from lorair_arch.errors import LoRAIRError

logger = logging.getLogger('lorair_arch')


def load_plugins() -> None:
    """Lets BasicSR, and every installed package that declares a `basicsr.plugins` entry point, register their classes.

    Raises:
        LoRAIRError: BasicSR is not installed.
    """
    try:
        import basicsr  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != 'basicsr':  # BasicSR is there, and lacks something itself
            raise
        raise LoRAIRError(
            'training and testing need BasicSR, which is not installed: pip install basicsr (Python 3.10 to 3.12)'
        ) from error
    for plugin in entry_points(group='basicsr.plugins'):
        if plugin.module == 'lorair_arch':
            continue
        try:
            loaded = plugin.load()
            if callable(loaded):
                loaded()
        except Exception as error:  # whatever is wrong with another package must not stop this run
            logger.warning(f'the BasicSR plugin {plugin.name!r} ({plugin.value}) cannot be loaded: {error!r}')
