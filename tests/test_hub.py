"""Weights of a hub: the real client against a hub on loopback. Names, the cache, downloads that break, what is said."""

import fcntl
import logging
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import constants

from lorair_arch import Restorer, cli
from lorair_arch import weights as zoo
from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.errors import CheckpointError
from lorair_arch.weights import convert_to_official, located
from lorair_arch.weights.convert import convert
from lorair_arch.weights.files import save_file
from tests import tiny
from tests.disks import disk, fill
from tests.hub_server import etag
from tests.miniature import REPO
from tests.photos import write

BIG = np.random.default_rng(0).bytes(100_000)
CONFIG = b'{"router": {}, "restorer": {}, "degradations": ["noise", "rain"]}'
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


@pytest.fixture
def single(hub):
    """The hub with 'some/repo', a single file of weights with its config.json."""
    hub.add('some/repo', {'model.safetensors': BIG, 'config.json': CONFIG, 'README.md': b'card', 'x.pth': b'else'})
    return hub


def files(folder=None):
    """Names of the files in the cache of the client, but for what is empty."""
    folder = Path(folder or constants.HF_HUB_CACHE)
    return sorted(path.name for path in folder.rglob('*') if path.is_file() and path.stat().st_size)


def said(name):
    with pytest.raises(CheckpointError) as error:
        located(name)
    assert '\n' not in str(error.value)
    return str(error.value)


def downloads(hub):
    return [request for request in hub.requests if request.startswith('GET /large')]


# names


def test_setting1_is_downloaded_once(hub, setting1):
    image = tiny.photo()
    restorer = Restorer.from_pretrained('setting1', 'cpu')
    assert restorer.names == ['snow', 'rain', 'raindrop']
    np.testing.assert_array_equal(restorer(image), Restorer.from_pretrained(setting1, 'cpu')(image))
    assert len(downloads(hub)) == 2 and 'setting2_ir.pth' not in files()
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


# downloads that break


def test_a_killed_download_goes_on_where_it_stopped(hub, tmp_path):
    content = np.random.default_rng(1).bytes(25_000_000)  # the client writes 10 MiB at a time
    hub.add('some/repo', {'model.safetensors': content})
    hub.limit, hub.stall = 22_000_000, True
    process = start(tmp_path, 'weights', '--download', 'some/repo')
    partial = Path(constants.HF_HUB_CACHE, 'models--some--repo/blobs', f'{etag(".pth", content)}.lorair.incomplete')
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size >= 20 << 20) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = partial.stat().st_size
    assert 20 << 20 <= kept < len(content)
    hub.limit = None
    hub.sent.clear()
    done = lorair(tmp_path, 'weights', '--download', 'some/repo')
    assert done.returncode == 0, done.stderr
    assert f'{kept / 1e6:.1f} MB of them are here already' in done.stderr
    assert hub.sent == [(kept, len(content) - kept)]
    assert Path(done.stdout.strip()).read_bytes() == content and not partial.exists()


def test_a_cut_connection_is_taken_up_by_the_next_start(hub, single):
    hub.limit = 60_500
    assert said('some/repo') == (
        f'the download of {hub.url}/some/repo broke off at 60.0 kB of 100.0 kB (RemoteProtocolError): start '
        'again, it goes on from there'
    )
    assert zoo.hub.Repository('some/repo').local() == []
    hub.limit = None
    hub.sent.clear()
    assert located('some/repo')[0].read_bytes() == BIG
    assert hub.sent == [(60_000, 40_000)]


def test_a_download_that_stalls_ends(hub, single):
    hub.limit, hub.stall = 60_500, True
    assert 'broke off at 60.0 kB of 100.0 kB (ReadTimeout): start again' in said('some/repo')


def test_wrong_bytes_are_removed(hub, single):
    hub.damage = True
    assert said('some/repo') == (
        f'{hub.url}/some/repo: what came as model.safetensors is not what the hub announced (its checksum differs) '
        'and was removed; start again, and see to the network or the proxy if it happens twice'
    )
    assert etag('x.pth', BIG) not in ' '.join(files())
    hub.damage = False
    assert located('some/repo')[0].read_bytes() == BIG


def test_a_partial_file_of_other_bytes_is_removed(hub, single):
    partial = Path(constants.HF_HUB_CACHE, 'models--some--repo/blobs', f'{etag("x.pth", BIG)}.lorair.incomplete')
    for content in (bytes(500), bytes(200_000)):
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        if len(content) == 500:
            assert 'its checksum differs' in said('some/repo')
        assert not (len(content) == 500 and partial.exists())
    assert located('some/repo')[0].read_bytes() == BIG


def test_an_unfinished_update_leaves_the_old_files(hub, single, monkeypatch, caplog):
    paths = located('some/repo')
    hub.add('some/repo', {'model.safetensors': BIG[::-1], 'config.json': CONFIG})
    hub.limit = 100
    assert located('some/repo') == paths
    assert 'broke off at' in caplog.text and 'meanwhile the copy on this machine is used' in caplog.text
    hub.limit = None
    assert located('some/repo')[0].read_bytes() == BIG[::-1]


def test_several_starts_at_once_download_once(hub, tmp_path):
    hub.add('some/repo', {'model.safetensors': BIG})
    processes = [start(tmp_path, 'weights', '--download', 'some/repo') for _ in range(3)]
    assert [process.communicate(timeout=60) and process.returncode for process in processes] == [0, 0, 0]
    assert hub.sent == [(0, len(BIG))]


