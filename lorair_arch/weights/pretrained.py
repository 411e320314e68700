"""From files of weights to the networks that restore: which file is what, and whether they belong together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lorair_arch import weights as zoo
from lorair_arch.archs import network_class
from lorair_arch.errors import CheckpointError, LoRAIRError
from lorair_arch.weights import bundle
from lorair_arch.weights.files import save_file
from lorair_arch.weights.loading import check_fit, describe, infer_network, kind_of, load_into, state_dict_of

Paths = str | os.PathLike | Iterable[str | os.PathLike]

_EXPERTS = ('lora_A', 'lora_B')
_SUFFIXES = ('.pth', '.pt', '.safetensors')


@dataclass(frozen=True)
class Weights:
    """One file of weights, by our names, and what is known of it.

    Attributes:
        path: The file; of a restorer with experts of another file, the names of both.
        kind: 'router', 'restorer' or 'experts'.
        state_dict: The weights, on the CPU.
        network: Options of its network as they are written in the file; None: nothing is.
        degradations: Their names, in the order of the classes, or None.
        official: It has the names of the official release.
        merged_for: The degradation whose experts are merged into the weights, or None.
        training: The trainings that made them, one after another, each with `name`, `model_type` and `iterations`.
    """

    path: Path | str
    kind: str
    state_dict: dict[str, Tensor]
    network: dict | None
    degradations: list[str] | None
    official: bool
    merged_for: str | None = None
    training: Sequence[dict] = ()

    def with_experts(self, experts: Weights) -> Weights:
        """Gives this restorer with experts that were trained on it.

        Raises:
            CheckpointError: One of the two files does not fit the network.
        """
        both = {**self.state_dict, **experts.state_dict}
        training = [*self.training, *experts.training]
        name = f'{self.path} with {experts.path}'
        whole = replace(experts, path=name, kind='restorer', state_dict=both, training=training)
        with torch.device('meta'):
            # The file that describes the network is to blame if it cannot be built.
            net = build(replace(whole, path=experts.path) if experts.network else whole)
        base = tuple(key for key in net.state_dict() if not key.endswith(_EXPERTS))
        check_fit(net, self.state_dict, _EXPERTS, self.path)
        check_fit(net, experts.state_dict, base, experts.path)
        return whole

    def save(self, path: Path) -> None:
        """Writes the weights with what is known of them, and the options of their network; errors as `save_file`."""
        meta = {'kind': self.kind, 'network': self.options(), 'degradations': self.degradations or []}
        if self.merged_for:
            meta['merged_for'] = self.merged_for
        if self.training:
            meta['training'] = list(self.training)
        save_file({'params': self.state_dict, 'lorair': meta}, path)

    @property
    def size(self) -> str:
        """Says of how many numbers they are."""
        return f'{sum(value.numel() for value in self.state_dict.values()) / 1e6:.1f}M parameters'

    def options(self) -> dict:
        """Gives the options of the network: as written in the file or, if it is silent, as the shapes tell.

        Raises:
            CheckpointError: The shapes do not tell it.
        """
        try:
            options = dict(self.network or infer_network(self.state_dict))
        except CheckpointError as error:
            raise CheckpointError(f'{self.path}: {error}') from error
        options.pop('pretrained', None)  # weights that CLIP was once initialised with are in the file already
        return options


def load_networks(paths: Paths) -> tuple[nn.Module, nn.Module, list[str]]:
    """Builds the networks that files of weights describe or, if they are silent about it, fit.

    Where a file has averaged weights (EMA), those are taken.

    Args:
        paths: A name (see `weights.located`), or folders or files: one router and one restorer and, for a restorer
            without experts of its own, experts.

    Returns:
        The router, the restorer, both on the CPU in evaluation mode, and the names of the degradations.

    Raises:
        CheckpointError: A file is missing, superfluous or damaged, or the files do not belong together.
    """
    files = read_weights(paths)
    router_file = files.get('router')
    if router_file is None:
        names = _names(files)
        raise CheckpointError(f'there is no router among the weights ({names}): it guides every restorer, add its file')
    restorer = choose_restorer(files)
    router, net = (load(weights) for weights in (router_file, restorer))
    classes = router.head.out_features
    if net.prior_dim != router.prior_dim or net.num_experts not in (None, classes):
        raise CheckpointError(
            f'{router_file.path} (prior of {router.prior_dim}, {classes} degradations) does not fit {restorer.path} '
            f'(prior of {net.prior_dim}, {net.num_experts or "no"} experts): use the router that it was trained with'
        )
    check_classes(files)
    degradations = router_file.degradations or restorer.degradations or []
    return router, net, degradations if len(degradations) == classes else [str(i) for i in range(classes)]


def check_classes(files: dict[str, Weights]) -> None:
    """Compares the classes of a router with those of the experts beside it, as far as both are known.

    Raises:
        CheckpointError: They are not the same, or not in the same order.
    """
    router, experts = files.get('router'), files.get('experts') or files.get('restorer')
    if not (router and experts and router.degradations and experts.degradations):
        return
    if experts.options().get('lora') and router.degradations != experts.degradations:
        raise CheckpointError(
            f'{router.path} tells {", ".join(router.degradations)} apart, but {experts.path} was trained for '
            f'{", ".join(experts.degradations)}: use the router that it was trained with'
        )


def choose_restorer(files: dict[str, Weights]) -> Weights:
    """Gives the restorer among files of weights, with its experts if they are there (see `read_weights`).

    Raises:
        CheckpointError: There is no restorer.
    """
    restorer, experts = (files.get(kind) for kind in ('restorer', 'experts'))
    if restorer is None:
        what = 'the restorer that the experts were trained on' if experts else 'a restorer'
        raise CheckpointError(f'{what} is not among the weights ({_names(files)}): add its file')
    return restorer.with_experts(experts) if experts else restorer


def read_weights(paths: Paths) -> dict[str, Weights]:
    """Reads files of weights, or those in a folder, by kind: router, restorer, experts; averaged ones (EMA) if any.

    Raises:
        CheckpointError: A file is damaged or something else, or there are two of a kind.
    """
    files: dict[str, Weights] = {}
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    for path, known in _files(paths):
        for weights in _read(path, known):
            if weights.kind in files:
                plural = {'router': 'routers', 'restorer': 'restorers', 'experts': 'sets of experts'}[weights.kind]
                raise CheckpointError(
                    f'there are two {plural}, {files[weights.kind].path} and {path}: name the files to use'
                )
            files[weights.kind] = weights
    return files


def _read(path: Path, known: list[str] | None) -> list[Weights]:
    """Reads one file: a router, a restorer, experts, or a router and a restorer.

    Args:
        path: The file.
        known: The degradations by its name, where the file does not say them.
    """
    # Averaged weights are those that validation measured.
    state_dict, meta = state_dict_of(path, 'params_ema')
    if bundle.is_bundle(state_dict):
        return weights_of(state_dict, path)
    meta = meta or {}
    kind = meta.get('kind') or kind_of(state_dict)
    if kind not in ('router', 'restorer', 'experts'):
        raise CheckpointError(
            f'{path} seems to hold {describe(state_dict)}: a router, a restorer and its experts are needed'
        )
    names, official, merged_for = (meta.get(key) or None for key in ('degradations', 'official', 'merged_for'))
    network, training = meta.get('network'), meta.get('training') or ()
    return [Weights(path, kind, state_dict, network, names or known, bool(official), merged_for, training)]


def weights_for(kind: str, path: str | os.PathLike, param_key: str = 'params') -> tuple[dict[str, Tensor], dict]:
    """Reads the weights of one network out of a file of its own, or out of the one that holds both.

    Args:
        kind: 'router' or 'restorer', of a file that holds both.
        path: The file.
        param_key: As of `state_dict_of`.

    Returns:
        The state dict on the CPU, and what the file says of it: kind, network, degradations, training.

    Raises:
        CheckpointError: As `state_dict_of` and `bundle.unpack`.
    """
    state_dict, description = state_dict_of(path, param_key)
    if not bundle.is_bundle(state_dict):
        return state_dict, description or {}
    one = next(weights for weights in weights_of(state_dict, path) if weights.kind == kind)
    description = {'kind': kind, 'network': one.network, 'degradations': one.degradations}
    return one.state_dict, description | {'training': list(one.training)}


def weights_of(state_dict: dict[str, Tensor], path: Path | str) -> list[Weights]:
    """Gives the router and the restorer of one file (see `bundle`); errors as `bundle.unpack`."""
    parts, config = bundle.unpack(state_dict, path)
    names, training = config.get('degradations'), config.get('training') or {}
    return [
        Weights(path, kind, part, config.get(kind), names, False, training=training.get(kind, ()))
        for kind, part in parts.items()
    ]


def _names(files: dict[str, Weights]) -> str:
    return ', '.join(str(file.path) for file in files.values())


def _files(paths: Iterable[str | os.PathLike]) -> list[tuple[Path, list[str] | None]]:
    """Gives the files, each with the degradations that its name tells."""
    files = []
    for path, known in ((path, zoo.degradations(name)) for name in paths for path in zoo.located(name)):
        if not path.is_dir():
            files.append((path, known))
            continue
        # Hidden files may be half-written ones, see `writing`.
        found = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES and not p.name.startswith('.'))
        if not found:
            raise CheckpointError(f'folder {path} holds no weights ({", ".join(_SUFFIXES)}): check the path')
        files += [(file, known) for file in found]
    return files


def build(weights: Weights) -> nn.Module:
    """Builds the network of a file, without loading the weights.

    Raises:
        CheckpointError: There is no such network.
    """
    options = weights.options()
    try:
        return network_class(options.pop('type'))(**options)
    except LoRAIRError as error:
        mistakes = '; '.join(str(error).splitlines())
        raise CheckpointError(f'{weights.path} describes a network that cannot be built: {mistakes}') from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f'{weights.path} describes a network unknown here ({error}): is the package that defines it missing?'
        ) from error


def load(weights: Weights) -> nn.Module:
    """Builds the network of a file with its weights, frozen and in evaluation mode; errors as `build`."""
    net = build(weights)
    load_into(net, weights.state_dict, path=weights.path)
    return net.eval().requires_grad_(False)
