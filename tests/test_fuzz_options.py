"""Any change of a shipped options file is accepted and builds, or is refused with our error."""

import os
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.metrics import calculate_metric
from basicsr.models.base_model import BaseModel
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lorair_arch.data.degradations import build_degradation
from lorair_arch.errors import OptionsError
from lorair_arch.options.reading import load_options
from lorair_arch.options.yaml_file import OptionsFile, printed, read_files, read_yaml
from tests.miniature import REPO

FILES = [file for file in sorted((REPO / 'options').rglob('*.yml')) if 'base' not in file.parts]
SHIPPED = {file: read_yaml(file) for file in FILES}
ODD = [
    None, True, False, 0, 1, 2, 3, 5, -1, 0.5, -0.5, 1.0, 1e-300, 1e300, float('inf'), float('-inf'), float('nan'),
    2**31, 2**63, 10**30, '', ' ', 'x', '1', 'null', '日本', '..', '../x', '/', '~', 'a' * 300, '2024-01-01', 'L1Loss',
    'Adam', 'SGD', 'auto', 'cpu', 'cuda', '(', '(a)(b)', 'LoRAIR', 'DegradationRouter', 'RRDBNet', 'PairedImageDataset',
    [], [1], [0], [None], ['x'], [1, 2], [2, 1], [1e9, 1e9], [[1, 2], [3]], [0.9, 0.999], {}, {'type': 'x'},
    {'type': None}, {'type': []}, {'type': 'haze'}, {'a': {'b': []}},
]  # fmt: skip
KINDS = [None, True, 0, 2, -1, 0.5, 1e300, float('nan'), 'x', '', [], [1, 2], ['x'], {}, {'type': 'x'}]
# FUZZ=5000 in the environment tries so many changes, other ones each time.
SETTINGS = {
    'derandomize': 'FUZZ' not in os.environ,
    'database': None,
    'deadline': None,
    'phases': [Phase.generate],
    'max_examples': int(os.environ.get('FUZZ', 200)),
    'suppress_health_check': list(HealthCheck),
}


@pytest.fixture(scope='module', autouse=True)
def here(tmp_path_factory):
    """A folder with everything that the shipped files name, empty, where the tests run."""
    folder = tmp_path_factory.mktemp('fuzz')
    for file in FILES:
        for path in filter(lambda value: isinstance(value, str) and '/' in value, values(SHIPPED[file])):
            if path.endswith('.pth'):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).touch()
            else:
                (folder / path).mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def values(tree):
    """Gives every value of a nest of mappings and lists, the nests themselves too."""
    yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from values(part)


