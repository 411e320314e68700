"""The settings that ship: their files agree with each other and with what is prepared, and one lives its whole life."""

import json
import re
from pathlib import Path

import pytest

from lorair_arch import cli
from lorair_arch.data.prepare.prepare import BENCHMARKS
from lorair_arch.metrics.protocols import PROTOCOLS
from lorair_arch.options.yaml_file import read_yaml
from tests.miniature import REPO
from tests.releases import RELEASES, release

OPTIONS = REPO / 'options'
SETTINGS = sorted(folder.name for folder in (OPTIONS / 'train').iterdir())
# Prepared by `lorair data prepare folder`, as no layout of theirs is known.
FOLDERS = {'spa_plus', 'revide'}


def stages(setting):
    """Gives the options of the three stages and of the test."""
    files = [*(f'train/{setting}/{stage}.yml' for stage in ('router', 'pretrain', 'finetune')), f'test/{setting}.yml']
    return [read_yaml(OPTIONS / file) for file in files]


def sources(opt):
    return [source for dataset in opt['datasets'].values() for source in dataset['sources']]


def roots(opt):
    return [source['dataroot_gt'] for source in sources(opt)]


@pytest.mark.parametrize('setting', SETTINGS)
def test_the_stages_agree(setting):
    router, pretrain, finetune, test = stages(setting)
    count = len(router['degradations'])
    for opt in (router, pretrain, finetune, test):
        assert opt['degradations'] == router['degradations']
        assert opt['network_router'] | {'pretrained': None} == router['network_router'] | {'pretrained': None}
        assert opt['network_router']['num_degradations'] == count
        assert {source['degradation'] for source in sources(opt)} <= set(opt['degradations'])
    for opt in (router, pretrain, finetune):
        assert {source['degradation'] for source in opt['datasets']['train']['sources']} == set(opt['degradations'])
    assert test['network_g']['lora'] == finetune['network_g']['lora']
    assert test['network_g']['lora']['num_experts'] == count
    assert pretrain['network_g'] == {key: value for key, value in finetune['network_g'].items() if key != 'lora'}


@pytest.mark.parametrize('setting', SETTINGS)
def test_the_test_measures_by_its_table(setting):
    _, pretrain, finetune, test = stages(setting)
    assert {opt['val']['protocol'] for opt in (pretrain, finetune, test)} == {test['val']['protocol']}
    assert test['val']['protocol'] in PROTOCOLS


@pytest.mark.parametrize('setting', SETTINGS)
def test_the_images_are_those_that_are_prepared(setting):
    for opt in stages(setting):
        for source in sources(opt):
            name, *_, part = source.get('dataroot_lq', source['dataroot_gt']).removeprefix('datasets/').split('/')
            part = re.sub('_(lq|gt).lmdb$', '', part)
            if name in FOLDERS:
                assert part == 'images'
                continue
            (known,) = [known for known in BENCHMARKS[name].parts if known.name == part]
            assert source['dataroot_gt'] == f'datasets/{name}/{known.shared_gt or part}_gt.lmdb'
            assert ('degrade' in source) == (known.degrade is not None)
            assert 'dataroot_lq' not in source or source['dataroot_lq'] == f'datasets/{name}/{part}_lq.lmdb'
            assert source['degradation'] in known.degradation.split('_') or source['degradation'] == known.degradation


def test_mixtures_have_every_factor_and_are_as_likely_as_the_others():
    (train,) = {json.dumps(opt['datasets']['train']['sources']) for opt in stages('cdd11')[:3]}
    factors, weights = {}, {}
    for source in json.loads(train):
        subset = source['dataroot_lq'].removeprefix('datasets/cdd11/train_').removesuffix('_lq.lmdb')
        factors.setdefault(subset, set()).add(source['degradation'])
        weights[subset] = weights.get(subset, 0) + source['weight']
    assert factors == {part.degradation: set(part.degradation.split('_')) for part in BENCHMARKS['cdd11'].parts}
    assert set(weights.values()) == {6}


