"""Priors kept: in a file for the images of a training, in memory for those of its validations."""

import functools
import os
import re
from pathlib import Path

import pytest
import torch

from lorair_arch import cli
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.data import stores
from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.data.prior_cache import PriorCache, fingerprint
from lorair_arch.errors import CheckpointError, DataError, OptionsError
from lorair_arch.models.lorair_model import LoRAIRPretrainModel
from lorair_arch.training import train as training
from lorair_arch.weights.files import load_file
from tests.miniature import NAMES, stage, write_data, write_options
from tests.photos import photo, write
from tests.tiny import perturbed, save

CACHE = 'priors.safetensors'


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data, a router and a plain restorer, where the test runs."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    write_router()
    network = dict(stage('pretrain')['network_g'])
    network.pop('type')
    net = perturbed(LoRAIR(**network)).state_dict()
    save(Path('experiments/pretrain/models/net_g_latest.pth'), 'restorer', network, net, list(NAMES))
    return tmp_path


def write_router():
    network = dict(stage('router')['network_router'])
    network.pop('type')
    net = perturbed(DegradationRouter(**network)).state_dict()
    save(Path('experiments/router/models/net_router_latest.pth'), 'router', network, net, list(NAMES))


def options(name='pretrain', prior='cached', validates=False):
    """Gives options of a stage whose training images are all on disk."""
    opt = stage(name)
    opt['datasets']['train']['sources'] = [
        {'degradation': 'noise', 'dataroot_lq': 'data/train_lq', 'dataroot_gt': 'data/train_gt'},
        {'degradation': 'rain', 'dataroot_lq': 'data/train_gt', 'dataroot_gt': 'data/train_lq'},
    ]
    opt['train'] |= {'prior': prior, 'total_iter': 4}
    opt['path']['prior_cache'] = CACHE
    if not validates:
        del opt['val'], opt['datasets']['val']
    return opt


def cache(opt=None, *flags):
    return cli.lorair(['data', 'cache-priors', '-opt', write_options(Path(), opt or options()), *flags])


def train(opt):
    training.run(write_options(Path(), opt))


def router_counts(monkeypatch):
    """Counts how often the router is built and asked."""
    counts = {'__init__': 0, 'forward': 0}
    for name in counts:
        method = getattr(DegradationRouter, name)

        @functools.wraps(method)
        def counted(self, *args, name=name, method=method, **kwargs):
            counts[name] += 1
            return method(self, *args, **kwargs)

        monkeypatch.setattr(DegradationRouter, name, counted)
    return counts