def places(tree, where=''):
    """Gives (container, key, name of the place) of every value."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        name = f'{where}.{key}' if isinstance(tree, dict) else f'{where}[]'
        yield tree, key, name
        if isinstance(tree[key], (dict, list)):
            yield from places(tree[key], name)


def change(draw, opt):
    """Changes one place of the options in one way."""
    found = list(places(opt))
    container, key, _ = found[draw(st.integers(0, len(found) - 1))]
    other, other_key, _ = found[draw(st.integers(0, len(found) - 1))]
    match draw(st.sampled_from(['value', 'value', 'value', 'delete', 'rename', 'copy', 'swap', 'add', 'repeat'])):
        case 'value':
            container[key] = deepcopy(draw(st.sampled_from(ODD)))
        case 'delete':
            del container[key]
        case 'rename' if isinstance(container, dict):
            container[
                draw(st.sampled_from(['x', '', f'{key}s', str(key)[:-1], 'größe', 'type', 'name', str(other_key)]))
            ] = container.pop(key)
        case 'copy':
            container[key] = deepcopy(other[other_key])
        case 'swap':
            container[key], other[other_key] = deepcopy(other[other_key]), deepcopy(container[key])
        case 'add' if isinstance(container[key], dict):
            container[key][draw(st.sampled_from(['x', 'größe', 'type', str(other_key)]))] = deepcopy(other[other_key])
        case 'repeat' if isinstance(container, list):
            container.insert(0, deepcopy(container[key]))


def load(changed, file):
    """Reads changed options; gives None if they are refused as they should be."""
    try:
        return load_options(changed, 'test' not in file.relative_to(REPO).parts, os.getcwd())
    except OptionsError as error:
        lines = str(error).splitlines()
        assert lines and all(line.startswith('changed.yml: ') and len(line) < 1000 for line in lines), lines
        return None


built = set()


def build(opt):
    """Builds what the options describe, networks without their memory, and uses everything that is quick."""
    for label in ('network_router', 'network_g'):
        if label in opt and repr(opt[label]) not in built:
            built.add(repr(opt[label]))
            with torch.device('meta'):
                build_network(opt[label] | ({'pretrained': None} if opt[label]['type'] == 'DegradationRouter' else {}))
    rng, image = np.random.default_rng(0), np.full((48, 48, 3), 0.5, np.float32)
    for dataset in opt['datasets'].values():
        for source in dataset.get('sources', ()):
            if source.get('degrade'):
                assert np.isfinite(build_degradation(source['degrade'])(image, rng)).all()
    for metric in (opt.get('val') or {}).get('metrics') or {}:
        calculate_metric({'img': image * 255, 'img2': image * 254}, opt['val']['metrics'][metric])
    if opt['is_train']:
        build_training(deepcopy(opt))


def build_training(opt):
    train, total = opt['train'], opt['train']['total_iter']
    model = BaseModel(opt)
    param = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = train[next(key for key in train if key.startswith('optim_'))]
    model.optimizers = [getattr(torch.optim, optimizer.pop('type'))([param], **optimizer)]
    model.setup_schedulers()
    if 'pixel_opt' in train:
        build_loss(train['pixel_opt'])(param.expand(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)).backward()
    else:
        param.sum().backward()
    model.optimizers[0].step()
    for iteration in (1, 2, total):
        model.schedulers[0].last_epoch = iteration - 1
        model.update_learning_rate(iteration, warmup_iter=train.get('warmup_iter', -1))


def try_options(opt, file):
    """Checks options, and builds them if they are accepted."""
    changed = OptionsFile('changed.yml', '', [('changed.yml', opt)])  # writing and reading takes longer
    accepted = load(changed, file)
    if accepted is not None:
        build(accepted)


def test_each_value_replaced():
    """One after the other, in the first file and list that has it, by each kind of value."""
    seen = set()
    for file, opt in SHIPPED.items():
        for i, (_, _, where) in enumerate(places(opt)):
            if where in seen:
                continue
            seen.add(where)
            for value in KINDS:
                changed = deepcopy(opt)
                container, key, _ = list(places(changed))[i]
                container[key] = deepcopy(value)
                try_options(changed, file)


@settings(**SETTINGS)
@given(st.data())
def test_changed_values(data):
    file = data.draw(st.sampled_from(FILES))
    opt = deepcopy(SHIPPED[file])
    for _ in range(data.draw(st.sampled_from([1, 1, 1, 2, 3]))):
        change(data.draw, opt)
    try_options(opt, file)


@settings(**SETTINGS)
@given(st.data())
def test_changed_text(data):
    file = data.draw(st.sampled_from(FILES))
    lines = printed(read_files([file])[0]).splitlines()
    for _ in range(data.draw(st.sampled_from([1, 1, 1, 2, 3]))):
        i, j = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        line, at = lines[i], data.draw(st.integers(0, 60))
        match data.draw(st.sampled_from(['delete', 'repeat', 'move', 'cut', 'insert', 'indent'])):
            case 'delete':
                lines[i] = ''
            case 'repeat':
                lines.insert(i, line)
            case 'move':
                lines.insert(j, lines.pop(i))
            case 'cut':
                lines[i] = line[:at]
            case 'insert':
                lines[i] = (
                    line[:at] + data.draw(st.text(max_size=4) | st.sampled_from(list('[]{}&*:!-\t,"\'#'))) + line[at:]
                )
            case 'indent':
                lines[i] = ' ' + line
    Path('changed.yml').write_text('\n'.join(lines), encoding='utf-8', errors='surrogatepass')
    opt = load('changed.yml', file)
    if opt is not None:
        build(opt)
