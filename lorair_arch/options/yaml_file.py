"""Options files: read once each, with the files that they build on. Quick to import: no PyTorch."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from lorair_arch.errors import OptionsError
from lorair_arch.files import decode
from lorair_arch.options.yaml_text import dump_yaml, parse_yaml
from lorair_arch.schema import Items, checked, show, text

_BASE = Items(item=text(), single=True)


@dataclass(frozen=True)
class OptionsFile(os.PathLike):
    """An options file that has been read; it may stand wherever its path may.

    Attributes:
        path: Where it is.
        text: What it says.
        parts: Its path and its own keys, then those of the files that it builds on: what an earlier one says holds.
    """

    path: str
    text: str
    parts: list[tuple[str, dict[str, Any]]]

    def __fspath__(self) -> str:
        return self.path

    __str__ = __fspath__

    def content(self) -> dict[str, Any]:
        """Gives the options, new ones each time: mappings are merged, lists and values replaced."""
        merged: dict[str, Any] = {}
        for _, own in reversed(self.parts):
            _merge(merged, own)
        return {key: merged[key] for key in (*self.parts[0][1], *merged) if key != 'base'}

    def says(self, place: str) -> str:
        """Gives the path of the file that says what stands at a place, such as 'train.optim_g.lr'."""
        for path, own in self.parts:
            with contextlib.suppress(KeyError, TypeError):
                reduce(getitem, place.partition('[')[0].split('.'), own)
                return path
        return self.path


def _merge(below: dict[str, Any], own: dict[str, Any]) -> None:
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = deepcopy(value)


def read_files(paths: Iterable[str | os.PathLike]) -> list[OptionsFile]:
    """Reads options files and those that they build on, each once; what has been read is taken as it is.

    Raises:
        OptionsError: A file cannot be read, is no YAML, holds no mapping, or builds on itself.
    """
    known: dict[str, tuple[str, dict[str, Any]]] = {}
    return [path if isinstance(path, OptionsFile) else _read(os.fspath(path), known) for path in paths]


def read_yaml(file: str | os.PathLike) -> dict[str, Any]:
    """Reads one options file; see `read_files`."""
    return read_files([file])[0].content()


def _read(path: str, known: dict[str, tuple[str, dict[str, Any]]]) -> OptionsFile:
    parts: dict[str, str] = {}  # a file stands behind those that it builds on; what two build on, before both

    def add(file: str, above: tuple[str, ...]) -> None:
        place = os.path.realpath(file)
        if place in above:
            raise OptionsError(f'{file}: builds on itself, expected files that do not lead back here')
        if place in parts:
            return
        if place not in known:
            known[place] = _read_one(file)
        own = known[place][1]
        bases = checked(_BASE, own['base'], 'base', f'{file}: ') if 'base' in own else []
        for base in [bases] if isinstance(bases, str) else bases:
            try:
                add(os.path.normpath(os.path.join(os.path.dirname(file), os.path.expanduser(base))), (*above, place))
            except OptionsError as error:
                raise OptionsError(f'{file}: base: {error}') from error
        parts[place] = file

    add(path, ())
    own_first = [(file, known[place][1]) for place, file in reversed(parts.items())]
    return OptionsFile(path, known[os.path.realpath(path)][0], own_first)


def _read_one(file: str) -> tuple[str, dict[str, Any]]:
    """Gives the text of a file, and the mapping that it holds."""
    try:
        written = decode(Path(file).read_bytes())
        content = parse_yaml(written)
    except OSError as error:
        raise OptionsError(f'{file}: cannot be read ({error.strerror}); check the path') from error
    except OptionsError as error:
        raise OptionsError(f'{file}: {error}') from error
    except ValueError as error:
        raise OptionsError(f'{file}: {error}, expected a YAML file') from error
    if not isinstance(content, dict):
        found = 'nothing' if content is None else 'a list' if isinstance(content, list) else 'a single value'
        raise OptionsError(f'{file}: holds {found}, expected keys and values such as model_type: LoRAIRPretrainModel')
    return written, content


def force(opt: dict[str, Any], entry: str) -> str:
    """Changes the options as an entry of --force_yml says: 'train:optim_g:lr=1e-4'. Gives the place: train.optim_g.lr.

    Raises:
        OptionsError: If the entry is not of this form, or leads through something that has no keys.
    """
    keys, equals, value = entry.partition('=')
    *sections, last = (key.strip() for key in keys.split(':'))
    if not equals or not all((*sections, last)):
        raise OptionsError(f'--force_yml {entry}: expected KEY:KEY=VALUE, such as train:total_iter=1000')
    for section in sections:
        opt = opt.setdefault(section, {})
        if not isinstance(opt, dict):
            raise OptionsError(f'--force_yml {entry}: {section} holds {show(opt)}, expected a mapping')
    try:
        opt[last] = parse_yaml(value)
    except OptionsError as error:
        raise OptionsError(f'--force_yml {entry}: {error}') from error
    return '.'.join((*sections, last))


def printed(file: OptionsFile, force_yml: Iterable[str] = ()) -> str:
    """Writes one file that says the same as a file, those that it builds on, and the changes of --force_yml."""
    opt = file.content()
    for entry in force_yml:
        force(opt, entry)
    return dump_yaml(opt)


def copy_opt_file(opt_file: str | os.PathLike, experiments_root: str | os.PathLike) -> None:
    """Copies an options file to the folder of its experiment, with time and command on top, as BasicSR does.

    The copy of one that builds on others is whole: their options and its own, without comments.
    """
    (file,) = read_files([opt_file])
    head = f'# GENERATE TIME: {time.asctime()}\n# CMD:\n# {" ".join(sys.argv)}\n\n'
    body = printed(file) if len(file.parts) > 1 else file.text.replace('\r\n', '\n').replace('\r', '\n')
    text = (head + body).encode('utf-8', 'surrogateescape')  # names of any bytes may be in the command
    Path(experiments_root, Path(file).name).write_bytes(text)