# the disk


def test_no_space_is_said_before_the_download(hub, single, tmp_path):
    with disk(tmp_path / 'huggingface', '1m'):
        Path(constants.HF_HUB_CACHE).mkdir()
        fill(tmp_path / 'huggingface', leave=60_000)
        message = said('some/repo')
    assert message.startswith(f'{hub.url}/some/repo: 100.1 kB are to be downloaded, but the disk of {tmp_path}')
    assert message.endswith('kB free; free some space, or set HF_HOME to a folder of another disk')
    assert hub.sent == []


def test_no_space_in_the_middle(hub, single, tmp_path, monkeypatch):
    monkeypatch.setattr('shutil.disk_usage', lambda path: SimpleNamespace(free=1 << 40))
    with disk(tmp_path / 'huggingface', '1m'):
        Path(constants.HF_HUB_CACHE).mkdir()
        fill(tmp_path / 'huggingface', leave=60_000)
        message = said('some/repo')
        assert message == (
            f"the hub's cache {constants.HF_HUB_CACHE} cannot be used: No space left on device; free some space, or "
            'set HF_HOME to another folder'
        )
        (tmp_path / 'huggingface/ballast').unlink()
        hub.sent.clear()
        assert located('some/repo')[0].read_bytes() == BIG
        assert hub.sent[0][0] > 0


def test_a_cache_that_cannot_be_written(hub, single, tmp_path):
    (tmp_path / 'huggingface').write_text('a file')
    assert said('some/repo') == (
        f"the hub's cache {constants.HF_HUB_CACHE} cannot be used: Not a directory ({tmp_path}/huggingface/token); "
        'move away the file that stands in the place of a folder, or set HF_HOME to another folder'
    )


def test_a_full_cache_that_can_only_be_read_serves(hub, single, tmp_path):
    with disk(tmp_path / 'huggingface', '2m'):
        paths = located('some/repo')
        hub.add('some/repo', {'model.safetensors': BIG, 'config.json': CONFIG})
        subprocess.run(['mount', '-o', 'remount,ro', tmp_path / 'huggingface'], check=True)
        message = said('some/repo@' + 'a' * 40)
        assert 'has no revision' in message
        assert [path.read_bytes() for path in located('some/repo')] == [path.read_bytes() for path in paths]


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
    assert 'name others, such as setting1, or make them (scripts/train_zoo.sh)' in said('lorair-tiny')
    assert "it has no revision 'v9'" in said_of_existing(hub, 'some/repo@v9')
    for path in ('results/x.pth', './results/weights', '../some/repo', 'a/b/c', '/some/repo'):
        assert located(path) == [Path(path)]


def said_of_existing(hub, name):
    hub.add('some/repo', {'model.safetensors': BIG})
    return said(name)


def test_the_command_says_one_sentence(hub, single, capfd):
    hub.limit = 60_500
    assert cli.lorair(['weights', '--download', 'some/repo']) != 0
    downloading, error = capfd.readouterr().err.splitlines()
    assert downloading.startswith(f'{hub.url}/some/repo: 100.1 kB are downloaded to {constants.HF_HUB_CACHE}')
    assert error.startswith(f'error: the download of {hub.url}/some/repo broke off at 60.0 kB of 100.0 kB')


def test_a_terminal_shows_a_bar(hub, single, tmp_path):
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack('HHHH', 25, 100, 0, 0))
    code = 'import sys; from lorair_arch.cli import lorair; sys.exit(lorair())'
    command = [sys.executable, '-c', code, 'weights', '--download', 'some/repo']
    env = os.environ | {'PYTHONPATH': str(REPO)}
    assert subprocess.run(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=writer).returncode == 0
    assert 'model.safetensors: 100%' in os.read(reader, 1 << 16).decode()


# the list


def test_the_list(hub, setting1, single, tmp_path, capsys):
    assert cli.lorair(['weights']) == 0
    before = capsys.readouterr().out
    assert f'about 0.9 GB  Apache-2.0  snow, rain, raindrop  no; {hub.url}/{OFFICIAL}' in before
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


# pushing


def test_the_hub_takes_what_the_client_pushes(hub, tmp_path):
    """For the tests of `push_to_hub`: the server is a hub for the client's uploads too."""
    from huggingface_hub import HfApi

    (tmp_path / 'up').mkdir()
    for name, content in {'model.safetensors': BIG, 'config.json': CONFIG, 'README.md': b'card'}.items():
        (tmp_path / 'up' / name).write_bytes(content)
    api = HfApi(token='hf_good')
    api.create_repo('me/new', exist_ok=True)
    api.create_repo('me/new', exist_ok=True)
    api.upload_folder(repo_id='me/new', folder_path=tmp_path / 'up')
    assert located('me/new')[0].read_bytes() == BIG


def lorair(folder, *command):
    process = start(folder, *command)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def start(folder, *command):
    code = 'import sys; from lorair_arch.cli import lorair; sys.exit(lorair())'
    env = os.environ | {'PYTHONPATH': str(REPO)}
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return subprocess.Popen([sys.executable, '-c', code, *command], cwd=folder, env=env, **pipes)


@pytest.fixture(autouse=True)
def messages(caplog):
    caplog.set_level(logging.WARNING, 'lorair_arch')
