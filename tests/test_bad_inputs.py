"""What the user reads when options, weights or the machine are wrong: one sentence, exit code 2, no traceback."""

import os
import pickle
import re
import shlex
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.archs import build_network

from lorair_arch import cli
from lorair_arch.weights.files import save_file
from tests import tiny
from tests.miniature import REPO, as_test, stage, write_data, write_options
from tests.photos import photo, write

ROUTER = 'experiments/router/models/net_router_latest.pth'
BASE = 'experiments/pretrain/models/net_g_latest.pth'
STATE = 'experiments/sr/training_states/2.state'


def content(path, data):
    """Writes bytes, or a text, in place of what is there."""

    def make():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data if isinstance(data, bytes) else data.encode())

    return make


def saved(path, obj):
    """Saves an object as PyTorch does."""
    return lambda: (Path(path).parent.mkdir(parents=True, exist_ok=True), torch.save(obj, path))


def weights(path, change):
    """Changes the weights in a file."""

    def make():
        loaded = torch.load(path)
        change(loaded['params'])
        torch.save(loaded, path)

    return make


def cut(path, size):
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:size])


def zipped(path, **files):
    def make():
        with zipfile.ZipFile(path, 'w') as file:
            for name, text in files.items():
                file.writestr(name, text)

    return make


def folder(path):
    def make():
        Path(path).unlink(missing_ok=True)
        Path(path).mkdir(parents=True)

    return make


def copied(source, target):
    return lambda: (Path(target).parent.mkdir(parents=True, exist_ok=True), shutil.copyfile(source, target))


def twenty_times(old, new):
    return f'{new}: &{new} [{", ".join([f"*{old}"] * 20)}]\n'


def nothing():
    pass


class Hostile:
    """Touches a file when it is unpickled."""

    def __reduce__(self):
        return os.system, ('touch hacked',)


X = 'x.yml'
FILES = {
    'missing': nothing,
    'a folder': folder(X),
    'empty': content(X, ''),
    'comments alone': content(X, '# name: x\n'),
    'a list': content(X, '- name: x\n'),
    'a text': content(X, 'hello'),
    'not UTF-8': content(X, b'name: caf\xe9\n'),
    'a picture': lambda: write(Path('x.png'), photo()).rename(X),
    'a NUL': content(X, b'name: \0'),
    'a hidden NUL': content(X, r'name: "a\0"'),
    'a tab': content(X, 'train:\n\ttotal_iter: 1\n'),
    'an open bracket': content(X, 'degradations: [noise\nname: x\n'),
    'a key twice': content(X, 'name: x\nscale: 1\nname: y\n'),
    'a key twice, deeper': content(X, 'train:\n  total_iter: 1\n  amp: ~\n  total_iter: 2\n'),
    'a key that is a number': content(X, '2: x\n'),
    'a key that YAML takes for true': content(X, 'on: x\n'),
    'a key that is a list': content(X, '[a]: x\n'),
    'two documents': content(X, 'name: x\n---\nname: y\n'),
    'code': content(X, 'name: !!python/object/apply:os.system [touch hacked]\n'),
    'an anchor that holds itself': content(X, 'name: &a [*a]\n'),
    'anchors that explode': content(X, 'a: &a [x]\n' + ''.join(map(twenty_times, 'abcde', 'bcdef'))),
    'nested deeply': content(X, f'a: {"[" * 60}{"]" * 60}'),
    'nested more deeply': content(X, 'a: ' + '[' * 2000),
    'no anchor': content(X, 'name: *x\n'),
    'not a number': content(X, 'scale: !!int two\n'),
}
MACHINE = {
    'half a torchrun': lambda: os.environ.update(RANK='0'),
    'half a SLURM': lambda: os.environ.update(SLURM_PROCID='0'),
    'no scontrol': lambda: os.environ.update(
        SLURM_PROCID='0', SLURM_LOCALID='0', SLURM_NTASKS='1', SLURM_NODELIST='n[1-2]', PATH='/nowhere'
    ),
    'a file where experiments go': lambda: (shutil.rmtree('experiments'), Path('experiments').touch()),
    'a file where results go': lambda: Path('results').touch(),
}
WEIGHTS = {
    'missing': lambda: os.remove(ROUTER),
    'a folder': folder(ROUTER),
    'empty': content(ROUTER, ''),
    'a text': content(ROUTER, 'hello\n'),
    'a web page': content(ROUTER, '<!DOCTYPE html><html>'),
    'a Git LFS pointer': content(ROUTER, 'version https://git-lfs.github.com/spec/v1\n'),
    'other bytes': content(ROUTER, b'\1\2\3\4'),
    'cut short': cut(ROUTER, 3000),
    'a zip of other files': zipped(ROUTER, readme='hello'),
    'TorchScript': zipped(ROUTER, **{'net/data.pkl': '', 'net/code/__torch__.py': ''}),
    'a pickle with code': lambda: Path(ROUTER).write_bytes(pickle.dumps(Hostile(), protocol=2)),
    'weights with code': saved(ROUTER, {'params': {'w': torch.zeros(1), 'x': Hostile()}}),
    'weights of CLIP with code': saved('clip.pt', {'w': torch.zeros(1), 'x': Hostile()}),
    'weights of CLIP that do not fit': saved('clip.pt', {'w': torch.zeros(1)}),
    'a whole network': saved(ROUTER, torch.nn.Linear(1, 1)),
    'a list': saved(ROUTER, [torch.zeros(1)]),
    'nothing in it': saved(ROUTER, {'params': {}}),
    'numbers': saved(ROUTER, {'params': {'lr': 0.1}}),
    'a training state': saved(ROUTER, {'epoch': 1, 'iter': 5, 'optimizers': [], 'schedulers': []}),
    'of another stage': copied(BASE, ROUTER),
    'a tensor missing': weights(ROUTER, lambda params: params.pop('head.bias')),
    'a tensor too many': weights(ROUTER, lambda params: params.update(x=torch.zeros(1))),
    'not finite': weights(ROUTER, lambda params: params['head.bias'].fill_(float('nan'))),
    'other classes': weights(
        ROUTER, lambda params: params.update({'head.weight': torch.zeros(3, 4), 'head.bias': torch.zeros(3)})
    ),
    'safetensors, damaged': content(ROUTER, b'\x20\0\0\0\0\0\0\0{"a": 1' + b' ' * 40),
    'a state that is weights': copied(BASE, STATE),
    'a state that is damaged': content(STATE, b'PK\3\4'),
    'no sound state': content(STATE, ''),
    'experts without their base': copied('weights/experts.pth', BASE),
    'no router': lambda: os.remove('weights/router.pth'),
    'no restorer': lambda: os.remove('weights/base.pth'),
    'two routers': copied('weights/router.pth', 'weights/again.pth'),
    'a router of other classes': copied(ROUTER, 'weights/router.pth'),
    'a folder without weights': folder('none'),
    'an unknown network': saved('weights/base.pth', {'params': {'w': torch.zeros(1)}}),
}
MAKE = {'files': FILES, 'machine': MACHINE, 'weights': WEIGHTS}


