"""Checks of options that say which key is wrong and which one was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from lorair_arch.errors import OptionsError


def check_keys(options: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raises an OptionsError that names the first key of `options` that is not `known`."""
    for key in options:
        if key not in known:
            raise OptionsError(f'{where}: unknown key {key!r}{did_you_mean(key, known)}')


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """Ends a sentence about an unknown `name`: with the closest known name, or with all of them if they are few."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    more = f', ... ({len(known)} in all)' if len(known) > 30 else ''
    return f'; did you mean {close[0]!r}?' if close else f'; known are {", ".join(known[:30])}{more}'
