"""What `lorair data prepare` has written, to be compared with what was to be read."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import yaml

from lorair_arch.data.images.reading import decode_image, read_bytes
from lorair_arch.data.stores import open_store


def lmdbs(report, part: str) -> dict[str, str]:
    """Gives the LMDBs of a part, as the report lists them for an options file."""
    sources = yaml.safe_load(report.text.split('\n\n')[1])['sources']
    source = sources[[row[0] for row in report.rows].index(part)]
    return {key[-2:]: root for key, root in source.items() if key.startswith('dataroot')}


def stored(root: str) -> list[np.ndarray]:
    store = open_store(root)
    return [store.load(key) for key in store.keys]


def look(path: Path) -> np.ndarray:
    return decode_image(read_bytes(path), str(path))


def same_images(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return sorted(image.tobytes() for image in some) == sorted(image.tobytes() for image in others)


def check_pairs(report, files) -> None:
    assert {row[0] for row in report.rows} == set(files)
    for part, pairs in files.items():
        roots = lmdbs(report, part)
        both = [np.stack([look(path) for path in pair if path]) for pair in pairs]
        if 'lq' in roots:
            assert open_store(roots['lq']).keys == open_store(roots['gt']).keys
            found = [np.stack(pair) for pair in zip(stored(roots['lq']), stored(roots['gt']), strict=True)]
        else:
            found = [image[None] for image in stored(roots['gt'])]
        assert same_images(found, both), part


def contents(root: str) -> dict[str, bytes]:
    with lmdb.open(root, readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {key.decode(): bytes(content) for key, content in transaction.cursor()}
