"""Templates of paths, see `benchmarks`: whether a name fits one, and what its words stand for."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from lorair_arch.data.images.kinds import IMAGE_SUFFIXES
from lorair_arch.data.stores import normal

_TOKEN = re.compile(r'\{(?P<names>[^}]*\|[^}]*)\}|\{(?P<word>\w+)\}|\*')
_WORDS = {'id': r'\d+', 'path': '.+'}
_SUFFIXES = '|'.join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)


@dataclass(frozen=True)
class Match:
    """A name that fits a template.

    Attributes:
        name: the whole of it.
        folder: what stands before the template.
        words: what the words stand for.
        key: the components with a word or a star, without the suffix.
    """

    name: str
    folder: str
    words: dict[str, str]
    key: str

    @property
    def folded(self) -> dict[str, str]:
        """The words in one case and one form of accents: a pair may come from two systems."""
        return {word: fold(value) for word, value in self.words.items()}


def fold(text: str) -> str:
    return normal(text).casefold()


def match(template: str, name: str) -> Match | None:
    """Fits a name with '/' to a template; folders may stand before it, and an image's suffix behind."""
    found = _pattern(template).fullmatch(name)
    if not found:
        return None
    words = {word: found[word] for word in words_of(template)}
    key = '/'.join(text for group, text in found.groupdict().items() if group.startswith('_key'))
    return Match(name, found['_folder'].rstrip('/'), words, key)


@functools.cache
def words_of(template: str) -> tuple[str, ...]:
    return tuple(token['word'] for token in _TOKEN.finditer(template) if token['word'])


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = []
    for i, component in enumerate(template.split('/')):
        if component == '**':
            parts.append('(?:[^/]+/)*')
            continue
        text, at, keyed = '', 0, False
        for token in _TOKEN.finditer(component):
            text += re.escape(component[at : token.start()]) + _part(token)
            at, keyed = token.end(), keyed or not token['names']
        text += re.escape(component[at:])
        parts.append(f'(?P<_key{i}>{text})/' if keyed else f'{text}/')
    body = ''.join(parts).removesuffix('/')
    return re.compile(rf'(?P<_folder>(?:.*/)?){body}(?:{_SUFFIXES})', re.IGNORECASE)


def _part(token: re.Match[str]) -> str:
    if token['names']:
        return f'(?:{"|".join(map(re.escape, token["names"].split("|")))})'
    if token['word']:
        return f'(?P<{token["word"]}>{_WORDS.get(token["word"], "[^/]+")})'
    return '[^/]*'
