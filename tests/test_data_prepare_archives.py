"""`lorair data prepare` from archives: of every kind, damaged, and such that mean harm."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import cv2
import pytest

from lorair_arch.data.prepare.prepare import prepare
from lorair_arch.errors import DataError
from tests.photos import photo, write_pairs
from tests.prepared import contents

PNG = cv2.imencode('.png', photo())[1].tobytes()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with pairs in `x`, where the test runs."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / 'x', height=12, width=10)
    return tmp_path


def files(side: str) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in Path('x', side).iterdir()}


@pytest.mark.parametrize('suffix', ['tar', 'tar.gz', 'tgz', 'gz', 'tar.xz', 'tar.bz2'])
def test_tars(here, suffix):
    mode = {'tar': 'w', 'tgz': 'w:gz', 'gz': 'w:gz'}.get(suffix, f'w:{suffix[4:]}')
    with tarfile.open(f'x.{suffix}', mode) as tar:
        tar.add('x')
    prepare('folder', f'x.{suffix}', 'out')
    assert contents('out/images_lq.lmdb') == files('lq')
    assert sorted(path.name for path in Path('out').iterdir()) == ['images_gt.lmdb', 'images_lq.lmdb']
    content = Path(f'x.{suffix}').read_bytes()
    Path(f'x.{suffix}').write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"^archive '.*/x\..*' is cut short or damaged \(.*\); download it again$"):
        prepare('folder', f'x.{suffix}', 'again')
    assert not Path('again').exists()


def test_what_is_of_no_use_is_not_left_lying(here):
    with tarfile.open('x.tar', 'w') as tar:
        tar.add('x')
    with pytest.raises(DataError, match='^.x.tar. is not lol_v1: found '):
        prepare('lol_v1', 'x.tar', 'deep/out')
    assert not Path('deep').exists()
    Path('out').mkdir()
    with pytest.raises(DataError, match='^.x.tar. is not lol_v1: found '):
        prepare('lol_v1', 'x.tar', 'out')
    assert list(Path('out').iterdir()) == []


def test_a_folder_of_archives(here):
    Path('downloads').mkdir()
    for side in ('lq', 'gt'):
        with zipfile.ZipFile(f'downloads/{side}.zip', 'w') as archive:
            for path in Path('x', side).iterdir():
                archive.write(path, path.name)
            archive.writestr('__MACOSX/._00.png', b'')
    prepare('folder', 'downloads', 'out')
    assert contents('out/images_lq.lmdb') == files('lq')
    # What has been unpacked beside its archive is there once.
    Path('x/lq').rename('downloads/lq')
    Path('x/gt').rename('downloads/gt')
    assert prepare('folder', 'downloads', 'again').mistakes == []


def evil_tar(path: str) -> None:
    with tarfile.open(path, 'w') as archive:
        for name in ('../evil.png', '/tmp/evil/evil.png', 'x/gt/../../../evil.png', 'x/gt/1.png'):
            member = tarfile.TarInfo(name)
            member.size = len(PNG)
            archive.addfile(member, io.BytesIO(PNG))
        link = tarfile.TarInfo('x/gt/link.png')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        archive.addfile(link)
        link = tarfile.TarInfo('x/up')
        link.type, link.linkname = tarfile.SYMTYPE, '../../..'
        archive.addfile(link)
        member = tarfile.TarInfo('x/up/evil.png')
        member.size = len(PNG)
        archive.addfile(member, io.BytesIO(PNG))


def evil_zip(path: str) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        for name in ('../evil.png', '/tmp/evil/evil.png', 'x/gt/../../../evil.png', 'x/gt/1.png'):
            archive.writestr(name, PNG)


@pytest.mark.parametrize(('kind', 'write_archive'), [('tar', evil_tar), ('zip', evil_zip)])
def test_nothing_is_written_outside(tmp_path, monkeypatch, kind, write_archive):
    inner = tmp_path / 'a/b/c'
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    write_archive(f'x.{kind}')
    report = prepare('folder', f'x.{kind}', 'out')
    assert len(report.mistakes) == 3
    assert report.mistakes[0] == (
        f"archive '{inner}/x.{kind}' names '../evil.png', outside of its own folder; it is left out"
    )
    assert contents('out/images_gt.lmdb') == {'1': PNG}
    assert not list(tmp_path.rglob('*evil*')) and not Path('/tmp/evil').exists()


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('lorair_arch.data.prepare.archives._LARGEST', 10**6)
    with zipfile.ZipFile('x.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('gt/1.png', PNG)
        archive.writestr('gt/2.png', bytes(3 * 10**6))
    with pytest.raises(DataError, match=r"^archive '.*x.zip' would become more than 100 times its size: it"):
        prepare('folder', 'x.zip', 'out')
    with zipfile.ZipFile('y.zip', 'w') as archive:
        archive.writestr('gt/1.png', PNG)
        archive.writestr('gt/2.png', bytes(3 * 10**6))
    report = prepare('folder', 'y.zip', 'out')
    assert report.mistakes == [
        f"archive '{tmp_path}/y.zip' holds 'gt/2.png' of 3000000 bytes, no image; it is left out"
    ]


def test_a_damaged_member(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile('x.zip', 'w') as archive:
        archive.writestr('gt/1.png', PNG)
        archive.writestr('gt/2.png', PNG)
    content = Path('x.zip').read_bytes()
    Path('x.zip').write_bytes(content.replace(PNG, PNG[:50] + b'??' + PNG[52:], 1))
    report = prepare('folder', 'x.zip', 'out')
    assert len(report.mistakes) == 1
    assert report.mistakes[0].startswith(f"cannot read 'gt/1.png' in archive '{tmp_path}/x.zip': Bad CRC-32")
    assert set(contents('out/images_gt.lmdb')) == {'2'}


def test_other_archives_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('x').mkdir()
    Path('x/set.rar').write_bytes(b'Rar!')
    with pytest.raises(DataError, match="^'x' holds archives that cannot be read here: unpack them first$"):
        prepare('folder', 'x', 'out')
    with pytest.raises(DataError, match=r"^'x/set.rar' is a file; expected a folder or an archive \(\.zip, "):
        prepare('folder', 'x/set.rar', 'out')
    Path('x.zip').write_bytes(b'hello')
    with pytest.raises(DataError, match='is cut short or damaged'):
        prepare('folder', 'x.zip', 'out')


def test_nothing_can_be_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('x/gt').mkdir(parents=True)
    Path('x/gt/1.png').write_bytes(b'no image')
    with pytest.raises(DataError) as error:
        prepare('folder', 'x', 'out')
    lines = str(error.value).splitlines()
    assert lines[0].startswith("cannot decode image 'x/gt/1.png'") and lines[1] == "nothing of 'x' can be used"
    assert not Path('out').exists()
