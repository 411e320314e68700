"""Nothing that is read can run code, and nothing that is written leaves its folder."""

import ast
from pathlib import Path

import lmdb
import pytest

from lorair_arch.data.all_in_one_dataset import AllInOneDataset
from lorair_arch.errors import DataError
from lorair_arch.models.validation import name_of, place_of
from lorair_arch.options.reading import load_options
from lorair_arch.training import test as testing
from lorair_arch.training import train as training
from tests.miniature import REPO, as_test, stage, write_data, write_options
from tests.photos import photo, write

SOURCES = [path for folder in ('lorair_arch', 'scripts') for path in sorted((REPO / folder).rglob('*.py'))]
NEVER = {
    *('eval', 'exec', 'compile', '__import__', 'os.system', 'os.popen'),
    *('pickle.load', 'pickle.loads', 'pickle.Unpickler', 'marshal.load', 'marshal.loads', 'dill.load', 'joblib.load'),
    *('yaml.unsafe_load', 'yaml.full_load', 'yaml.load_all', 'torch.jit.load', 'torch.hub.load'),
    *('shutil.unpack_archive', 'tempfile.mktemp'),
}
UNPACK = ('extract', 'extractall')


def dangers(tree):
    """Gives the calls that could run what a file says, or write where an archive says."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        safe = {
            'torch.load': arguments.get('weights_only') == 'True',
            'yaml.load': 'Safe' in arguments.get('Loader', ''),
        }
        if (
            name in NEVER
            or not safe.get(name, True)
            or name.rpartition('.')[2] in UNPACK
            or arguments.get('shell', 'False') != 'False'
            or arguments.get('allow_pickle', 'False') != 'False'
            or arguments.get('weights_only', 'True') != 'True'
        ):
            yield f'{name} in line {node.lineno}'


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_no_source_runs_what_it_reads(path):
    assert list(dangers(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    'code',
    [
        *('eval(x)', 'exec(x)', 'torch.load(x)', 'torch.load(x, weights_only=False)', 'pickle.load(x)'),
        *('yaml.load(x)', 'yaml.load(x, Loader=yaml.Loader)', 'zipfile.ZipFile(x).extractall()', 'f(x, shell=True)'),
        'np.load(x, allow_pickle=True)',
        'tarfile.open(x).extract(y)',
    ],
)
def test_dangers_are_seen(code):
    assert len(list(dangers(ast.parse(code)))) == 1


def test_the_loader_of_options_is_a_safe_one():
    import yaml

    from lorair_arch.options.yaml_file import _Loader

    kinds = {tag.rpartition(':')[2] for tag in _Loader.yaml_constructors if tag}
    assert issubclass(_Loader, yaml.SafeLoader)
    assert kinds == {'map', 'seq', 'str', 'int', 'float', 'bool', 'null'}
    assert not _Loader.yaml_multi_constructors


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data, where the test runs."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    return tmp_path


NAMES = ['../x', '..', '/tmp/x', 'a/b', 'a\\b', '.', ' ', 'a\nb', 'ü' * 101]


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('place', ['name', 'degradations', 'dataset', 'source', 'suffix'])
def test_no_name_of_the_options_leads_out_of_a_folder(here, place, name):
    opt = stage('pretrain')
    opt['path']['pretrain_network_router'] = 'pretrain.yml'  # any file
    if place == 'name':
        opt['name'] = name
    elif place == 'degradations':
        opt['degradations'][0] = name
    elif place == 'dataset':
        opt['datasets']['val']['name'] = name
    elif place == 'source':
        opt['datasets']['val']['sources'][0]['degradation'] = name
    else:
        opt['val']['suffix'] = name
    file = write_options(here, opt, 'pretrain')
    with pytest.raises(ValueError, match=f'{file}: .*expected a name for a folder, without slashes'):
        load_options(file, True, '.')


def write_lmdb(path, key, listed):
    """Writes an LMDB of one image under a key, by hand."""
    image = write(path.parent / 'image.png', photo()).read_bytes()
    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=2**20) as environment, environment.begin(write=True) as transaction:
        transaction.put(key.encode(), image)
    (path / 'meta_info.txt').write_text(f'{listed}.png (48,40,3) 1\n')


@pytest.mark.parametrize('key', ['../x', '/x', 'a/../../x', '..', 'a//x'])
@pytest.mark.parametrize('kind', ['lmdb', 'meta_info_file'])
def test_no_key_leads_out_of_a_folder(tmp_path, key, kind):
    source = {'dataroot_gt': str(tmp_path / 'gt.lmdb'), 'degrade': {'type': 'noise'}}
    write_lmdb(tmp_path / 'gt.lmdb', key, key if kind == 'lmdb' else 'x')
    if kind == 'meta_info_file':
        (tmp_path / 'list.txt').write_text(f'{key}.png\n')
        source = {'dataroot_gt': str(tmp_path), 'degrade': {'type': 'noise'}, 'meta_info_file': f'{tmp_path}/list.txt'}
    with pytest.raises(DataError, match=f"line 1: found '{key}', expected a name within its folder"):
        AllInOneDataset({'phase': 'val', 'name': 'x', 'sources': [source]})


@pytest.mark.parametrize('is_train', [True, False])
@pytest.mark.parametrize(
    'image', ['/etc/x.png', '../../x.png', 'a/b.png', 'data/...x.png', 'data/x', 'data/../../x.png']
)
def test_restored_images_stay_in_their_folder(tmp_path, image, is_train):
    path = {'visualization': str(tmp_path / 'v')}
    opt = {'name': 'n', 'is_train': is_train, 'path': path, 'val': {}, 'datasets': {}}
    place = place_of(opt, 'set', name_of({'lq_path': [image]}, {'dataroot_lq': 'data'}), 8)
    assert (tmp_path / 'v').resolve() in place.resolve().parents


def test_a_test_writes_below_results_alone(here):
    """Images of an LMDB with folders in its keys."""
    training.run(write_options(here, stage('router')), force_yml=['train:total_iter=2'])
    training.run(write_options(here, stage('pretrain')), force_yml=['train:total_iter=2'])
    write_lmdb(here / 'set/gt.lmdb', 'a/b/c', 'a/b/c')
    opt = as_test(stage('pretrain'))
    opt['datasets']['test']['sources'] = [{'dataroot_gt': 'set/gt.lmdb', 'degrade': {'type': 'noise'}}]
    file = write_options(here, opt, 'test')
    before = set(here.rglob('*'))
    testing.run(file)
    new = {path.relative_to(here) for path in set(here.rglob('*')) - before}
    assert {path.parts[0] for path in new} == {'results'}
    assert Path('results/pretrain/visualization/tiny_val/noise/a/b/c_pretrain.png') in new
