"""What options may be: small descriptions that check a value and say what they expected.

What a class takes is described once, beside the class (`OPTIONS`). Its constructor checks by it (`checked`), and so do
options files, long before anything is built.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lorair_arch.errors import OptionsError, did_you_mean

Report = Callable[[str, str], None]  # takes the place of a mistake ('train.total_iter') and what is wrong there


def checked(spec: Spec, value: Any, where: str = '', prefix: str = '') -> Any:
    """Checks what a constructor was given.

    Args:
        spec: What it takes.
        value: What it was given; it is not changed.
        where: The place of the value, such as 'sources[0]'.
        prefix: Stands before each sentence, such as "data set 'x': ".

    Returns:
        The value that the program should use.

    Raises:
        OptionsError: With every mistake on a line of its own.
    """
    mistakes: list[str] = []
    value = spec.check(value, where, lambda place, what: mistakes.append(f'{prefix}{place}: {what}'))
    if mistakes:
        raise OptionsError('\n'.join(mistakes))
    return value


def checks_options(spec: Section) -> Callable[[Callable], Callable]:
    """Lets a constructor check its arguments, such as by the `OPTIONS` of its class; `settings` keeps them."""

    def decorate(constructor: Callable) -> Callable:
        @functools.wraps(constructor)
        def check_first(self: Any, *args: Any, **kwargs: Any) -> None:
            # Bound first: arguments by place get the names that the description knows.
            given = inspect.signature(constructor).bind(self, *args, **kwargs).arguments
            self.settings = checked(spec, {key: given[key] for key in list(given)[1:]})
            constructor(self, **self.settings)

        return check_first

    return decorate


@dataclass(frozen=True)
class Spec:
    """What may stand under a key: whether it must be there, and whether it may be null."""

    required: bool = False
    null: bool = False
    # Without a type it is no field of the dataclass, and subclasses may compute it.
    expected = 'a mapping'

    def check(self, value: Any, where: str, report: Report) -> Any:
        """Reports every mistake in a value; returns the value that the program should use."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Value(Spec):
    """A single value: `accepts` tells whether it is right, `expected` what would be, `convert` changes its type."""

    accepts: Callable[[Any], bool]
    expected: str
    convert: Callable[[Any], Any] = lambda value: value

    def check(self, value: Any, where: str, report: Report) -> Any:
        if self.accepts(value):
            return self.convert(value)
        report(where, f'found {show(value)}, expected {self.expected}')
        return value


@dataclass(frozen=True, kw_only=True)
class Items(Spec):
    """A list of `length` items of one kind; of at least one, if no length is given. `single`: or an item alone."""

    item: Spec
    length: int | None = None
    single: bool = False

    @property
    def expected(self) -> str:
        alone = f'{self.item.expected}, or ' if self.single else ''
        return f'{alone}a list of {self.length or "one or more"}, each {self.item.expected}'

    def check(self, value: Any, where: str, report: Report) -> Any:
        if isinstance(value, (list, tuple)) and len(value) == (self.length or max(len(value), 1)):
            return [self.item.check(item, f'{where}[{i}]', report) for i, item in enumerate(value)]
        if self.single and not isinstance(value, (list, tuple)):
            return self.item.check(value, where, report)
        report(where, f'found {show(value)}, expected {self.expected}')
        return value


@dataclass(frozen=True, kw_only=True)
class Section(Spec):
    """A mapping.

    Attributes:
        keys: What may stand under each key.
        more: What may stand under other keys; None: there are none.
        also: Looks at the mapping as a whole if nothing else is wrong with it, and may fill in what follows from it:
            (mapping, report), where the place of a mistake is a key of the mapping, or '' for all of it.
    """

    keys: Mapping[str, Spec]
    more: Spec | None = None
    also: Callable[[dict, Report], None] | None = None

    def check(self, value: Any, where: str, report: Report) -> Any:
        if not isinstance(value, Mapping):
            report(where, f'found {show(value)}, expected {self.expected}')
            return value
        # A copy: what a constructor was given stays as it was, though `also` may fill in.
        found, mistakes = dict(value), []

        def counted(place: str, what: str) -> None:
            mistakes.append(place)
            report(place, what)

        for key, item in value.items():
            spec, place = self.keys.get(key, self.more), _inside(where, _label(key))
            if spec is None:
                counted(place, f'unknown key{did_you_mean(key, self.keys)}')
            elif item is not None or not spec.null:
                found[key] = spec.check(item, place, counted)
        for key, spec in self.keys.items():
            if spec.required and key not in value:
                counted(_inside(where, key), f'missing, expected {spec.expected}')
        if self.also and not mistakes:
            self.also(found, lambda key, what: report(_inside(where, key), what))
        return found


