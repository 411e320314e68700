"""What options may be: small descriptions that check a value and say what they expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lorair_arch.errors import did_you_mean

Report = Callable[[str, str], None]  # takes the place of a mistake ('train.total_iter') and what is wrong there


@dataclass(frozen=True)
class Spec:
    """What may stand under a key.

    Attributes:
        required: The key must be there.
        null: Its value may be null.
    """

    required: bool = False
    null: bool = False
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
    """A list of `length` items of one kind; of at least one, if no length is given."""

    item: Spec
    length: int | None = None

    @property
    def expected(self) -> str:
        return f'a list of {self.length or "one or more"}, each {self.item.expected}'

    def check(self, value: Any, where: str, report: Report) -> Any:
        if isinstance(value, list) and len(value) == (self.length or max(len(value), 1)):
            return [self.item.check(item, f'{where}[{i}]', report) for i, item in enumerate(value)]
        report(where, f'found {show(value)}, expected {self.expected}')
        return value


@dataclass(frozen=True, kw_only=True)
class Section(Spec):
    """A mapping.

    Attributes:
        keys: What may stand under each key.
        more: What may stand under other keys; None: there are none.
        also: Checks of the mapping as a whole, made if nothing else is wrong with it: (mapping, where, report).
    """

    keys: Mapping[str, Spec]
    more: Spec | None = None
    also: Iterable[Callable[[dict, str, Report], None]] = ()

    def check(self, value: Any, where: str, report: Report) -> Any:
        if not isinstance(value, dict):
            report(where or 'the file', f'found {show(value)}, expected {self.expected}')
            return value
        mistakes = []

        def counted(place: str, what: str) -> None:
            mistakes.append(place)
            report(place, what)

        prefix = f'{where}.' if where else ''
        for key, item in value.items():
            spec, place = self.keys.get(key, self.more), f'{prefix}{_label(key)}'
            if spec is None:
                counted(place, f'unknown key{did_you_mean(key, self.keys)}')
            elif item is not None or not spec.null:
                value[key] = spec.check(item, place, counted)
        for key, spec in self.keys.items():
            if spec.required and key not in value:
                counted(f'{prefix}{key}', f'missing, expected {spec.expected}')
        if not mistakes:
            for check in self.also:
                check(value, where, report)
        return value


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
    """A mapping whose `type` says which other keys it has.

    Attributes:
        what: What the types are, for messages.
        types: All known types.
        section: What a type's mapping may hold; None: anything.
    """

    what: str
    types: Callable[[], Iterable[str]]
    section: Callable[[str], Section | None] = lambda name: None

    def check(self, value: Any, where: str, report: Report) -> Any:
        if not isinstance(value, dict) or 'type' not in value:
            report(where, f'found {show(value)}, expected a mapping with the key type, a {self.what}')
            return value
        name = value['type']
        known = Name(what=self.what, names=self.types).check(name, f'{where}.type', report) in list(self.types())
        section = self.section(name) if known else None
        if section is None:
            return value
        rest = {key: item for key, item in value.items() if key != 'type'}
        return {'type': name} | section.check(rest, where, report)


def show(value: Any) -> str:
    """Writes a value as one short line."""
    if isinstance(value, dict):
        line = f'a mapping with the keys {", ".join(map(_label, value)) or "(none)"}'
    elif value is None or isinstance(value, bool):
        line = {None: 'null', True: 'true', False: 'false'}[value]  # as in YAML
    else:
        line = repr(value)
    return line if len(line) <= 80 else f'{line[:77]}...'


def _label(key: str) -> str:
    """Writes a key; it must not break the line."""
    return key if key.isprintable() and 0 < len(key) <= 80 else show(key)
