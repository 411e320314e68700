"""Every options file that ships is built and takes a step, at tiny width and on made-up photographs."""

import json
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network

from lorair_arch.metrics.protocols import PROTOCOLS
from lorair_arch.options.yaml_file import read_yaml
from lorair_arch.training import test as testing
from lorair_arch.training import train as training
from lorair_arch.weights.files import save_file
from tests.miniature import REPO, write_options
from tests.photos import photo, write
from tests.tiny import perturbed

CLIP = {
    'embed_dim': 8,
    'vision_cfg': {'image_size': 16, 'patch_size': 8, 'layers': 1, 'width': 8, 'head_width': 8},
    'quick_gelu': True,
}


def files(pattern):
    found = sorted((REPO / 'options').glob(pattern))
    return [pytest.param(file, id=str(file.relative_to(REPO / 'options'))) for file in found]


def shrink(opt):
    """Makes the networks tiny, replaces data and weights, and leaves all else as it is."""
    opt['num_gpu'] = 0
    opt.setdefault('path', {})
    for phase, dataset in opt['datasets'].items():
        for source in dataset['sources']:
            source.pop('match', None)
            source.pop('meta_info_file', None)
            roots = ('dataroot_lq', 'dataroot_gt')
            source |= {key: photographs(source[key], key[-2:]) for key in roots if key in source}
        if phase == 'train':
            dataset |= {'batch_size_per_gpu': 2, 'num_worker_per_gpu': 0, 'gt_size': dataset['gt_size'] and 16}
            dataset |= {'persistent_workers': False, 'pin_memory': False}
    opt['network_router'] |= {'clip_model': CLIP, 'pretrained': None}
    network = opt.get('network_g')
    if network:
        network |= {'width': 16, 'enc_blk_nums': [1], 'middle_blk_num': 1, 'dec_blk_nums': [1], 'prior_dim': 4}
        network['local_pool_size'] = [16, 16] if network.get('local_pool_size') else None
    if 'train' in opt:
        opt['train']['total_iter'] = 1
        opt['train']['scheduler']['periods'] = [1]
        if 'val' in opt:
            opt['val']['val_freq'] = 1
        opt['logger'] |= {'print_freq': 1, 'save_checkpoint_freq': 1}
    for key in [key for key, value in opt['path'].items() if key.startswith('pretrain_network') and value]:
        opt['path'][key] = f'{key}.pth'
    return opt


def photographs(root, side):
    """Gives a folder of its own for what an options file names: sources that are the same are refused."""
    link = Path(root.removesuffix('.lmdb').replace('/', '_'))
    if not link.exists():
        link.symlink_to(f'data/{side}')
    return str(link)


def write_weights(opt):
    """Writes a file of random weights for each that the options name; those for fine-tuning have no experts yet."""
    experts = opt['path'].get('pretrain_network_experts')
    for label, network in (('router', opt['network_router']), ('g', opt.get('network_g'))):
        path = opt['path'].get(f'pretrain_network_{label}')
        if not path:
            continue
        weights = perturbed(build_network(network)).state_dict()
        lora = {key: value for key, value in weights.items() if key.endswith(('lora_A', 'lora_B'))}
        if experts and label == 'g':
            save_file({'params_ema': lora}, experts)
        if experts or 'train' in opt:
            weights = {key: value for key, value in weights.items() if key not in lora}
        save_file({'params': weights, 'params_ema': weights}, path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with three pairs of photographs, where the test runs."""
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        image = photo(seed, 20, 24 + seed)
        write(tmp_path / f'data/gt/{seed}.png', image)
        write(tmp_path / f'data/lq/{seed}.png', image // 2)
    return tmp_path


@pytest.mark.parametrize('file', [*files('*.yml'), *files('train/**/*.yml'), *files('zoo/*.yml')])
def test_takes_a_training_step(here, file):
    opt = shrink(read_yaml(file))
    write_weights(opt)
    label = 'router' if opt['model_type'] == 'DegradationRouterModel' else 'g'
    start = opt['path'].get(f'pretrain_network_{label}')
    training.run(write_options(here, opt))
    experiment = Path('experiments', opt['name'])
    after = torch.load(experiment / f'models/net_{label}_1.pth')['params']
    assert all(torch.isfinite(value).all() for value in after.values())
    if start:  # lora_B starts at zero
        before = torch.load(start)['params']
        trained = [key for key in after if not key.endswith('lora_A')]
        assert any(not torch.equal(after[key], before.get(key, torch.zeros_like(after[key]))) for key in trained)
    log = next(experiment.glob('train_*.log')).read_text()
    assert 'val' not in opt or f'Validation {opt["datasets"]["val"]["name"]}' in log
    assert '[epoch:  0, iter:       1' in log


@pytest.mark.parametrize('file', files('test/*.yml'))
def test_tests(here, file):
    opt = shrink(read_yaml(file))
    write_weights(opt)
    testing.run(write_options(here, opt))
    for dataset in opt['datasets'].values():
        result = json.loads(Path('results', opt['name'], f'metrics_{dataset["name"]}.json').read_text())
        assert len(result['images']) == 3 * len(dataset['sources'])
        protocol = opt['val'].get('protocol')
        metrics = {*(opt['val'].get('metrics') or ()), *(PROTOCOLS[protocol].metrics if protocol else ())}
        assert result['mean'].keys() == {*metrics, 'router_accuracy'}
