"""What the router says of training images, kept in a file, so that training needs no router."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor

from lorair_arch.errors import CheckpointError, DataError
from lorair_arch.utils.checkpoint import load_file, state_dict_of
from lorair_arch.utils.recognise import other_classes

KIND = 'priors'
_AGAIN = 'run lorair data cache-priors --overwrite'


class PriorCache:
    """Prior and logits of images, found by the content of their files.

    Args:
        path: A file that `lorair data cache-priors` wrote: the tensors `keys` [N, 32] (SHA-256 of the encoded images),
            `prior` [N, P] and `logits` [N, E], and the fingerprint of the router.

    Attributes:
        about: `router`, the fingerprint of its weights, and `network`, its settings.

    Raises:
        CheckpointError: It is no such file.
    """

    def __init__(self, path: str) -> None:
        loaded = load_file(path)
        self.path, self.about, tensors = path, loaded.get('lorair') or {}, loaded.get('params')
        if self.about.get('kind') != KIND:
            raise CheckpointError(f'{path} is not a cache of priors: lorair data cache-priors writes one')
        self.prior, self.logits = tensors['prior'], tensors['logits']
        self._rows = {key.tobytes(): row for row, key in enumerate(tensors['keys'].numpy())}

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, content: bytes | memoryview, name: str) -> dict[str, Tensor]:
        """Gives `prior` [P] and `logits` [E] of an encoded image.

        Raises:
            DataError: The image is not in the cache; the message calls it by `name`.
        """
        row = self._rows.get(hashlib.sha256(content).digest())
        if row is None:
            raise DataError(f"'{name}' is not in the cache of priors {self.path}: it is new or has changed; {_AGAIN}")
        return {'prior': self.prior[row], 'logits': self.logits[row]}

    def check(self, opt: Mapping[str, Any]) -> None:
        """Compares the cache with the router and the restorer of the options, without building either.

        Raises:
            CheckpointError: The router's weights or settings have changed, it has other classes, or the restorer wants
                other sizes.
        """
        mistake = other_classes(self.about, opt.get('degradations'))
        if mistake:
            raise CheckpointError(f'{self.path} {mistake}')
        path, network = opt['path'], opt['network_g']
        file, param_key = path.get('pretrain_network_router'), path.get('param_key_router', 'params')
        if file and fingerprint(state_dict_of(file, param_key)[0]) != self.about['router']:
            raise CheckpointError(
                f'{self.path} was made with other weights of the router than {file} [{param_key}]: {_AGAIN}'
            )
        if opt.get('network_router'):
            for key, value in settings(opt['network_router']).items():
                made = self.about['network'].get(key)
                if made != value:
                    raise CheckpointError(
                        f'{self.path} was made with network_router.{key} {made!r}, the options say {value!r}: {_AGAIN}'
                    )
        sizes = {'prior': ('prior_dim', network.get('prior_dim', 384))} if network['type'] == 'LoRAIR' else {}
        if network.get('lora'):
            sizes['logits'] = 'lora.num_experts', network['lora']['num_experts']
        for name, (key, size) in sizes.items():
            found = getattr(self, name).shape[1]
            if found != size:
                raise CheckpointError(f'{self.path} holds {name} of size {found}, but network_g.{key} is {size}')


def fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """Gives a hash of weights: their names, types, shapes and bits."""
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        value = state_dict[key].detach().cpu()
        digest.update(f'{key} {value.dtype} {tuple(value.shape)}'.encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def settings(network: Mapping[str, Any]) -> dict[str, Any]:
    """Gives all options of a router that bear on what it says, as JSON has them."""
    signature = inspect.signature(ARCH_REGISTRY.get(network['type']))
    defaults = {k: p.default for k, p in signature.parameters.items() if p.default is not p.empty}
    # where the weights once came from, and whether they were trained, is past when they are loaded
    options = {k: v for k, v in (defaults | dict(network)).items() if k not in ('pretrained', 'freeze_clip')}
    return json.loads(json.dumps(options))