@dataclass(frozen=True, kw_only=True)
class Name(Spec):
    """One of many names; `what` says of what, for messages."""

    what: str
    names: Callable[[], Iterable[str]]

    @property
    def expected(self) -> str:
        return f'a {self.what}'

    def check(self, value: Any, where: str, report: Report) -> Any:
        names = list(self.names())
        if value not in names:
            report(where, f'unknown {self.what} {show(value)}{did_you_mean(value, names)}')
        return value


@dataclass(frozen=True, kw_only=True)
class Typed(Spec):
    """A mapping whose `type`, one of `types`, says which other keys it has; `what` says what types are, for messages.

    `section` gives what a type's mapping may hold; None: anything.
    """

    what: str
    types: Callable[[], Iterable[str]]
    section: Callable[[str], Section | None] = lambda name: None

    @property
    def expected(self) -> str:
        return f'a mapping with the key type, a {self.what}'

    def check(self, value: Any, where: str, report: Report) -> Any:
        if not isinstance(value, Mapping) or 'type' not in value:
            report(where, f'found {show(value)}, expected {self.expected}')
            return value
        name = value['type']
        known = Name(what=self.what, names=self.types).check(name, f'{where}.type', report) in list(self.types())
        section = self.section(name) if known else None
        if section is None:
            return value
        rest = {key: item for key, item in value.items() if key != 'type'}
        return {'type': name} | section.check(rest, where, report)


def takes(cls: Callable) -> Section:
    """Describes what a class takes: the `OPTIONS` beside its constructor or, if there are none, what that tells."""
    # Beside the constructor itself: a subclass with one of its own takes other arguments.
    owner = next((base for base in getattr(cls, '__mro__', ()) if '__init__' in vars(base)), cls)
    own = vars(owner).get('OPTIONS')
    return own if isinstance(own, Section) else call(cls)


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
    if isinstance(default, bool):  # before numbers, for bool is one in Python
        return boolean()
    if is_number(default):
        return number()
    if isinstance(default, str):
        return text()
    if isinstance(default, tuple) and default and all(map(is_number, default)):
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
    return Value(accepts=_is_folder_name, expected='a name for a folder, without slashes', **options)


def one_of(*choices: Any, **options: Any) -> Value:
    return Value(
        # `is`, for 1 == True in Python.
        accepts=lambda value: any(value is c or (isinstance(c, str) and value == c) for c in choices),
        expected=' or '.join(map(str, choices)).replace('True', 'true'),
        **options,
    )


def number(low: float = -math.inf, high: float = math.inf, above: float | None = None, **options: Any) -> Value:
    """A number in [low, high], or in (above, high]."""
    bottom = f'above {above:g}' if above is not None else f'at least {low:g}' if low > -math.inf else ''
    top = f'at most {high:,}' if high < math.inf else ''

    def accepts(value: Any) -> bool:
        return is_number(value) and low <= value <= high and (above is None or value > above)

    limits = ' and '.join(filter(None, (bottom, top)))
    return Value(accepts=accepts, expected=f'a number {limits}'.strip(), **options)


def integer(low: int = 0, high: float = math.inf, **options: Any) -> Value:
    """A whole number in [low, high]; BasicSR's files also write it as a float (5e3)."""
    return Value(
        accepts=lambda value: is_number(value) and low <= value <= min(high, 2**63) and value == int(value),
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


def is_number(value: Any) -> bool:
    """Tells whether a value is a number with which float32 can compute; true and false are none."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63  # PyTorch's integers have 64 bits
    return isinstance(value, float) and abs(value) < 1e30


def show(value: Any) -> str:
    """Writes a value as one short line."""
    if isinstance(value, dict):
        line = f'a mapping with the keys {", ".join(map(_label, value)) or "(none)"}'
    elif value is None or isinstance(value, bool):
        line = {None: 'null', True: 'true', False: 'false'}[value]  # as in YAML
    else:
        line = repr(value)
    return line if len(line) <= 80 else f'{line[:77]}...'


def _label(key: Any) -> str:
    """Writes a key; it must not break the line."""
    key = str(key)
    return key if key.isprintable() and 0 < len(key) <= 80 else show(key)


def _inside(where: str, key: str) -> str:
    return f'{where}.{key}' if where and key else where or key
