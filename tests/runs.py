"""What tests of `lorair restore` on folders have in common."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from lorair_arch import cli
from lorair_arch.restoring.folders import restore_paths
from tests.photos import photo


def restore(source, output, **more):
    restore_paths(source, output, 'weights', **more)


def make(*names):
    """Writes images that all differ; gives the pixels of each, as its file has them."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(photo(len(name) + sum(name.encode()), 8, 8))
        image.save(name, **({'quality': 100} if name.endswith('.jpg') else {}))
    return {name: pixels(name) for name in names}


def pixels(name):
    return np.asarray(Image.open(name).convert('RGB'))


def check_inverted(results):
    """Compares the files of results with the images that they were made of (see the fixture `inverting`)."""
    for name, image in results.items():
        assert np.abs(255 - image.astype(int) - pixels(name)).max() <= 3, name


def files(root='.'):
    return sorted(str(path.relative_to(root)) for path in Path(root).rglob('*') if not path.is_dir())


def contents(root):
    return {path: path.read_bytes() for path in Path(root).rglob('*') if path.is_file()}


def lorair(*more, output='out'):
    return cli.lorair(['restore', *more, '-o', output, '--weights', 'w'])


def lines(path='log.jsonl'):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
