"""From files of weights to the networks that restore: which file is what, and whether they belong together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

import lorair_arch.archs  # noqa: F401 (registers the networks)
from lorair_arch.errors import CheckpointError, LoRAIRError
from lorair_arch.utils.checkpoint import infer_network, kind_of, load_into, state_dict_of
from lorair_arch.utils.recognise import describe

Paths = str | os.PathLike | Iterable[str | os.PathLike]

_SUFFIXES = ('.pth', '.pt', '.safetensors')


@dataclass(frozen=True)
class Weights:
    """One file of weights, and what is written in it about its network (None: nothing)."""

    path: Path
    state_dict: dict[str, Tensor]
    network: dict | None
    degradations: list[str] | None


def load_networks(paths: Paths) -> tuple[nn.Module, nn.Module, list[str]]:
    """Builds the networks that files of weights describe or, if they are silent about it, fit.

    Where a file has averaged weights (EMA), those are taken.

    Args:
        paths: Folders or files: one router and one restorer and, for a restorer without experts of its own, experts.

    Returns:
        The router, the restorer, both on the CPU in evaluation mode, and the names of the degradations.

    Raises:
        CheckpointError: A file is missing, superfluous or damaged, or the files do not belong together.
    """
    files = _read(paths)
    router_file, restorer, experts = (files.get(kind) for kind in ('router', 'restorer', 'experts'))
    names = ', '.join(str(file.path) for file in files.values())
    if router_file is None:
        raise CheckpointError(f'there is no router among the weights ({names}): it guides every restorer, add its file')
    if restorer is None:
        what = 'the restorer that the experts were trained on' if experts else 'a restorer'
        raise CheckpointError(f'{what} is not among the weights ({names}): add its file')
    router = _build(router_file)
    if experts:
        if experts.degradations and router_file.degradations not in (None, experts.degradations):
            raise CheckpointError(
                f'{router_file.path} tells {", ".join(router_file.degradations)} apart, but {experts.path} was trained '
                f'for {", ".join(experts.degradations)}: use the router that the experts were trained with'
            )
        state_dict = {**restorer.state_dict, **experts.state_dict}
        restorer = Weights(experts.path, state_dict, experts.network, experts.degradations)
    net = _build(restorer)
    classes = router.head.out_features
    if net.prior_dim != router.prior_dim or net.num_experts not in (None, classes):
        raise CheckpointError(
            f'{router_file.path} (prior of {router.prior_dim}, {classes} degradations) does not fit {restorer.path} '
            f'(prior of {net.prior_dim}, {net.num_experts or "no"} experts): use the router that it was trained with'
        )
    degradations = router_file.degradations or restorer.degradations or []
    return router, net, degradations if len(degradations) == classes else [str(i) for i in range(classes)]


def _read(paths: Paths) -> dict[str, Weights]:
    """Reads the files, by kind: router, restorer, experts."""
    files: dict[str, Weights] = {}
    for path in _files([paths] if isinstance(paths, (str, os.PathLike)) else paths):
        state_dict, meta = state_dict_of(path, 'params_ema')
        meta = meta or {}
        kind = meta.get('kind') or kind_of(state_dict)
        if kind not in ('router', 'restorer', 'experts'):
            raise CheckpointError(
                f'{path} seems to hold {describe(state_dict)}: a router, a restorer and its experts are needed'
            )
        if kind in files:
            plural = {'router': 'routers', 'restorer': 'restorers', 'experts': 'sets of experts'}[kind]
            raise CheckpointError(f'there are two {plural}, {files[kind].path} and {path}: name the files to use')
        files[kind] = Weights(path, state_dict, meta.get('network'), meta.get('degradations'))
    return files


def _files(paths: Iterable[str | os.PathLike]) -> list[Path]:
    files = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES and not p.name.startswith('.'))
        if not found:
            raise CheckpointError(f'folder {path} holds no weights ({", ".join(_SUFFIXES)}): check the path')
        files += found
    return files


def _build(weights: Weights) -> nn.Module:
    """Builds the network of a file; weights that CLIP was once initialised with are in the file already."""
    options = dict(weights.network or infer_network(weights.state_dict))
    options.pop('pretrained', None)
    try:
        net = ARCH_REGISTRY.get(options.pop('type'))(**options)
    except LoRAIRError as error:
        raise CheckpointError(f'{weights.path} describes a network that cannot be built: {error}') from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f'{weights.path} describes a network unknown here ({error}): is the package that defines it missing?'
        ) from error
    load_into(net, weights.state_dict, path=weights.path)
    return net.eval().requires_grad_(False)
