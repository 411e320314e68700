"""`lorair data prepare` from archives: of every kind, damaged, and such that mean harm."""

from __future__ import annotations

import gzip
import io
import stat
import struct
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
        link = zipfile.ZipInfo('x/gt/link.png')
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, '/etc/passwd')


@pytest.mark.parametrize(('kind', 'write_archive'), [('tar', evil_tar), ('zip', evil_zip)])
def test_nothing_is_written_outside(tmp_path, monkeypatch, kind, write_archive):
    inner = tmp_path / 'a/b/c'
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    write_archive(f'x.{kind}')
    report = prepare('folder', f'x.{kind}', 'out')
    assert len(report.mistakes) == 4
    assert report.mistakes[3] == (
        f"archive '{inner}/x.{kind}' holds 'x/gt/link.png', which is a link or no plain file; it is left out"
    )
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


def unreadable(tmp_path: Path, old: bytes, new: bytes) -> str:
    """Changes fields of a ZIP file's headers; gives what is said of it."""
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as archive:
        archive.writestr('gt/1.png', PNG)
    content = (tmp_path / 'x.zip').read_bytes()
    assert old in content
    (tmp_path / 'x.zip').write_bytes(content.replace(old, new))
    with pytest.raises(DataError) as error:
        prepare('folder', str(tmp_path / 'x.zip'), str(tmp_path / 'out'))
    return str(error.value)


@pytest.mark.parametrize(
    ('flags', 'kind', 'version', 'reason'),
    [
        (0, 0, 99, 'zip file version 9.9'),
        (0, 97, 20, 'That compression method is not supported'),
        (1, 0, 20, "File 'gt/1.png' is encrypted, password required for extraction"),
    ],
)
def test_zips_for_other_programs(tmp_path, flags, kind, version, reason):
    """Fields of the headers: the version that is needed, flags, the kind of compression."""
    fields = struct.pack('<HHH', version, flags, kind)
    assert unreadable(tmp_path, struct.pack('<HHH', 20, 0, 0), fields) == (
        f"archive '{tmp_path}/x.zip' cannot be read here ({reason}): unpack it with another program, and name the "
        'folder'
    )


def test_backslashes_in_a_zip(here):
    with zipfile.ZipFile('x.zip', 'w') as archive:
        for path in sorted(Path('x').rglob('*.png')):
            archive.writestr(str(path).replace('/', '\\'), path.read_bytes())
    assert prepare('folder', 'x.zip', 'out').mistakes == []
    assert contents('out/images_lq.lmdb') == files('lq')


def test_what_is_no_archive_in_a_folder(here):
    Path('x/notes.gz').write_bytes(gzip.compress(b'no archive'))
    report = prepare('folder', 'x', 'out')
    assert report.mistakes == [f"'{here}/x/notes.gz' is no archive of files, or damaged; it is left out"]
    assert contents('out/images_lq.lmdb') == files('lq')
    with pytest.raises(DataError, match='notes.gz. is cut short or damaged'):
        prepare('folder', 'x/notes.gz', 'again')
    Path('x/notes.tar.gz').write_bytes(b'no archive')
    with pytest.raises(DataError, match='notes.tar.gz. is cut short or damaged'):
        prepare('folder', 'x', 'again')
