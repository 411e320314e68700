"""The kinds of values that options hold, made of `specs`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from basicsr.utils import registry

from lorair_arch.schema import Items, Section, Spec, Typed, Value


def registered(kind: str, section: Callable[[str], Section | None] = lambda name: None, **options: Any) -> Typed:
    """A mapping whose type is in one of BasicSR's registries: 'arch', 'dataset', 'loss' or 'metric'."""
    what = f'{"network" if kind == "arch" else kind} type'
    return Typed(what=what, types=lambda: names_of(kind), section=section, **options)


def names_of(kind: str) -> list[str]:
    """All names in one of BasicSR's registries; some of its own have a suffix that options leave out."""
    return [name.removesuffix('_basicsr') for name, _ in getattr(registry, f'{kind.upper()}_REGISTRY')]


def call(function: Callable, skip: Iterable[str] = (), known: Mapping[str, Spec] | None = None, **more: Any) -> Section:
    """Describes the keyword arguments of a function or class; those with a default have values of its type.

    Args:
        function: What will be called with the mapping.
        skip: Parameters that the program gives.
        known: What parameters of these names may be, where the function has them.
        **more: The other attributes of the section.
    """
    keys = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in skip and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            required = parameter.default is parameter.empty
            keys[name] = replace((known or {}).get(name) or like(parameter.default), required=required)
    return Section(keys=keys, **more)


def like(default: Any) -> Spec:
    """Describes values of the type of a default, as far as it tells."""
    if isinstance(default, bool):
        return boolean()
    if _is_number(default):
        return number()
    if isinstance(default, str):
        return text()
    if isinstance(default, tuple) and default and all(map(_is_number, default)):
        return Items(item=number())
    return anything()


def anything(**options: Any) -> Value:
    return Value(accepts=lambda value: True, expected='a value', **{'null': True, **options})


def boolean(**options: Any) -> Value:
    return Value(accepts=lambda value: isinstance(value, bool), expected='true or false', **options)


def text(**options: Any) -> Value:
    return Value(accepts=lambda value: isinstance(value, str) and bool(value.strip()), expected='a text', **options)


def folder_name(**options: Any) -> Value:
    """A text that names a folder, not a path to it: results must not land elsewhere."""
    return Value(
        accepts=_is_folder_name,
        expected='a name for a folder, without slashes',
        **options,
    )


def one_of(*choices: Any, **options: Any) -> Value:
    return Value(
        accepts=lambda value: any(value is c or (isinstance(c, str) and value == c) for c in choices),
        expected=' or '.join(map(str, choices)).replace('True', 'true'),
        **options,
    )


def number(low: float = -math.inf, high: float = math.inf, above: float | None = None, **options: Any) -> Value:
    """A number in [low, high], or in (above, high]."""
    bottom = f'above {above:g}' if above is not None else f'at least {low:g}' if low > -math.inf else ''
    top = f'at most {high:,}' if high < math.inf else ''

    def accepts(value: Any) -> bool:
        return _is_number(value) and low <= value <= high and (above is None or value > above)

    limits = ' and '.join(filter(None, (bottom, top)))
    return Value(accepts=accepts, expected=f'a number {limits}'.strip(), **options)


def integer(low: int = 0, high: float = math.inf, **options: Any) -> Value:
    """A whole number in [low, high]; BasicSR's files also write it as a float (5e3)."""
    return Value(
        accepts=lambda value: _is_number(value) and low <= value <= min(high, 2**63) and value == int(value),
        expected=f'a whole number, at least {low}' + (f' and at most {high:,}' if high < math.inf else ''),
        convert=int,
        **options,
    )


def _is_folder_name(value: Any) -> bool:
    # what is added to a name, such as the time, must fit into the 255 bytes of a file system too
    return (
        isinstance(value, str)
        and value.isprintable()
        and value.strip(' .') != ''
        and not set('/\\') & set(value)
        and len(value.encode()) <= 200
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, float) and abs(value) < 1e30  # float32 must be able to compute with it
