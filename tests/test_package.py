"""The package without its repository: configs, tools and the console command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

import mmsparsedit
from mmsparsedit import cli, mim
from mmsparsedit.apis import get_config, get_model, launch

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_holds_what_the_console_command_runs(tmp_path):
    build = [sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', str(tmp_path / 'lib')]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    inside = tmp_path / 'lib' / 'mmsparsedit' / '.mim'
    for folder, kinds in (('configs', ('.py', '.yml', '.md')), ('tools', ('.py', '.sh'))):
        wanted = {p.relative_to(ROOT) for p in (ROOT / folder).rglob('*') if p.suffix in kinds}
        found = {p.relative_to(inside) for p in (inside / folder).rglob('*') if p.is_file()}
        assert found == wanted
    assert (inside / 'model-index.yml').is_file()
    # elsewhere, nothing of the repository on the path
    done = subprocess.run(
        [sys.executable, '-m', 'mmsparsedit', 'flops', 'sparsedit/xl_256', '--help'],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': str(tmp_path / 'lib')},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith('usage: mmsparsedit flops'), done.stderr


@pytest.mark.parametrize('arguments', [['--help'], ['train', '--help'], ['sample', '--help']])
def test_help_waits_for_no_library(arguments):
    code = (
        'import sys\n'
        f'sys.argv = ["mmsparsedit", *{arguments!r}]\n'
        'from mmsparsedit.cli import main\n'
        'try:\n'
        '    main()\n'
        'finally:\n'
        '    assert not {"torch", "mmengine", "numpy"} & set(sys.modules)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: mmsparsedit')


def test_every_command_has_its_tool():
    missing = [name for name, tool, _ in cli.COMMANDS
               if tool and not (ROOT / 'tools' / tool).is_file()]  # fmt: skip
    assert not missing


def test_a_reader_that_stops_reading_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, '-m', 'mmsparsedit', 'configs'], cwd=ROOT,
                          stdout=writing, stderr=subprocess.PIPE, text=True)  # fmt: skip
    os.close(writing)
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['trian'], "no command 'trian': use one of new"),
        (['print-config', 'sparsedit/digitz'], 'did you mean sparsedit/digits.py'),
    ],
)
def test_what_is_not_there_is_named(arguments, text, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['mmsparsedit', *arguments])
    monkeypatch.setitem(sys.modules, '__main__', sys.modules['__main__'])  # the tool's, meanwhile
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2 and text in capsys.readouterr().err


def test_a_tool_that_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['mmsparsedit', 'train'])
    monkeypatch.setattr(cli, 'tool_path', lambda name: mim.tool_path(f'no/{name}'))
    with pytest.raises(SystemExit):
        cli.main()
    assert 'this version of mmsparsedit has no tools/no/train.py' in capsys.readouterr().err


def test_configs_by_name():
    path = ROOT / 'configs/sparsedit/digits.py'
    for name in (
        'sparsedit/digits',
        'configs/sparsedit/digits.py',
        'mmsparsedit::sparsedit/digits',
    ):
        assert mmsparsedit.config_path(name) == str(path)
    assert get_config('sparsedit/digits').model.network.type == 'SparseDiT'
    with pytest.raises(FileNotFoundError, match='the package has no config'):
        mmsparsedit.config_path('../setup.py')


@pytest.mark.parametrize(
    'base', ["'mmsparsedit::sparsedit/digits.py'",
             "__import__('mmsparsedit').config_path('sparsedit/digits.py')"],
)  # fmt: skip
def test_a_project_elsewhere_inherits(base, tmp_path):
    if '::' in base:
        pytest.importorskip('pkg_resources', reason='MMEngine finds packages by it')
    (tmp_path / 'own.py').write_text(f'_base_ = {base}\nmodel = dict(cfg_scale=2.0)\n')
    config = launch.load_config(str(tmp_path / 'own.py'))
    wanted = get_config('sparsedit/digits').to_dict()
    wanted['model']['cfg_scale'] = 2.0
    found = config.to_dict()
    assert found.pop('work_dir') == 'work_dirs/own' and wanted.pop('work_dir')
    assert found == wanted


def test_hub_of_mmengine():
    pytest.importorskip('pkg_resources', reason='MMEngine finds packages by it')
    from mmengine import hub

    config = hub.get_config('mmsparsedit::sparsedit/digits.py')
    assert isinstance(config, Config) and config.model.prune.token_grid == (8, 8)
    kind = type(hub.get_model('mmsparsedit::sparsedit/digits.py'))
    assert kind is type(get_model('sparsedit/digits'))
