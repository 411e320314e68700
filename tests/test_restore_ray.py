"""`lorair restore --ray`: on a real cluster of two nodes, with workers that are killed; what is said without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from lorair_arch import Restorer
from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.reading import read_photo
from lorair_arch.data.images.writing import write_photo
from lorair_arch.errors import LoRAIRError
from lorair_arch.restoring.on_ray import _shares, run_on_ray
from lorair_arch.restoring.run import Stop
from lorair_arch.restoring.settings import Settings
from tests.miniature import REPO
from tests.tiny import photo, save_weights

pytest.importorskip('ray')
COUNT = 24


@pytest.fixture(scope='module')
def cluster():
    """Two nodes with a core each, as processes; gives their address."""
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv('RAY_BACKEND_LOG_LEVEL', 'fatal')
    patch.setenv('PYTHONPATH', str(REPO))  # of what workers import
    cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()
    patch.undo()


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path / 'weights')
    for i in range(COUNT):
        write_photo(f'photos/{i % 3}/{i}.png', Photo(photo(30 + i, 50)))
    (tmp_path / 'photos/0/damaged.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    return tmp_path


def command(*more):
    program = 'import sys; from lorair_arch.cli import lorair; sys.exit(lorair())'
    flags = ['photos', '-o', 'restored', '--weights', 'weights', '--device', 'cpu', '--log', 'log.jsonl', *more]
    env = os.environ | {'PYTHONPATH': str(REPO)}
    return subprocess.Popen(
        [sys.executable, '-c', program, 'restore', *flags], env=env, stderr=subprocess.PIPE, text=True
    )


def log():
    return [json.loads(line) for line in Path('log.jsonl').read_text().splitlines()]


def workers():
    """Gives the processes that restore."""
    names = [(process, process.info['cmdline']) for process in psutil.process_iter(['cmdline'])]
    return [process for process, line in names if line and 'ray::' in line[0] and '_Actor' in line[0]]


def check_results(photos):
    restorer = Restorer.from_pretrained(photos / 'weights', 'cpu')
    # What a killed worker was writing has no name yet.
    results = sorted(path for path in Path('restored').rglob('*') if path.is_file() and path.suffix != '.tmp')
    assert len(results) == COUNT
    for result in results:
        expected = restorer(read_photo(Path('photos', *result.parts[1:])).pixels)
        np.testing.assert_array_equal(read_photo(result).pixels, expected)


def test_a_folder_on_two_nodes_with_workers_killed_in_between(cluster, photos):
    process, killed, seen = command('--ray', cluster), [], set()
    while process.poll() is None:
        seen.update(worker.pid for worker in workers())
        if len(killed) < 2 and len(list(Path('restored').rglob('*.png'))) > 5 * len(killed):
            for worker in workers()[:1]:
                worker.send_signal(signal.SIGKILL)
                killed.append(worker.pid)
        time.sleep(0.05)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1, err  # the damaged one
    assert len(killed) == 2 and set(seen) > set(killed)  # others took their place
    assert '1 of 25 images could not be restored' in err and "photos/0/damaged.png' is cut short" in err
    assert 'Traceback' not in err and 'ray' not in err, err
    check_results(photos)
    lines = log()
    assert len(lines) == 25 and sorted({line['status'] for line in lines}) in (
        ['failed', 'restored'],
        ['failed', 'restored', 'skipped'],  # by who had the image of a killed worker, which had written it
    )
    # nothing to do any more: no networks, no cluster
    process = command('--ray', cluster)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1 and '24 images skipped, as the result exists' in err


def test_settings_pictures_and_a_stop(cluster, photos):
    process = command('--ray', cluster, '--overwrite', '--compare', '--report', 'page.html', '--format', 'jpg')
    while process.poll() is None and len(list(Path('restored').rglob('*.jpg'))) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert 'images are restored, the same command goes on from there' in err and 'Traceback' not in err
    for result in Path('restored').rglob('*.jpg'):  # what a worker was writing, Ray has killed: it has no name yet
        read_photo(result)
    process = command('--ray', cluster, '--compare', '--report', 'page.html', '--format', 'jpg')
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1, err
    assert len(list(Path('restored').rglob('*.jpg'))) == len(list(Path('restored').rglob('*.compare.png'))) == COUNT
    assert Path('page.html').read_text().count('data:image') >= 2 * COUNT


def test_an_output_that_cannot_be_written_ends_the_run(cluster, photos):
    Path('restored').mkdir()
    (photos / 'restored/0').write_text('no folder')
    process = command('--ray', cluster)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2
    assert 'restored/0/0.png cannot be written: Not a directory' in err and 'Traceback' not in err


def test_machines_that_cannot_load_the_networks(cluster, photos):
    process = command('--ray', cluster, '--device', 'meta')  # the last flag of a name counts
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2, err
    assert "error: device 'meta' cannot be used: " in err and '(on the machine ' in err and 'Traceback' not in err


@pytest.mark.parametrize(
    ('machines', 'device', 'shares'),
    [
        ([{'CPU': 4}, {'CPU': 8}], None, (3, 4, 0)),
        ([{}, {'CPU': 4}, {'CPU': 4}], None, (2, 4, 0)),  # a head that does no work
        ([{}, {'CPU': 4, 'GPU': 2}], None, (2, 1, 1)),
        ([{'CPU': 4, 'GPU': 2}], 'cpu', (1, 4, 0)),
        ([{}], None, (1, 1, 0)),
    ],
)
def test_each_actor_gets_a_machine_or_a_gpu(machines, device, shares):
    total = {name: count for name in ('CPU', 'GPU') if (count := float(sum(m.get(name, 0) for m in machines)))}
    nodes = [{'Alive': True, 'Resources': machine} for machine in machines] + [{'Alive': False, 'Resources': {}}]
    assert _shares(SimpleNamespace(cluster_resources=lambda: total, nodes=lambda: nodes), device) == shares


def test_no_cluster(photos):
    process = command('--ray', '127.0.0.1:1')
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2, err
    assert "--ray: there is no cluster at '127.0.0.1:1'" in err and 'Traceback' not in err


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(LoRAIRError, match=r"--ray: Ray is not installed: pip install 'lorair\[ray\]'"):
        list(run_on_ray([], 'weights', Settings(), None, None, False, '', Stop()))
