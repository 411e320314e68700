"""What the router says of training images, kept in a file, so that training needs no router."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.data.images.reading import to_float
from lorair_arch.devices import device_name
from lorair_arch.errors import CheckpointError, DataError, OptionsError
from lorair_arch.files import check_output
from lorair_arch.options.consistency import check_cacheable
from lorair_arch.options.keys import FINETUNE, PRETRAIN
from lorair_arch.options.reading import load_options
from lorair_arch.options.yaml_file import read_files
from lorair_arch.weights.files import load_file, save_file
from lorair_arch.weights.loading import load_into, other_classes
from lorair_arch.weights.pretrained import weights_for

logger = logging.getLogger('lorair_arch')

_KIND = 'priors'
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
        if self.about.get('kind') != _KIND:
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
        # By content: folders may move, and an image that was changed has no prior any more.
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
        path, router, network = opt['path'], opt.get('network_router'), opt['network_g']
        made = f'{self.path} was made with '
        file, param_key = path.get('pretrain_network_router'), path.get('param_key_router', 'params')
        if file and fingerprint(weights_for('router', file, param_key)[0]) != self.about['router']:
            raise CheckpointError(f'{made}other weights of the router than {file} [{param_key}]: {_AGAIN}')
        for key, value in settings(router).items() if router else ():
            known = self.about['network'].get(key)
            if known != value:
                raise CheckpointError(f'{made}network_router.{key} {known!r}, the options say {value!r}: {_AGAIN}')
        sizes = {'prior': ('prior_dim', network.get('prior_dim', 384))} if network['type'] == 'LoRAIR' else {}
        if network.get('lora'):
            sizes['logits'] = 'lora.num_experts', network['lora']['num_experts']
        for name, (key, size) in sizes.items():
            found = getattr(self, name).shape[1]
            if found != size:
                raise CheckpointError(f'{self.path} holds {name} of size {found}, but network_g.{key} is {size}')


def cache_priors(file: str, output: str | None = None, overwrite: bool = False) -> None:
    """Writes prior and logits of every image that an options file trains on.

    Args:
        file: Options of pre-training or fine-tuning.
        output: Where to (`*.safetensors`); None: `path.prior_cache` of the options.
        overwrite: Whether it may replace a file that exists, other than the router's weights.

    Raises:
        LoRAIRError: The options, the images or the router's weights are wrong, or the file cannot be written.
    """
    opt = _options(file)
    data, network, path = opt['datasets']['train'], dict(opt['network_router']), opt['path']
    output = output or path.get('prior_cache')
    if not output:
        raise OptionsError(f'{file}: path.prior_cache is missing: say there, or with -o, where the priors go')
    if not output.endswith('.safetensors'):
        raise OptionsError(f'the priors are to go to {output!r}: expected a name that ends in .safetensors')
    check_output(output, overwrite, [file, *(path[key] for key in path if 'pretrain_network' in key and path[key])])
    images = _Images(AllInOneDataset(data))
    weights = path['pretrain_network_router']
    state_dict, description = weights_for('router', weights, path.get('param_key_router', 'params'))
    router = ARCH_REGISTRY.get(network.pop('type'))(**network)
    load_into(router, state_dict, path=weights)
    router.eval().to(device_name(opt['num_gpu']))
    # One at a time: whole images, whose sizes differ.
    loader = DataLoader(images, batch_size=None, num_workers=data['num_worker_per_gpu'])
    about = {'kind': _KIND, 'router': fingerprint(state_dict), 'network': settings(opt['network_router'])}
    about['degradations'] = opt.get('degradations') or description.get('degradations') or []
    tensors = _ask(router, loader)
    save_file({'params': tensors, 'lorair': about}, output)
    count, sizes = len(tensors['keys']), {name: tensors[name].shape[1] for name in ('prior', 'logits')}
    logger.info(
        f'{output}: priors of {sizes["prior"]} numbers and logits of {sizes["logits"]} classes of {count} images, '
        f'{os.path.getsize(output) / 2**20:.1f} MiB; to train with it: train.prior: cached, path.prior_cache: {output}'
    )


def fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """Gives a hash of weights: their names, types, shapes and bits."""
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        value = state_dict[key].detach().cpu()
        # Bits alone could be cut into tensors in other ways.
        digest.update(f'{key} {value.dtype} {tuple(value.shape)}'.encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy())  # as bytes: NumPy has no bf16
    return digest.hexdigest()


def settings(network: Mapping[str, Any]) -> dict[str, Any]:
    """Gives all options of a router that bear on what it says, as JSON has them."""
    signature = inspect.signature(ARCH_REGISTRY.get(network['type']))
    defaults = {k: p.default for k, p in signature.parameters.items() if p.default is not p.empty}
    # where the weights once came from, and whether they were trained, is past when they are loaded
    options = {k: v for k, v in (defaults | dict(network)).items() if k not in ('pretrained', 'freeze_clip')}
    return json.loads(json.dumps(options))  # as it comes back from the file: tuples are lists there


def _options(file: str) -> dict[str, Any]:
    (file,) = read_files([file])
    stage = file.content().get('model_type')
    if stage not in (PRETRAIN, FINETUNE):
        raise OptionsError(f'{file}: model_type: found {stage!r}, expected {PRETRAIN} or {FINETUNE}, guided by priors')
    # as if for a training that asks the router itself: the cache is not there yet
    opt = load_options(file, True, os.getcwd(), ['train:prior=router'])
    mistakes = [] if 'network_router' in opt else [f'{file}: network_router: missing, expected the router to ask']
    check_cacheable(opt, lambda where, what: mistakes.append(f'{file}: {where}: {what}'))
    if mistakes:
        raise OptionsError('\n'.join(mistakes))
    return opt


class _Images(Dataset):
    """The degraded images of a data set, whole, each file once."""

    def __init__(self, dataset: AllInOneDataset) -> None:
        places = ((source, number) for source in dataset.sources for number in range(len(source)))
        # A degraded image may be in several sources.
        self._places = list({source.paths(number)[0]: (source, number) for source, number in places}.values())

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[bytes, Tensor]:
        """Gives the SHA-256 of the file and the image, float32 RGB [3, H, W] in [0, 1]."""
        source, number = self._places[index]
        digest = hashlib.sha256()
        image = to_float(source.load_lq(number, digest.update).transpose(2, 0, 1))
        return digest.digest(), torch.from_numpy(image)


@torch.inference_mode()
def _ask(router: torch.nn.Module, loader: DataLoader) -> dict[str, Tensor]:
    """Gives `keys` [N, 32], `prior` [N, P] and `logits` [N, E], images of equal content once."""
    device = next(router.parameters()).device
    answers = {}
    for key, image in tqdm(loader, desc='Asking the router', unit='image', leave=False, disable=None):
        if key not in answers:
            logits, prior = router(image[None].to(device))
            digest = torch.tensor(list(key), dtype=torch.uint8)
            answers[key] = digest, prior[0].float().cpu(), logits[0].float().cpu()
    return {name: torch.stack(rows) for name, rows in zip(('keys', 'prior', 'logits'), zip(*answers.values()))}
