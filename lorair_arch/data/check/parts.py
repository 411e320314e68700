"""The images and pairs that the data sets of an options file consist of, found without stopping at a mistake."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from basicsr.utils.registry import DATASET_REGISTRY

from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.data.foreign import NamedDataset, build_dataset
from lorair_arch.data.images.metadata import opened, read_metadata
from lorair_arch.data.images.reading import decode_photo, read_bytes
from lorair_arch.data.sources import choose, match_keys
from lorair_arch.data.stores import Lmdb, Store, find_store
from lorair_arch.errors import DataError, LoRAIRError, Mistake


class Facts(NamedTuple):
    """Facts of an image.

    Attributes:
        size: (width, height) in pixels.
        kind: format, bits and colours, as far as they are not 8 bits and RGB: 'PNG', 'JPEG grey', 'PNG 16 bits'.
        grey: it has one channel.
        alpha: it is transparent somewhere, or could be.
        orientation: of its EXIF data, 1 to 8; 1 is upright.
        frames: how many images the file holds.
        digest: of its pixels.
    """

    size: tuple[int, int]
    kind: str
    grey: bool
    alpha: bool
    orientation: int
    frames: int
    digest: bytes


def read_facts(store: Store, key: str) -> Facts | str:
    """Reads and decodes an image as training does; gives its facts, or the sentence that says what is wrong."""
    try:
        with store.opened(key) as content:
            photo = decode_photo(content, store.path(key))
            _, _, orientation, frames = read_metadata(content)
            name, mode = _format(content)
    except DataError as error:
        return str(error)
    pixels, grey = photo.rgb, photo.pixels.ndim == 2
    bits, alpha = 8 * pixels.itemsize, photo.alpha is not None
    odd = {f'{bits} bits': bits != 8, 'grey': grey, 'alpha': alpha, mode: mode in ('CMYK', 'P')}
    kind = ' '.join([name, *(word for word, holds in odd.items() if holds)])
    # Of pixels, not files: the same picture as PNG and as BMP is a leak too. 16 bytes leave no room for chance.
    digest = hashlib.blake2b(np.ascontiguousarray(pixels), digest_size=16).digest()
    return Facts((pixels.shape[1], pixels.shape[0]), kind, grey, alpha, orientation, frames, digest)


def _format(content: bytes | memoryview) -> tuple[str, str]:
    """Gives what Pillow calls the format and the mode of an image."""
    try:
        image = opened(content)
    except OSError:
        return 'unknown format', ''
    return image.format, image.mode


class Image(NamedTuple):
    """One image of a store."""

    store: Store
    key: str

    @property
    def path(self) -> str:
        return self.store.path(self.key)


@dataclass
class Part:
    """A source of a data set, or a data set that has none.

    Attributes:
        dataset, source: names for the user.
        training: it is trained on.
        gt_size: side of the crops that every ground truth must hold, or None.
        own: it is of this package's data set, not of BasicSR's.
        scale: how many times as large as its degraded image a ground truth is.
        pairs: (degraded, clean).
        images: all images, those without a partner too.
        facts: of the images that can be read, by their paths; to be filled in.
        samples: a data set of which nothing but its samples is known.
    """

    dataset: str
    source: str
    training: bool
    gt_size: int | None = None
    own: bool = True
    scale: int = 1
    pairs: list[tuple[Image, Image]] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    facts: dict[str, Facts] = field(default_factory=dict)
    samples: NamedDataset | None = None


class _Files(Store):
    """Image files anywhere; the keys are their paths."""

    def path(self, key: str) -> str:
        return key

    def opened(self, key: str) -> AbstractContextManager[bytes]:
        return nullcontext(read_bytes(key))


class Finder:
    """Finds the parts of data sets.

    Attributes:
        problems: a sentence for each mistake that was met.
        warnings: and for what may be meant.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self._stores: dict[str, Store | None] = {}  # None: it cannot be opened, which has been said once

    def parts(self, options: Mapping[str, Any]) -> list[Part]:
        """Finds the parts of a data set from its options."""
        if not issubclass(DATASET_REGISTRY.get(options['type']), AllInOneDataset):
            return [self._foreign(options)]
        return [self._source(options, i) for i in range(len(options['sources']))]

    def _source(self, options: Mapping[str, Any], i: int) -> Part:
        source, training = options['sources'][i], options['phase'] == 'train'
        gt_size = options.get('gt_size') if training and not options.get('pad_small') else None
        part = Part(options['name'], source['degradation'], training, gt_size)
        try:
            gt = self._store(source['dataroot_gt'])
            lq = self._store(source['dataroot_lq']) if 'dataroot_lq' in source else None
            chosen, mistakes = choose(source.get('meta_info_file'), gt) if gt else (None, [])
            self._report(mistakes)
            if gt and lq:
                pattern = re.compile(source['match']) if 'match' in source else None
                self._pair(part, lq, gt, pattern, chosen)
            elif gt and 'degrade' in source:
                part.images = [Image(gt, key) for key in (gt.keys if chosen is None else chosen)]
            else:
                part.images = [Image(store, key) for store in (lq, gt) if store for key in store.keys]
        except LoRAIRError as error:
            self.problems.append(str(error))
        return part

    def _foreign(self, options: Mapping[str, Any]) -> Part:
        """Goes by the lists of files that BasicSR's data sets of images have, or else by their samples."""
        training = options['phase'] == 'train'
        part = Part(options['name'], options['type'], training, options.get('gt_size') if training else None)
        part.own, part.scale = False, options.get('scale', 1)
        backend = (options.get('io_backend') or {}).get('type')
        try:
            dataset = build_dataset(dict(options))
        except LoRAIRError as error:
            self.problems.append(str(error))
            self._roots(part, options)
            return part
        entries = getattr(dataset, 'paths', None)
        keys = ('lq_path', 'gt_path')
        # What BasicSR's PairedImageDataset keeps: paths, or the keys of LMDBs.
        if isinstance(entries, list) and all(isinstance(entry, dict) and set(entry) == set(keys) for entry in entries):
            roots = [self._store(options[f'dataroot_{key[:2]}']) if backend == 'lmdb' else _Files() for key in keys]
            if None not in roots:
                part.pairs = [tuple(Image(root, entry[key]) for root, key in zip(roots, keys)) for entry in entries]
                part.images = [image for pair in part.pairs for image in pair]
        elif isinstance(entries, list) and backend == 'disk' and all(isinstance(entry, str) for entry in entries):
            part.images = [Image(_Files(), entry) for entry in entries]
        else:
            part.samples = dataset
        return part

    def _roots(self, part: Part, options: Mapping[str, Any]) -> None:
        """Pairs the folders of a data set that cannot be built, to name all that have no partner."""
        roots = (options.get(key) for key in ('dataroot_lq', 'dataroot_gt'))
        stores = [store for root in roots if root and (store := self._store(root))]
        if len(stores) == 2 and options.get('filename_tmpl', '{}') == '{}':
            self._pair(part, *stores)
        else:
            part.images = [Image(store, key) for store in stores for key in store.keys]

    def _pair(
        self, part: Part, lq: Store, gt: Store, pattern: re.Pattern[str] | None = None, chosen: list[str] | None = None
    ) -> None:
        pairs, mistakes = match_keys(lq, gt, pattern, chosen)
        self._report(mistakes)
        part.pairs = [(Image(lq, lq_key), Image(gt, gt_key)) for lq_key, gt_key in pairs]
        alone = [Image(store, key) for store in (lq, gt) for key in store.keys] if chosen is None else []
        part.images = [image for pair in part.pairs for image in pair] + alone

    def _store(self, root: str) -> Store | None:
        if root not in self._stores:
            try:
                store = self._stores[root] = find_store(root)
                self._report(store.mistakes)
                if isinstance(store, Lmdb) and store.unlisted():
                    self.warnings.append(
                        f"LMDB '{root}' holds {store.unlisted()} images that its meta_info.txt does not list; they are "
                        'not used'
                    )
            except LoRAIRError as error:
                self._stores[root] = None
                self.problems.append(str(error))
        return self._stores[root]

    def _report(self, mistakes: list[Mistake]) -> None:
        self.problems += [line for mistake in mistakes for line in mistake.lines()]