# What makes the networks of the recipe tiny, and its trainings short.
CLIP = {
    'embed_dim': 8,
    'vision_cfg': {'image_size': 16, 'patch_size': 8, 'layers': 1, 'width': 8, 'head_width': 8},
    'quick_gelu': True,
}
ROUTER = ['num_gpu=0', f'network_router:clip_model={json.dumps(CLIP)}', 'network_router:pretrained=~']
RESTORER = [
    *ROUTER,
    *('network_g:width=16', 'network_g:enc_blk_nums=[1]', 'network_g:dec_blk_nums=[1]', 'network_g:prior_dim=4'),
]
TRAINING = [
    *('train:total_iter=2', 'train:scheduler:periods=[2]', 'val:val_freq=2', 'logger:print_freq=1'),
    *('datasets:train:batch_size_per_gpu=2', 'datasets:train:num_worker_per_gpu=0'),
    *('datasets:train:persistent_workers=false', 'datasets:train:pin_memory=false', 'logger:use_tb_logger=false'),
]


def run(command, *arguments):
    assert command([*map(str, arguments)]) == 0, arguments


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """A folder with every benchmark of the settings in miniature, prepared from its authors' layout by the commands."""
    folder = tmp_path_factory.mktemp('settings')
    names = {root.split('/')[1] for setting in SETTINGS for opt in stages(setting) for root in roots(opt)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in sorted(names - FOLDERS):
            release(folder / 'downloads' / name, name)
            run(cli.lorair, 'data', 'prepare', name, '--from', f'downloads/{name}')
        for name in sorted(FOLDERS):
            release(folder / 'downloads' / name, 'folder')
            for part in ('train', 'test'):
                source = f'downloads/{name}'
                run(cli.lorair, 'data', 'prepare', 'folder', '--from', source, '--out', f'datasets/{name}/{part}')
    return folder


@pytest.mark.parametrize('setting', SETTINGS)
def test_what_is_prepared_passes_the_check(prepared, monkeypatch, capsys, setting):
    monkeypatch.chdir(prepared)
    for file in (f'train/{setting}/pretrain.yml', f'test/{setting}.yml'):
        run(cli.lorair, 'data', 'check', '-opt', OPTIONS / file)


def test_the_whole_life_of_a_setting(prepared, monkeypatch, capsys):
    monkeypatch.chdir(prepared)
    for stage in ('router', 'pretrain', 'finetune'):
        changes = [*TRAINING, *(ROUTER if stage == 'router' else [*RESTORER, 'datasets:train:gt_size=16'])]
        run(cli.basicsr, 'train', '-opt', OPTIONS / f'train/three_task/{stage}.yml', '--force_yml', *changes)
    file = OPTIONS / 'test/three_task.yml'
    run(cli.basicsr, 'test', '-opt', file, '--force_yml', *RESTORER, 'val:save_img=true')
    test = read_yaml(file)
    capsys.readouterr()
    for dataset in test['datasets'].values():
        (source,) = dataset['sources']
        saved = f'results/three_task/visualization/{dataset["name"]}/{source["degradation"]}'
        command = ['evaluate', saved, source['dataroot_gt'], '--suffix=_three_task', '--format=json']
        run(cli.lorair, *command, '--protocol', test['val']['protocol'])
        evaluated = json.loads(capsys.readouterr().out)['metrics']
        result = json.loads(Path(f'results/three_task/metrics_{dataset["name"]}.json').read_text())
        _, name, part = source['dataroot_gt'].removesuffix('_gt.lmdb').split('/')
        for metric in PROTOCOLS[test['val']['protocol']].metrics:
            assert evaluated[metric]['images'] == len(result['images']) == len(RELEASES[name][part])
            assert evaluated[metric]['mean'] == pytest.approx(result['mean'][metric], abs=1e-9)