@pytest.fixture(scope='module')
def right(tmp_path_factory):
    """A folder in which everything is right; not to be changed."""
    root = tmp_path_factory.mktemp('right')
    write_data(root)
    write(root / 'photo.png', photo())
    torch.manual_seed(0)
    for name in ('router', 'pretrain', 'finetune', 'sr'):
        write_options(root, stage(name))
    write_options(root, as_test(stage('router')), 'test')
    for name, key, path in (('router', 'network_router', ROUTER), ('pretrain', 'network_g', BASE)):
        net = tiny.perturbed(build_network(stage(name)[key]))
        save_file({'params': net.state_dict()}, root / path)
    tiny.save_weights(root / 'weights')
    return root


@pytest.fixture
def here(right, tmp_path, monkeypatch):
    """A copy of it, where the test runs, on a machine without GPUs and launchers."""
    shutil.copytree(right, tmp_path / 'here')
    monkeypatch.chdir(tmp_path / 'here')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    kept = {key: value for key, value in os.environ.items() if key != 'RANK' and not key.startswith('SLURM')}
    monkeypatch.setattr(os, 'environ', kept)
    return tmp_path / 'here'


def reads(command, capfd):
    """Runs a command that must fail; gives what it says, without the lines of progress before it."""
    name, *args = shlex.split(command)
    code = getattr(cli, name)(args)
    out, err = capfd.readouterr()
    assert (code, out, 'Traceback' in err) == (2, '', False)
    return [line.removeprefix('error: ') for line in err.splitlines() if line.startswith('error: ')]


def table(name):
    """Gives the rows of a table: what is wrong, the command, and the sentence that the user reads."""
    lines = (REPO / f'tests/data/bad_inputs/{name}.txt').read_text().splitlines()
    return [tuple(line.split(' | ', 2)) for line in lines if line[0] != '#']


@pytest.mark.parametrize(
    ('kind', 'name', 'command', 'sentence'),
    [pytest.param(kind, *row, id=f'{kind}: {row[0]}') for kind in MAKE for row in table(kind)],
)
def test_one_sentence(here, capfd, kind, name, command, sentence):
    MAKE[kind].get(name, nothing)()
    sentence = re.escape(sentence.replace('{here}', str(here))).replace('<any>', '.*')
    (found,) = reads(command, capfd)
    assert re.fullmatch(sentence, found), found
    assert not Path('hacked').exists()


def test_the_tables_are_whole():
    for kind, make in MAKE.items():
        names = [row[0] for row in table(kind)]
        assert len(set(names)) == len(names)
        assert set(make) <= set(names)
    assert sum(len(table(kind)) for kind in MAKE) + len(table('options')) >= 60


@pytest.mark.parametrize(('name', 'change', 'sentence'), table('options'))
def test_one_wrong_option(right, monkeypatch, capfd, name, change, sentence):
    monkeypatch.chdir(right)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    target = opt = stage(name)
    place, _, value = change.partition('=')
    *sections, key = place.split('.')
    for section in sections:
        target = target[section]
    if value:
        target[key] = yaml.safe_load(value)
    else:
        del target[key]
    file = write_options(right, opt, 'wrong')
    assert reads(f'basicsr train -opt {file}', capfd) == [f'{file}: {sentence.format(here=right)}']
