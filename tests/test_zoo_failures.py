"""The sheet of what weights cannot do."""

from pathlib import Path

from PIL import Image


def test_the_sheet(zoo, load, monkeypatch, capsys):
    failures = load('zoo_failures')
    monkeypatch.setattr(failures, 'CASES', dict(list(failures.CASES.items())[-1:]))
    monkeypatch.setattr('sys.argv', ['zoo_failures', '--weights', 'weights', '-o', 'sheet.jpg'])
    assert failures.main() == 0, capsys.readouterr().err
    with Image.open('sheet.jpg') as sheet:
        assert sheet.format == 'JPEG' and sheet.width > 3 * 256
    before = Path('sheet.jpg').read_bytes()
    assert failures.main() == 2
    assert 'sheet.jpg' in capsys.readouterr().err and Path('sheet.jpg').read_bytes() == before


def test_every_case_can_be_made(load):
    failures, degradations = load('zoo_failures'), load('lorair_arch.data.degradations')
    for _, degrade in failures.CASES.values():
        degradations.build_degradation(degrade)