def test_the_cache_holds_what_the_router_says_of_whole_images(here, capsys):
    assert cache() == 0
    assert re.search(r'priors of 4 numbers and logits of 2 classes of 14 images', capsys.readouterr().err)
    opt, kept = options(), PriorCache(CACHE)
    state_dict = load_file(opt['path']['pretrain_network_router'])['params']
    router = DegradationRouter(**{k: v for k, v in opt['network_router'].items() if k != 'type'}).eval()
    router.load_state_dict(state_dict)
    image = torch.from_numpy(photo(5, 24, 28) // 2).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        logits, prior = router(image)
    found = kept.of(Path('data/train_lq/5.png').read_bytes(), '5')
    torch.testing.assert_close(found, {'prior': prior[0], 'logits': logits[0]})
    assert kept.about['router'] == fingerprint(state_dict)
    assert [path.name for path in here.glob('.*.tmp')] == []


def test_a_cache_replaces_nothing_unless_asked_and_never_the_router(here, capsys):
    Path(CACHE).write_bytes(b'something dear')
    assert cache() == 2
    assert f"output '{CACHE}' exists already: choose another name, or --overwrite" in capsys.readouterr().err
    assert Path(CACHE).read_bytes() == b'something dear'
    assert cache(None, '--overwrite') == 0
    assert len(PriorCache(CACHE)) == 14
    opt = options()
    router = Path(opt['path']['pretrain_network_router'])
    os.link(router, 'router.safetensors')
    before = router.read_bytes()
    assert cache(opt, '-o', 'router.safetensors', '--overwrite') == 2
    assert "output 'router.safetensors' would replace the input" in capsys.readouterr().err
    assert router.read_bytes() == before


def test_images_of_the_same_content_are_kept_once_whatever_their_names(here):
    content = Path('data/train_lq/0.png').read_bytes()
    Path('data/train_lq/1.png').write_bytes(content)
    assert cache(options(), '-o', 'new/other.safetensors') == 0
    kept = PriorCache('new/other.safetensors')
    assert len(kept) == len(kept.prior) == 13
    kept.of(content, 'a name of its own')


@pytest.mark.parametrize('name', ['pretrain', 'finetune'])
@pytest.mark.parametrize('router', [True, False], ids=['router named', 'router not named'])
def test_training_with_a_cache_never_builds_the_router(here, monkeypatch, name, router):
    assert cache() == 0
    counts = router_counts(monkeypatch)
    opt = options(name)
    if not router:
        del opt['network_router'], opt['path']['pretrain_network_router']
    train(opt)
    assert Path('experiments', name, 'models/net_g_latest.pth').exists()
    assert counts == {'__init__': 0, 'forward': 0}


def test_an_image_is_read_once_for_its_pixels_and_its_prior(here, monkeypatch):
    assert cache() == 0
    reads = []
    monkeypatch.setattr(stores, 'read_bytes', lambda path: reads.append(path) or Path(path).read_bytes())
    dataset = AllInOneDataset(options()['datasets']['train'] | {'phase': 'train'})
    dataset.priors = PriorCache(CACHE)
    assert 'prior' in dataset[0, 0]
    assert len(reads) == 2  # the images of a pair


def test_the_prior_of_a_sample_is_that_of_its_image(here, monkeypatch):
    assert cache() == 0
    seen = []
    feed = LoRAIRPretrainModel.feed_data
    monkeypatch.setattr(LoRAIRPretrainModel, 'feed_data', lambda self, data: (seen.append(data), feed(self, data)))
    train(options())
    kept = PriorCache(CACHE)
    for batch in seen:
        for i, path in enumerate(batch['lq_path']):
            expected = kept.of(Path(path).read_bytes(), path)
            assert torch.equal(batch['prior'][i], expected['prior'])
            assert torch.equal(batch['logits'][i], expected['logits'])
    assert len(seen) >= 4


@pytest.mark.parametrize(('prior', 'built', 'asked'), [('cached', 1, 6), ('router', 1, 6 + 4)])
def test_validations_ask_the_router_about_each_image_once(here, monkeypatch, prior, built, asked):
    """Three pairs and three images degraded on the fly, validated twice; four steps of training."""
    assert cache() == 0
    counts = router_counts(monkeypatch)
    opt = options(prior=prior, validates=True)
    opt['val']['val_freq'] = 2
    train(opt)
    assert counts == {'__init__': built, 'forward': asked}
    log = next(Path('experiments/pretrain').glob('*.log')).read_text()
    assert log.count('Validation tiny_val') == 2
    assert log.count('best router_accuracy') == 2


def test_priors_that_are_kept_change_no_validation(here):
    """A second validation without a change of weights gives the same numbers, to the last bit."""
    opt = options(prior='router', validates=True)
    opt['train'] |= {'total_iter': 2, 'ema_decay': 0}
    opt['train']['optim_g']['lr'], opt['train']['scheduler']['eta_min'] = 1e-30, 0
    opt['val']['val_freq'] = 1
    train(opt)
    log = next(Path('experiments/pretrain').glob('*.log')).read_text()
    first, second = re.findall(r'Validation tiny_val\n(.*?)\n *best', log, flags=re.DOTALL)
    assert first == second


def test_a_changed_image_is_refused(here):
    assert cache() == 0
    for seed in range(7):
        write(here / f'data/train_lq/{seed}.png', photo(seed, 24, 28) // 3)
    with pytest.raises(DataError, match=r"'data/train_lq/\d.png' is not in the cache of priors priors.safetensors"):
        train(options())


def test_another_router_is_refused(here):
    assert cache() == 0
    write_router()  # with other random weights
    with pytest.raises(CheckpointError, match=r'other weights of the router than .*net_router_latest.pth \[params\]'):
        train(options())


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (lambda opt: opt['network_router'].update(views='pillow'), "network_router.views 'device', the options say"),
        (lambda opt: opt['network_router'].update(clip_grid=1), 'network_router.clip_grid 2, the options say 1'),
        (lambda opt: (opt.pop('network_router'), opt['network_g'].update(prior_dim=8)), 'prior of size 4, but network'),
    ],
)
def test_other_settings_are_refused(here, change, expected):
    assert cache() == 0
    opt = options()
    change(opt)
    with pytest.raises(CheckpointError, match=expected):
        train(opt)


def test_settings_that_say_the_same_are_accepted(here):
    assert cache() == 0
    opt = options()
    opt['network_router'] |= {'clip_grid': 2, 'views': 'device', 'freeze_clip': True}
    PriorCache(CACHE).check(opt)


def test_weights_are_no_cache(here):
    with pytest.raises(CheckpointError, match='is not a cache of priors: lorair data cache-priors writes one'):
        PriorCache('experiments/router/models/net_router_latest.pth')


def test_images_degraded_on_the_fly_are_refused(here, capsys):
    opt = stage('pretrain')
    assert cache(opt, '-o', CACHE) == 2
    assert re.fullmatch(
        r'error: pretrain.yml: datasets.train.sources\[1\].degrade: found images degraded on the fly, .*\n',
        capsys.readouterr().err,
    )
    assert not Path(CACHE).exists()
    cache()
    opt['train']['prior'], opt['path']['prior_cache'] = 'cached', CACHE
    with pytest.raises(OptionsError, match='found images degraded on the fly, expected dataroot_lq'):
        train(opt)


@pytest.mark.parametrize(
    ('change', 'flags', 'expected'),
    [
        (lambda opt: opt['path'].pop('prior_cache'), (), 'path.prior_cache is missing: say there, or with -o'),
        (lambda opt: None, ('-o', 'priors.pth'), "'priors.pth': expected a name that ends in .safetensors"),
        (lambda opt: opt.pop('network_router'), (), 'network_router: missing, expected the router to ask'),
        (lambda opt: opt.update(model_type='DegradationRouterModel'), (), "model_type: found 'DegradationRouterModel'"),
    ],
)
def test_what_the_command_needs(here, capsys, change, flags, expected):
    opt = options()
    change(opt)
    assert cache(opt, *flags) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (lambda opt: opt['path'].pop('prior_cache'), 'path.prior_cache: missing, expected a file that lorair data'),
        (lambda opt: None, "path.prior_cache: found 'priors.safetensors', which does not exist"),
        (lambda opt: opt.pop('network_router'), 'network_router: missing, expected the router of the cached priors'),
        (lambda opt: opt['path'].pop('pretrain_network_router'), 'path.pretrain_network_router: missing, expected'),
    ],
)
def test_what_the_options_need(here, change, expected):
    opt = options(validates=True)
    change(opt)
    with pytest.raises(OptionsError) as caught:
        train(opt)
    assert expected in str(caught.value)
