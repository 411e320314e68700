"""Speed and memory alone: whoever reads the method need not read this.

Each file says which lines of `reference.py` it replaces, and by how much. The figures are seconds of the processor on
one core of an AMD EPYC (shared), PyTorch 2.13, float32, of the benchmark's small network with and without the kernel.

| kernel | where | what it does |
|---|---|---|
| groups | grouping.py | large levels run one expert group after the other |
| expert_linear | grouping.py | small levels run all images together, each with its experts |
| strips | strips.py | inference in strips that fit the caches, sums in place |
| sliding | local_mean.py | local means as running sums on a CPU |
| merging | ../experts.py | inference with merged networks, which are kept |
| layer_scale | ../experts.py | layer scales go into the weights, not over the features |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

NAMES = frozenset({'groups', 'expert_linear', 'strips', 'sliding', 'merging', 'layer_scale'})

_off: frozenset[str] = frozenset()  # replaced as a whole, so that torch.compile sees a change


def enabled(name: str) -> bool:
    """Tells whether a kernel is used."""
    return name not in _off


@contextmanager
def disabled(*names: str) -> Iterator[None]:
    """Inside, these kernels are not used, or none at all if no name is given: for tests and measurements.

    Raises:
        ValueError: There is no such kernel.
    """
    global _off
    if not NAMES.issuperset(names):
        raise ValueError(f'There are no kernels {sorted(set(names) - NAMES)}, but {", ".join(sorted(NAMES))}.')
    before, _off = _off, _off | (frozenset(names) or NAMES)
    try:
        yield
    finally:
        _off = before
