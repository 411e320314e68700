"""Options files: YAML without code in it, read once each, with the files that they build on. Quick: no PyTorch."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

from lorair_arch.errors import OptionsError
from lorair_arch.files import decode
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
        first = [key for key in ('name', 'model_type') if key in merged]
        return {key: merged[key] for key in (*first, *self.parts[0][1], *merged) if key != 'base'}

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
                # Relative to the file that says so: options can be run from any folder.
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
    return yaml.dump(opt, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def copy_opt_file(opt_file: str | os.PathLike, experiments_root: str | os.PathLike) -> None:
    """Copies an options file to the folder of its experiment, with time and command on top, as BasicSR does.

    The copy of one that builds on others is whole: their options and its own, without comments.
    """
    (file,) = read_files([opt_file])
    head = f'# GENERATE TIME: {time.asctime()}\n# CMD:\n# {" ".join(sys.argv)}\n\n'
    # A copy must say all: its bases may change or vanish.
    body = printed(file) if len(file.parts) > 1 else file.text.replace('\r\n', '\n').replace('\r', '\n')
    text = (head + body).encode('utf-8', 'surrogateescape')  # names of any bytes may be in the command
    Path(experiments_root, Path(file).name).write_bytes(text)


# Far more than any options file needs, and little enough to be shown, copied and logged.
_MAX_DEPTH, _MAX_VALUES = 50, 100_000
_UNWRITABLE = re.compile('[\0\ud800-\udfff]')
_TEXT, _MERGE = 'tag:yaml.org,2002:str', 'tag:yaml.org,2002:merge'


class _Loader(yaml.SafeLoader):
    """YAML without code, in which a key is a text and is given once.

    As in YAML 1.2, 1e-4 is a number and a date a text.
    """

    yaml_implicit_resolvers = {
        # A date such as 2024-01-31 is a good name for an experiment.
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(':timestamp')]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        # No sets, binaries or ordered maps; None stands for every other tag, and raises.
        if tag is None or tag.rpartition(':')[2] in ('map', 'seq', 'str', 'int', 'float', 'bool', 'null')
    }

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_TEXT, _MERGE):
                found = f'the key {key.value!r}' if isinstance(key, yaml.ScalarNode) else 'a key'
                raise _mistake(f'{found} is not a text, expected one (in quotes, if need be)', key)
            if key.value in lines:  # PyYAML takes the last one in silence
                raise _mistake(f'the key {key.value!r} is there twice, first in line {lines[key.value]}', key)
            lines[key.value] = key.start_mark.line + 1
        return node


# PyYAML goes by YAML 1.1, where 1e-4 lacks its dot and is a text.
_FLOAT = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$')
_Loader.add_implicit_resolver('tag:yaml.org,2002:float', _FLOAT, list('-+.0123456789'))


def _mistake(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads: what would be a number there is a text in quotes; no anchors."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.Node:
        return super().represent_sequence(tag, sequence, not any(isinstance(item, (dict, list)) for item in sequence))


def parse_yaml(text: str) -> Any:
    """Reads YAML from a text, or raises an `OptionsError` that says what is wrong with it."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        # Nodes are shared where anchors repeat them: only what is made of them, copied and logged grows.
        _check_size(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        place = f'line {error.problem_mark.line + 1}: ' if error.problem_mark else ''
        problem = f'{error.context} {error.problem}' if error.problem.startswith('but ') else error.problem
        if r"'\t'" in problem:
            problem = 'found a tab, expected spaces'
        raise OptionsError(f'{place}{problem}; mend the YAML there') from error
    except RecursionError as error:
        raise OptionsError(f'nested far too deep, expected at most {_MAX_DEPTH} levels') from error
    except (yaml.YAMLError, ValueError) as error:
        raise OptionsError(f'is not YAML: {str(error).splitlines()[0]}') from error
    except LookupError as error:  # a tag such as !!bool before another word
        raise OptionsError(f'is not YAML: a value is not of the kind that its !! says ({error})') from error


def _check_size(node: yaml.Node, sizes: dict[yaml.Node, int], depth: int = 0) -> int:
    """Counts the values in a node, each as often as anchors repeat it; a few lines may stand for billions.

    Raises:
        yaml.MarkedYAMLError: There are too many, they are nested too deeply, or a text is no text.
    """
    if depth > _MAX_DEPTH:
        raise _mistake(f'nested more than {_MAX_DEPTH} deep, maybe by an anchor that holds itself', node)
    if isinstance(node, yaml.ScalarNode) and _UNWRITABLE.search(node.value):
        raise _mistake('a text with a character that can be written nowhere', node)
    if node not in sizes:
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        flat = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        sizes[node] = 1 + sum(_check_size(child, sizes, depth + 1) for child in flat)
        if sizes[node] > _MAX_VALUES:
            raise _mistake(f'more than {_MAX_VALUES} values, repeated by anchors', node)
    return sizes[node]
