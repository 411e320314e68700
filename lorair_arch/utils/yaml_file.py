"""YAML files without code in them. Quick to import: no PyTorch."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from lorair_arch.errors import OptionsError


class _Loader(yaml.SafeLoader):
    """YAML without code, that refuses a key given twice and reads 1e-4 as a number, as YAML 1.2 does."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for i, key in enumerate(keys):
            if any(key.value == other.value for other in keys[:i]):
                raise yaml.MarkedYAMLError(problem=f'the key {key.value!r} is there twice', problem_mark=key.start_mark)
        return node


_FLOAT = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$')
_Loader.add_implicit_resolver('tag:yaml.org,2002:float', _FLOAT, list('-+.0123456789'))


def read_yaml(file: str | os.PathLike) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping, or raises an `OptionsError` that says what is wrong and where."""
    try:
        content = parse_yaml(Path(file).read_text(encoding='utf-8'))
    except OSError as error:
        raise OptionsError(f'{file}: cannot be read ({error.strerror}); check the path') from error
    except UnicodeDecodeError as error:
        raise OptionsError(f'{file}: is not a text in UTF-8, expected a YAML file') from error
    except OptionsError as error:
        raise OptionsError(f'{file}: {error}') from error
    if not isinstance(content, dict):
        found = 'nothing' if content is None else f'a {type(content).__name__}'
        raise OptionsError(f'{file}: holds {found}, expected keys and values such as model_type: LoRAIRPretrainModel')
    return content


def parse_yaml(text: str) -> Any:
    """Reads YAML from a text, or raises an `OptionsError` that says what is wrong with it."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (it is a SafeLoader)
    except yaml.MarkedYAMLError as error:
        place = f'line {error.problem_mark.line + 1}: ' if error.problem_mark else ''
        raise OptionsError(f'{place}{error.problem}; mend the YAML there') from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OptionsError(f'is not YAML: {str(error).splitlines()[0]}') from error
