"""The measure of a folder runs; how fast anything is, is not tested."""

from PIL import Image

import folder as measure
from tests.tiny import photo, save_weights


def test_a_folder_next_to_the_network_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / 'photos').mkdir()
    for size in ((30, 50), (50, 30), (40, 40)):
        Image.fromarray(photo(*size)).save(tmp_path / f'photos/{size[0]}.png')
    weights = save_weights(tmp_path / 'weights')
    flags = ['--weights', str(weights), '--photos', str(tmp_path / 'photos'), '--device', 'cpu', '--count', '5']
    monkeypatch.setattr('sys.argv', ['folder.py', *flags, '--megapixels', '0.002'])
    assert measure.main() == 0
    out = capsys.readouterr().out
    for row in ('decode', 'router', 'restorer', 'encode', 'network alone', 'folder'):
        assert f'| {row} ' in out
    (tmp_path / 'empty').mkdir()
    monkeypatch.setattr('sys.argv', ['folder.py', '--weights', str(weights), '--photos', str(tmp_path / 'empty')])
    assert measure.main() == 2
    assert capsys.readouterr().err == f"error: --photos: '{tmp_path / 'empty'}' holds no images\n"
