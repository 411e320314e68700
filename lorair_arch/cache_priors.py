"""`lorair data cache-priors`: asks the router once about every training image and keeps what it says."""

from __future__ import annotations

import hashlib
import logging
import os
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.data.images import to_float
from lorair_arch.data.prior_cache import KIND, fingerprint, settings
from lorair_arch.devices import device_name
from lorair_arch.errors import OptionsError
from lorair_arch.files import check_output
from lorair_arch.utils.checkpoint import load_into, save_file, state_dict_of
from lorair_arch.utils.option_schema.consistency import check_cacheable
from lorair_arch.utils.option_schema.training import FINETUNE, PRETRAIN
from lorair_arch.utils.options import load_options
from lorair_arch.utils.yaml_file import read_yaml

logger = logging.getLogger('lorair_arch')


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
    output = output or opt['path'].get('prior_cache')
    if not output:
        raise OptionsError(f'{file}: path.prior_cache is missing: say there, or with -o, where the priors go')
    if not output.endswith('.safetensors'):
        raise OptionsError(f'the priors are to go to {output!r}: expected a name that ends in .safetensors')
    weights = [path for key, path in opt['path'].items() if key.startswith('pretrain_network') and path]
    check_output(output, overwrite, [file, *weights])
    images = _Images(AllInOneDataset(opt['datasets']['train']))
    weights = opt['path']['pretrain_network_router']
    state_dict, description = state_dict_of(weights, opt['path'].get('param_key_router', 'params'))
    options = dict(opt['network_router'])
    router = ARCH_REGISTRY.get(options.pop('type'))(**options)
    load_into(router, state_dict, path=weights)
    router.eval().to(device_name(opt['num_gpu']))
    loader = DataLoader(images, batch_size=None, num_workers=opt['datasets']['train']['num_worker_per_gpu'])
    about = {'kind': KIND, 'router': fingerprint(state_dict), 'network': settings(opt['network_router'])}
    about['degradations'] = opt.get('degradations') or (description or {}).get('degradations') or []
    tensors = _ask(router, loader)
    save_file({'params': tensors, 'lorair': about}, output)
    count, sizes = len(tensors['keys']), {name: tensors[name].shape[1] for name in ('prior', 'logits')}
    logger.info(
        f'{output}: priors of {sizes["prior"]} numbers and logits of {sizes["logits"]} classes of {count} images, '
        f'{os.path.getsize(output) / 2**20:.1f} MiB; to train with it: train.prior: cached, path.prior_cache: {output}'
    )


def _options(file: str) -> dict[str, Any]:
    stage = read_yaml(file).get('model_type')
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
