"""Downloads from a hub: cut, stalled, killed, damaged, at once, onto full disks; and what a terminal shows."""

import fcntl
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
from huggingface_hub import constants

from lorair_arch import cli
from lorair_arch import weights as zoo
from lorair_arch.weights import located
from tests.disks import disk, fill
from tests.hub_server import BIG, CONFIG, etag, lorair, said, start
from tests.miniature import REPO


def files(folder=None):
    """Names of the files in the cache of the client, but for what is empty."""
    folder = Path(folder or constants.HF_HUB_CACHE)
    return sorted(path.name for path in folder.rglob('*') if path.is_file() and path.stat().st_size)


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


def test_the_hub_cannot_choose_where_files_go(hub, single, monkeypatch):
    monkeypatch.setattr('tests.hub_server.etag', lambda path, content: '../../../../outside')
    assert said('some/repo').endswith('what answers there is no hub; check HF_ENDPOINT, and the proxy')
    assert files() == []


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
