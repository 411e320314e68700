"""YAML without code in it. Quick to import: no PyTorch."""

from __future__ import annotations

import re
from typing import Any

import yaml

from lorair_arch.errors import OptionsError

# Far more than any options file needs, and little enough to be shown, copied and logged.
_MAX_DEPTH, _MAX_VALUES = 50, 100_000
_UNWRITABLE = re.compile('[\0\ud800-\udfff]')
_TEXT, _MERGE = 'tag:yaml.org,2002:str', 'tag:yaml.org,2002:merge'


class _Loader(yaml.SafeLoader):
    """YAML without code, in which a key is a text and is given once.

    As in YAML 1.2, 1e-4 is a number and a date a text.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(':timestamp')]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(':')[2] in ('map', 'seq', 'str', 'int', 'float', 'bool', 'null')
    }

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_TEXT, _MERGE):
                found = f'the key {key.value!r}' if isinstance(key, yaml.ScalarNode) else 'a key'
                raise _mistake(f'{found} is not a text, expected one (in quotes, if need be)', key)
            if key.value in lines:
                raise _mistake(f'the key {key.value!r} is there twice, first in line {lines[key.value]}', key)
            lines[key.value] = key.start_mark.line + 1
        return node


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


def dump_yaml(content: Any) -> str:
    """Writes YAML that `parse_yaml` reads as the same."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def parse_yaml(text: str) -> Any:
    """Reads YAML from a text, or raises an `OptionsError` that says what is wrong with it."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
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
