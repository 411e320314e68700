"""A training that is killed again and again ends as one that was left alone; scripts/benchmark has the long version."""

import importlib.util

from tests.miniature import REPO


def test_kills_leave_no_trace(capsys):
    file = REPO / 'scripts/benchmark/soak_kill_resume.py'
    spec = importlib.util.spec_from_file_location(file.stem, file)
    soak = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(soak)
    assert soak.main(['--kills', '5', '--seed', '1']) == 0
    report = capsys.readouterr().out
    assert sum(int(line.split()[0]) for line in report.splitlines() if ' kills ' in line) == 5
    for what in ('params', 'params_ema', 'optimizers', 'schedulers', 'best', '80 logged losses'):
        assert f'     equal  {what}' in report
