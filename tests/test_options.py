"""Options files: read without code, checked whole, every mistake named with its remedy."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from lorair_arch.errors import OptionsError
from lorair_arch.options.reading import force, load_each, load_options
from lorair_arch.options.yaml_file import read_yaml
from tests.miniature import REPO, as_test, stage, write_data, write_options

STAGES = ('router', 'pretrain', 'finetune', 'sr')


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data and weights of earlier stages, where the test runs."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    for name, file in (('router', 'net_router_latest.pth'), ('pretrain', 'net_g_latest.pth')):
        path = Path('experiments', name, 'models', file)
        path.parent.mkdir(parents=True)
        path.touch()
    return tmp_path


def mistakes(folder, opt, is_train=True, force_yml=(), **kwargs):
    """Gives the lines of the error that options raise, without the file's name."""
    file = write_options(folder, opt, 'options')
    with pytest.raises(OptionsError) as caught:
        load_options(file, is_train, str(folder), force_yml, **kwargs)
    lines = str(caught.value).splitlines()
    assert all(line.startswith((f'{file}: ', '--force_yml')) for line in lines)
    return [line.removeprefix(f'{file}: ') for line in lines]


@pytest.mark.parametrize('name', STAGES)
def test_right_options_are_completed_as_basicsr_does(here, name):
    opt = load_options(write_options(here, stage(name)), True, str(here), auto_resume=True)
    root = here / 'experiments' / name
    assert (opt['dist'], opt['auto_resume'], opt['is_train'], opt['num_gpu']) == (False, True, True, 0)
    assert opt['datasets']['train']['phase'] == 'train'
    assert opt['datasets']['val']['scale'] == (2 if name == 'sr' else 1)
    for key, folder in (
        ('experiments_root', ''),
        ('log', ''),
        ('models', 'models'),
        ('visualization', 'visualization'),
    ):
        assert Path(opt['path'][key]) == root / folder
    assert opt['path']['training_states'] == str(root / 'training_states')


@pytest.mark.parametrize('name', ['router', 'finetune'])
def test_right_options_of_a_test(here, name):
    opt = as_test(stage(name))
    opt['path'] = dict.fromkeys(opt['path'], 'experiments/router/models/net_router_latest.pth')
    opt = load_options(write_options(here, opt), False, str(here))
    assert opt['path']['results_root'] == opt['path']['log'] == str(here / 'results' / name)
    assert opt['val']['suffix'] is None


def test_same_result_as_basicsr(here, monkeypatch):
    from basicsr.utils.options import parse_options

    opt = stage('sr') | {'num_gpu': 'auto'}
    file = write_options(here, opt)
    monkeypatch.setattr(
        'sys.argv', ['train', '-opt', file, '--force_yml', 'train:total_iter=7', 'logger:use_tb_logger=false']
    )
    theirs, _ = parse_options(str(here), is_train=True)
    ours = load_options(file, True, str(here), ['train:total_iter=7', 'logger:use_tb_logger=false'])
    assert {
        key: value for key, value in theirs.items() if key not in ('rank', 'world_size', 'path', 'val')
    }.items() <= ours.items()
    assert theirs['path'].items() <= ours['path'].items()
    assert theirs['val'].items() <= ours['val'].items()


def test_debug_mode(here):
    opt = load_options(write_options(here, stage('sr')), True, str(here), debug=True)
    assert opt['name'] == 'debug_sr'
    assert (opt['val']['val_freq'], opt['logger']['print_freq'], opt['logger']['save_checkpoint_freq']) == (8, 1, 8)


def test_numbers_as_basicsr_files_write_them(here):
    text = (
        yaml.safe_dump(stage('router'))
        .replace('lr: 0.001', 'lr: 1e-3')
        .replace('total_iter: 8', 'total_iter: !!float 8')
    )
    Path('a.yml').write_text(text.replace('val_freq: 4', 'val_freq: 4e0'))
    opt = load_options('a.yml', True, str(here))
    assert opt['train']['optim_router']['lr'] == 1e-3
    assert type(opt['train']['total_iter']) is int
    assert type(opt['val']['val_freq']) is int


