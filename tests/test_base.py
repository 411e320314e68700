"""`base:` in options files, `--print-options`, and that every file is read once."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from lorair_arch import cli
from lorair_arch.errors import OptionsError
from lorair_arch.options import yaml_file
from lorair_arch.options.reading import load_options
from lorair_arch.options.yaml_file import copy_opt_file, force, read_files, read_yaml
from tests.miniature import REPO, run, stage, write_options

SHIPPED = [file for file in sorted((REPO / 'options').rglob('*.yml')) if 'base' not in file.parts]


def write(**texts):
    for name, text in texts.items():
        path = Path(name.replace('__', '/') + '.yml')
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_mappings_are_merged_lists_and_values_replaced(folder):
    write(
        a='base: deeper/b.yml\nx: {own: 1, list: [3]}\nname: a\nnone: ~',
        deeper__b='base: ../c.yml\nx: {list: [1, 2], more: {p: 1}}\nnone: {k: 1}\nplain: 1\nmade: ~',
        c='x: {list: [0], more: {q: 2}}\nplain: {k: 0}\nmade: {k: 0}\nlast: 2',
    )
    assert read_yaml('a.yml') == {
        'x': {'own': 1, 'list': [3], 'more': {'p': 1, 'q': 2}},
        'name': 'a', 'none': None, 'plain': 1, 'made': None, 'last': 2,
    }  # fmt: skip
    write(d='base: a.yml\nmade: {new: 1}')  # what was removed does not come back
    assert read_yaml('d.yml')['made'] == {'new': 1}


def test_of_several_each_replaces_what_those_before_it_say(folder):
    write(a='base: [b.yml, c.yml]\nx: 1', b='x: 2\ny: 2\nz: {b: 1}', c='x: 3\ny: 3\nz: {c: 1}')
    assert read_yaml('a.yml') == {'x': 1, 'y': 3, 'z': {'b': 1, 'c': 1}}
    # what both build on does not undo what one of them says
    write(a='base: [b.yml, c.yml]', b='base: d.yml\nx: 2', c='base: d.yml\ny: 3', d='x: 0\ny: 0\nz: 0')
    assert read_yaml('a.yml') == {'x': 2, 'y': 3, 'z': 0}


def test_what_is_given_out_may_be_changed(folder):
    write(a='base: b.yml\nx: {k: [1]}', b='y: {k: [2]}')
    (file,) = read_files(['a.yml'])
    first = file.content()
    first['x']['k'].append(0)
    first['y']['k'].append(0)
    assert file.content() == {'x': {'k': [1]}, 'y': {'k': [2]}}


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        ({'a': 'base: b.yml'}, 'a.yml: base: b.yml: cannot be read (No such file or directory); check the path'),
        ({'a': 'base: x/b.yml', 'x__b': 'base: c.yml'}, 'a.yml: base: x/b.yml: base: x/c.yml: cannot be read (No such'),
        ({'a': 'base: a.yml'}, 'a.yml: base: a.yml: builds on itself, expected files that do not lead back here'),
        ({'a': 'base: b.yml', 'b': 'base: ./a.yml'}, 'a.yml: base: b.yml: base: a.yml: builds on itself, expected'),
        ({'a': 'base: 3'}, 'a.yml: base: found 3, expected a text'),
        ({'a': 'base: ~'}, 'a.yml: base: found null, expected a text'),
        ({'a': 'base: []'}, 'a.yml: base: found [], expected a text, or a list of one or more, each a text'),
        (
            {'a': 'base: [b.yml, {}]', 'b': 'x: 1'},
            'a.yml: base[1]: found a mapping with the keys (none), expected',
        ),
        ({'a': 'base: b.yml', 'b': '- x'}, 'a.yml: base: b.yml: holds a list, expected keys and values such as'),
        ({'a': 'base: b.yml', 'b': 'x: 1\nx: 2'}, "a.yml: base: b.yml: line 2: the key 'x' is there twice"),
    ],
)
def test_mistakes_name_both_files(folder, texts, message):
    write(**texts)
    with pytest.raises(OptionsError) as caught:
        read_yaml('a.yml')
    assert str(caught.value).startswith(message) and '\n' not in str(caught.value)


def test_a_mistake_is_reported_with_the_file_that_says_it(here):
    opt = stage('router')
    opt['train']['total_itr'] = 3
    opt['datasets']['train']['sources'][0]['match'] = '('
    write_options(here, opt, 'common')
    Path('run.yml').write_text('base: common.yml\nname: mine\nval: {val_freq: 0}\nlogger: {print_freq: none}')
    with pytest.raises(OptionsError) as caught:
        load_options('run.yml', True, '.', ['logger:keep_last=0'])
    assert [line.split(': ')[:2] for line in str(caught.value).splitlines()] == [
        ['run.yml', 'val.val_freq'],
        ['run.yml', 'logger.print_freq'],
        ['--force_yml logger:keep_last=0', 'found 0, expected a whole number, at least 1'],
        ['common.yml', 'datasets.train.sources[0].match'],
        ['common.yml', 'train.total_itr'],
    ]


@pytest.mark.parametrize('file', SHIPPED, ids=lambda file: str(file.relative_to(REPO / 'options')))
def test_what_is_printed_says_the_same(folder, capsys, file):
    assert cli.basicsr(['train', '-opt', str(file), '--print-options']) == 0
    text = capsys.readouterr().out
    assert 'base:' not in text
    Path('printed.yml').write_text(text)
    assert read_yaml('printed.yml') == read_yaml(file)
    assert list(read_yaml('printed.yml'))[:2] == ['name', 'model_type']


def test_what_is_printed_can_be_trained(here, capsys):
    write_options(here, stage('pretrain'), 'common')
    Path('run.yml').write_text('base: common.yml\nname: mine\n')
    change = ['--force_yml', 'train:total_iter=1', 'val:suffix="1e-4"']
    assert cli.basicsr(['train', '-opt', 'run.yml', '--print-options', *change]) == 0
    Path('printed.yml').write_text(capsys.readouterr().out)
    printed, whole = (
        load_options(file, True, '.', force) for file, force in (('printed.yml', []), ('run.yml', change[1:]))
    )
    assert printed == whole
    assert (printed['name'], printed['train']['total_iter'], printed['val']['suffix']) == ('mine', 1, '1e-4')
    assert not Path('experiments/mine').exists()


def test_values_of_any_kind_are_printed_as_what_they_are(folder, capsys):
    odd = ['1e-4', '1', 'null', 'yes', '~', '2024-01-01', '日本', '#x', 'a: b', ' x', '=', '<<', '', 'x' * 300]
    values = [*odd, *map(float, ('1e-300', 'inf', '5e3')), 2**63, True, None, [[1], {}], {'a': []}, [odd]]
    Path('a.yml').write_text(yaml.safe_dump({'base': 'b.yml', 'x': dict(zip(map(str, range(99)), values))}))
    Path('b.yml').write_text('y: &a [1, {z: 2}]\nw: [*a, *a]\n1e-4x: 1')
    assert cli.basicsr(['test', '-opt', 'a.yml', '--print-options']) == 0
    Path('c.yml').write_text(capsys.readouterr().out)
    assert read_yaml('c.yml') == read_yaml('a.yml')


def test_printing_needs_no_pytorch(folder):
    write(a='base: b.yml\nname: a', b='scale: 2')
    code = 'import sys; from lorair_arch.cli import basicsr; basicsr(sys.argv[1:]); assert "torch" not in sys.modules'
    done = run(folder, 'train', '-opt', 'a.yml', 'b.yml', '--print-options', python=('-c', code))
    assert (done.returncode, done.stdout) == (0, '# a.yml\nname: a\nscale: 2\n# b.yml\nscale: 2\n'), done.stderr
    done = run(folder, 'train', '-opt', 'a.yml', '--print-options', '--force_yml', 'scale')
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == 'error: --force_yml scale: expected KEY:KEY=VALUE, such as train:total_iter=1000\n'


def test_the_copy_in_the_experiment_is_whole(folder):
    write(a='base: b.yml\nname: a  # mine', b='# theirs\nscale: 2', c='name: c  # a comment')
    Path('out').mkdir()
    for name in 'ac':
        copy_opt_file(f'{name}.yml', 'out')
    head, _, body = Path('out/a.yml').read_text().partition('\n\n')
    assert head.startswith('# GENERATE TIME: ') and body == 'name: a\nscale: 2\n'
    assert Path('out/c.yml').read_text().endswith('\n\nname: c  # a comment')
    assert read_yaml('out/a.yml') == read_yaml('a.yml')


def test_every_file_is_read_once(here, monkeypatch):
    write_options(here, stage('pretrain') | {'name': 'x'}, 'common')
    for name in ('one', 'two'):
        Path(f'{name}.yml').write_text(f'base: common.yml\nname: {name}\ntrain: {{total_iter: 1}}')
    reads = Counter()
    read = yaml_file._read_one
    monkeypatch.setattr(yaml_file, '_read_one', lambda file: reads.update([file]) or read(file))
    monkeypatch.setattr('lorair_arch.training.run_files._child', lambda command: reads.update([command[-1]]) or 0)
    assert cli.basicsr(['train', '-opt', 'one.yml', '--force_yml', 'val=~']) == 0
    assert reads == {'one.yml': 1, 'common.yml': 1}
    assert read_yaml('experiments/one/one.yml') == read_yaml('one.yml')
    for verb in ([], ['--dry-run']):
        reads.clear()
        assert cli.basicsr(['train', '-opt', 'one.yml', 'two.yml', *verb]) == 0
        children = {} if verb else {'one.yml': 1, 'two.yml': 1}  # processes of their own
        assert reads == Counter({'one.yml': 1, 'two.yml': 1, 'common.yml': 1}) + Counter(children)
    for verb in (['check'], ['show', '-o', 'x.png', '--samples', '1']):
        reads.clear()
        assert cli.lorair(['data', *verb, '-opt', 'one.yml']) in (0, 2)
        assert reads == {'one.yml': 1, 'common.yml': 1}


def test_force_leads_through_what_a_base_says(folder):
    write(a='base: b.yml', b='train: {lr: 1}')
    opt = read_yaml('a.yml')
    assert force(opt, 'train:lr=2') == 'train.lr'
    assert opt == {'train': {'lr': 2}} and read_yaml('b.yml') == {'train': {'lr': 1}}
