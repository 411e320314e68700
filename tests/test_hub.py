"""Weights of a hub: the real client against a hub on loopback. Names, the cache, what is said, the list."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from lorair_arch import Restorer, cli
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.errors import CheckpointError
from lorair_arch.weights import convert_to_official, located
from lorair_arch.weights.convert import convert
from lorair_arch.weights.files import save_file
from tests import tiny
from tests.hub_server import BIG, CONFIG, lorair, said
from tests.photos import write

LOGIN = '`hf auth login`, or set HF_TOKEN'
OFFICIAL = 'shallowdream204/LoRA-IR'
# sizes that the weights tell, as those of the release do: heads of 64 channels and quick GELU
VISION = {'image_size': 16, 'patch_size': 8, 'layers': 1, 'width': 64, 'head_width': 64, 'mlp_ratio': 2.0}
ROUTER = {'clip_model': {'embed_dim': 768, 'vision_cfg': VISION, 'quick_gelu': True}, 'num_degradations': 3}
RESTORER = {**tiny.PLAIN, 'prior_dim': 384, 'lora': {'rank': 2, 'num_experts': 3}}


@pytest.fixture
def setting1(hub, tmp_path):
    """The hub with a release like the official one; gives its folder."""
    folder = tmp_path / 'official'
    for name, net in (('router', DegradationRouter(**ROUTER)), ('ir', LoRAIR(**RESTORER))):
        file = folder / f'setting1_{name}.pth'
        save_file({'params': convert_to_official(tiny.perturbed(net).state_dict())}, file)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    hub.add(OFFICIAL, {**files, 'README.md': b'weights', 'setting2_ir.pth': b'another'})
    return folder


def downloads(hub):
    return [request for request in hub.requests if request.startswith('GET /large')]


# names


def test_setting1_is_downloaded_once(hub, setting1):
    image = tiny.photo()
    restorer = Restorer.from_pretrained('setting1', 'cpu')
    assert restorer.names == ['snow', 'rain', 'raindrop']
    np.testing.assert_array_equal(restorer(image), Restorer.from_pretrained(setting1, 'cpu')(image))
    assert len(downloads(hub)) == 2 and not list(Path(constants.HF_HUB_CACHE).rglob('setting2*'))
    hub.requests.clear()
    hub.add(OFFICIAL, {'setting1_router.pth': b'other', 'setting1_ir.pth': b'other'})
    np.testing.assert_array_equal(Restorer.from_pretrained('setting1', 'cpu')(image), restorer(image))
    assert hub.requests == []


def test_a_single_file_comes_alone(hub, single):
    [path] = located('some/repo')
    assert path.read_bytes() == BIG and path.name == 'model.safetensors'
    assert (path.parent / 'config.json').read_bytes() == CONFIG
    assert sorted(file.name for file in path.parent.iterdir()) == ['config.json', 'model.safetensors']


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_a_repository_of_several_files(hub, tmp_path, suffix):
    content = {'sub/x.pth': b'', 'a.txt': b''}
    for path in tiny.save_weights(tmp_path / 'mine').iterdir():
        if suffix == '.safetensors':
            content['old.pth'] = b''
            convert([path], path.with_suffix(suffix))
        content[path.stem + suffix] = path.with_suffix(suffix).read_bytes()
    hub.add('some/parts', content)
    assert [path.name for path in located('some/parts')] == [f'{n}{suffix}' for n in ('base', 'experts', 'router')]
    assert Restorer.from_pretrained('some/parts', 'cpu').names == tiny.NAMES


def test_a_newer_commit_is_taken_and_an_old_one_can_be_named(hub, single):
    first = located('some/repo')[0]
    old = first.parent.name
    hub.add('some/repo', {'model.safetensors': b'newer', 'config.json': CONFIG})
    hub.requests.clear()
    assert located('some/repo')[0].read_bytes() == b'newer'
    assert len(downloads(hub)) == 1 and not any('GET' in r and r.endswith('config.json') for r in hub.requests)
    hub.requests.clear()
    assert located(f'some/repo@{old}') == [first] and hub.requests == []
    assert located('some/repo@main')[0].read_bytes() == b'newer'


def test_a_warm_start_asks_once_and_does_without(hub, single, monkeypatch, caplog):
    paths = located('some/repo')
    hub.requests.clear()
    assert located('some/repo') == paths
    assert hub.requests == ['GET /api/models/some/repo/revision/main']
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    hub.requests.clear()
    assert located('some/repo') == paths and hub.requests == [] and not caplog.records
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    hub.refuse = (503, '')
    assert located('some/repo') == paths
    assert 'answers with error 503; try again later; meanwhile the copy on this machine is used' in caplog.text


def test_a_path_goes_before_a_name(hub, single, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('some/repo', 'setting1'):
        Path(name).mkdir(parents=True)
        assert located(name) == [Path(name)]
    assert hub.requests == []


def test_a_cold_and_a_warm_start_of_the_command(hub, setting1, tmp_path):
    write(tmp_path / 'photo.png', tiny.photo())
    for output in ('cold.png', 'warm.png'):
        command = ['restore', 'photo.png', '-o', output, '--weights', 'setting1']
        done = lorair(tmp_path, *command)
        assert done.returncode == 0, done.stderr
        assert ('are downloaded to' in done.stderr) == (output == 'cold.png')
        hub.refuse = (500, '')
    assert (tmp_path / 'cold.png').read_bytes() == (tmp_path / 'warm.png').read_bytes()


# what the hub says


@pytest.mark.parametrize(
    'refuse, sentence',
    [
        ((401, 'RepoNotFound'), f'there is no such repository, or it is private; check the name, or {LOGIN}'),
        ((403, 'GatedRepo'), f'its authors want to be asked; do so on URL/some/repo, then {LOGIN}'),
        ((404, 'RevisionNotFound'), "it has no revision 'main'; its page lists them: URL/some/repo/tree/main"),
        ((403, ''), f'access is refused (403); {LOGIN}'),
        ((404, ''), 'it answers with error 404; see URL/some/repo'),
        ((429, ''), 'it answers with error 429; try again later'),
        ((500, ''), 'it answers with error 500; try again later'),
        ((503, ''), 'it answers with error 503; try again later'),
        ((200, ''), 'what answers there is no hub; check HF_ENDPOINT, and the proxy'),
    ],
)  # fmt: skip
def test_refusals(hub, refuse, sentence):
    hub.refuse = refuse
    start = f"'some/repo', no file or folder here, cannot be had from {hub.url}: "
    assert said('some/repo') == start + sentence.replace('URL', hub.url)


def test_private_repositories_need_a_token(hub, single, monkeypatch):
    hub.private.add('some/repo')
    assert 'or it is private; check the name, or `hf auth login`' in said('some/repo')
    monkeypatch.setenv('HF_TOKEN', 'hf_good')
    assert located('some/repo')[0].read_bytes() == BIG


def test_without_a_network(hub, monkeypatch):
    nobody = 'http://127.0.0.1:9'  # the port of `discard`
    monkeypatch.setattr(constants, 'ENDPOINT', nobody)
    assert said('setting1') == (
        f"'setting1' cannot be had from {nobody}: there is no connection (ConnectError); check the network, or name "
        'files that are on this machine'
    )
    monkeypatch.setattr(constants, 'ENDPOINT', 'https://hub.invalid')
    assert 'no connection (ConnectError); check the network or the proxy, or name files' in said('some/repo')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    assert 'HF_HUB_OFFLINE is set and it is not on this machine; unset it for one start' in said('setting1')


def test_a_hub_that_says_nothing(hub, monkeypatch):
    silent = []
    monkeypatch.setattr(hub, 'process_request', lambda request, address: silent.append(request))
    assert said('some/repo').endswith(
        'it does not answer in time; try again later, or set HF_HUB_ETAG_TIMEOUT to more seconds'
    )


def test_repositories_of_something_else(hub, setting1):
    hub.add('some/text', {'README.md': b'hello', 'sub/model.safetensors': BIG})
    assert said('some/text') == (
        f'{hub.url}/some/text has no file that ends in .safetensors or .pth (main): it holds no weights of LoRA-IR, '
        'see its page'
    )
    hub.add('some/bert', {'model.safetensors': BIG, 'config.json': b'{"model_type": "bert"}'})
    assert 'holds the weights of something else: its config.json describes no router' in said('some/bert')
    assert hub.sent == []  # the large file never came
    hub.add(OFFICIAL, {'setting1_ir.pth': b''})
    assert f'{hub.url}/{OFFICIAL} has no file setting1_router.pth (main)' in said('setting1')


def test_wrong_names(hub):
    assert said('setting2') == (
        "'setting2' is neither a file nor a folder, nor the name of weights; did you mean 'setting1'?"
    )
    assert "it has no revision 'v9'" in said_of_existing(hub, 'some/repo@v9')
    for path in ('results/x.pth', './results/weights', '../some/repo', 'a/b/c', '/some/repo'):
        assert located(path) == [Path(path)]


def said_of_existing(hub, name):
    hub.add('some/repo', {'model.safetensors': BIG})
    return said(name)


# the list


def test_the_list(hub, setting1, single, tmp_path, capsys):
    assert cli.lorair(['weights']) == 0
    before = ' '.join(capsys.readouterr().out.split())
    assert f'about 0.9 GB Apache-2.0 snow, rain, raindrop no; {hub.url}/{OFFICIAL}' in before
    assert 'lorair-tiny' in before and 'some/repo' not in before
    hub.add('some/parts', {p.name: p.read_bytes() for p in tiny.save_weights(tmp_path / 'mine').iterdir()})
    hub.add('some/else', {'model.safetensors': BIG})
    assert cli.lorair(['weights', '--download', 'setting1', 'some/repo', 'some/parts', 'some/else']) == 0
    paths = capsys.readouterr().out.splitlines()
    assert len(paths) == 7 and all(Path(path).exists() for path in paths)
    assert cli.lorair(['weights']) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert str(Path(paths[0]).parent) in rows['setting1'] and 'MB' in rows['setting1']
    assert 'see its page  noise, rain' in rows['some/repo'] and 'noise, rain, haze' in rows['some/parts']
    assert rows.keys() >= {'lorair-tiny'} and not rows.keys() & {'some/else', OFFICIAL}


def test_a_path_is_no_name_to_download(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('setting1').mkdir()
    assert cli.lorair(['weights', '--download', 'setting1']) == 2
    assert capsys.readouterr() == (
        '',
        "error: --download: 'setting1' is a file or folder here, which goes before a name: start elsewhere\n",
    )
    assert not hub.requests


# pushing


def test_a_pushed_restorer_comes_back(hub, tmp_path, monkeypatch):
    restorer = Restorer.from_pretrained(tiny.save_weights(tmp_path / 'parts'), 'cpu')
    for name in ('me/..', 'me', '', 'a/b/c', 'no such/name'):
        with pytest.raises(CheckpointError, match=f'{re.escape(repr(name))} is no name of a repository: .* user/repo'):
            restorer.push_to_hub(name)
    assert not hub.requests
    with pytest.raises(CheckpointError, match=r"'me/new' cannot be had from .*: access is refused \(401\)"):
        restorer.push_to_hub('me/new')
    monkeypatch.setenv('HF_TOKEN', 'hf_good')
    assert restorer.push_to_hub('me/new').startswith(hub.url)
    assert restorer.push_to_hub('me/new', private=True)  # once more: the same files
    np.testing.assert_array_equal(Restorer.from_pretrained('me/new', 'cpu')(tiny.photo()), restorer(tiny.photo()))
    hub.add('me/new', {**hub.repos['me/new'][-1], 'README.md': b'by hand'})
    restorer.push_to_hub('me/new')
    assert hub.repos['me/new'][-1]['README.md'] == b'by hand'


@pytest.fixture(autouse=True)
def messages(caplog):
    caplog.set_level(logging.WARNING, 'lorair_arch')