def test_all_mistakes_at_once(here):
    opt = stage('pretrain')
    opt['train']['grad_clip_norm'] = -1
    opt['datasets']['val']['typ'] = 1
    opt['nmae'] = 'x'
    found = mistakes(here, opt, force_yml=['train', 'network_g:width=none'])
    assert [line.split(': ')[0] for line in found] == [
        '--force_yml train', 'datasets.val.typ', 'train.grad_clip_norm', '--force_yml network_g:width=none', 'nmae',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        ('', 'holds nothing, expected keys and values'),
        ('- 1', 'holds a list, expected keys and values'),
        ('a: [1', 'line 1: expected'),
        ('a: 1\na: 2', "line 2: the key 'a' is there twice"),
        ('a: !!python/object/apply:os.system [touch hacked]', 'line 1: could not determine a constructor'),
        ('a: !!float x', 'is not YAML: '),
        ('\x00', 'is not a text in UTF-8 (a NUL in line 1'),
    ],
)
def test_a_file_that_is_no_options_file(tmp_path, content, expected):
    (tmp_path / 'a.yml').write_text(content)
    with pytest.raises(OptionsError) as caught:
        read_yaml(tmp_path / 'a.yml')
    assert str(caught.value).startswith(f'{tmp_path}/a.yml: {expected}')
    assert '\n' not in str(caught.value)
    assert not Path('hacked').exists()


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path / 'none.yml', tmp_path):
        with pytest.raises(OptionsError, match='cannot be read'):
            read_yaml(path)
    (tmp_path / 'binary.yml').write_bytes(b'\xff\xfe\x80')
    with pytest.raises(OptionsError, match='not a text in UTF-8'):
        read_yaml(tmp_path / 'binary.yml')


def test_anchors_and_merges_work(tmp_path):
    (tmp_path / 'a.yml').write_text('a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}')
    assert read_yaml(tmp_path / 'a.yml')['b'] == {'x': 3, 'y': 2}


def test_dates_are_texts(tmp_path):
    (tmp_path / 'a.yml').write_text('name: 2024-01-01\n')
    assert read_yaml(tmp_path / 'a.yml') == {'name': '2024-01-01'}


def test_files_in_a_row_may_name_weights_of_earlier_ones_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    files = [write_options(tmp_path, stage(name)) for name in ('router', 'pretrain')]
    assert [opt['name'] for opt in load_each(files, True, str(tmp_path))] == ['router', 'pretrain']
    for wrong, kwargs in ((files[::-1], {}), (files, {'debug': True})):  # the latter writes debug_router
        with pytest.raises(OptionsError, match='path.pretrain_network_router: .* does not exist') as caught:
            load_each(wrong, True, str(tmp_path), **kwargs)
        assert '\n' not in str(caught.value)


def test_force_sets_any_key_to_a_plain_value():
    opt = {'train': {'lr': 1}}
    for entry in (
        'train:lr=1e-4',
        'code=__import__("os")',
        'new:key=[1, two]',
        'flag=false',
        'nothing=~',
        'text=a=b',
        'name = x',
    ):
        force(opt, entry)
    new = {
        'code': '__import__("os")',
        'new': {'key': [1, 'two']},
        'flag': False,
        'nothing': None,
        'text': 'a=b',
        'name': 'x',
    }
    assert opt == {'train': {'lr': 1e-4}, **new}


@pytest.mark.parametrize('entry', ['train', '=3', 'a:=3', ':a=3', 'train:lr:x=1', 'train:lr=[1'])
def test_force_refuses(entry):
    with pytest.raises(OptionsError) as caught:
        force({'train': {'lr': 1}}, entry)
    assert str(caught.value).startswith(f'--force_yml {entry}: ')


def test_a_missing_gpu_is_noticed_before_anything_else(here):
    opt = stage('router') | {'num_gpu': torch.cuda.device_count() + 1}
    assert mistakes(here, opt)[0].startswith('num_gpu: ')


@pytest.mark.parametrize(
    'file',
    [file for file in sorted((REPO / 'options').rglob('*.yml')) if 'base' not in file.parts],
    ids=lambda file: str(file.relative_to(REPO)),
)
def test_shipped_options_are_right_but_for_files_that_are_made_later(file):
    try:
        load_options(file, 'test' not in file.relative_to(REPO).parts, '.')
    except OptionsError as error:
        wrong = [line for line in str(error).splitlines() if 'which does not exist' not in line]
        assert not wrong, wrong


def test_every_key_is_explained_in_the_readme():
    from lorair_arch.archs import settings
    from lorair_arch.data.all_in_one_dataset import AllInOneDataset
    from lorair_arch.data.sources import Source
    from lorair_arch.options import keys as datasets
    from lorair_arch.options import keys as training
    from lorair_arch.schema import Items, Section

    def keys(spec):
        if isinstance(spec, Items):
            yield from keys(spec.item)
        elif isinstance(spec, Section):
            for key, value in spec.keys.items():
                yield key
                yield from keys(value)

    sections = [training.options(model_type, is_train=True) for model_type in training.OWN_MODELS]
    sections += [settings.ROUTER, settings.RESTORER, Source.OPTIONS]
    known = {key for section in sections for key in keys(section)} | set(AllInOneDataset.OPTIONS['train'])
    known |= {*datasets.loader(train=True), *datasets._paired(train=True), 'base'}
    readme = (REPO / 'options/README.md').read_text()
    assert (
        sorted(
            key for key in known - {'backend', 'port', 'project', 'resume_id'} if not re.search(f'[`.]{key}\\b', readme)
        )
        == []
    )
