"""Who may import whom, and how quickly the package imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmsparsedit.apis import stack

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmsparsedit'
MATHEMATICS = {'torch', 'numpy', 'scipy', 'mmsparsedit'} | set(sys.stdlib_module_names)
OPTIONAL = {'decord', 'diffusers', 'transformers', 'torch_fidelity', 'av', 'fvcore', 'sklearn'}


def imports(path, top_level_only=False):
    """Absolute names that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


def files(*folders):
    return [p for folder in folders for p in (PACKAGE / folder).rglob('*.py')]


@pytest.mark.parametrize(
    'path',
    [*files('nn', 'prune', 'diffusion'), PACKAGE / 'evaluation' / 'statistics.py'],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_mathematics_knows_nothing_of_the_stack(path):
    found = {name.split('.')[0] for name in imports(path, top_level_only=True)}
    assert found <= MATHEMATICS, found - MATHEMATICS
    inner = {name for name in imports(path) if name.startswith('mmsparsedit.')}
    allowed = ('mmsparsedit.registry', 'mmsparsedit.nn', 'mmsparsedit.diffusion')
    assert all(name.startswith(allowed) for name in inner), inner


ROOMS = ('nn', 'prune', 'diffusion', 'utils')  # know nothing above them
ABOVE = {
    'visualization': {'utils', 'registry', 'version'},
    'models': {*ROOMS, 'registry', 'models'},
}


@pytest.mark.parametrize('path', files(*ABOVE), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_room_looks_up(path):
    room = path.relative_to(PACKAGE).parts[0]
    inner = {name.split('.')[1] for name in imports(path) if name.startswith('mmsparsedit.')}
    assert inner <= {*ABOVE[room], room}, inner - ABOVE[room]


MODELS = PACKAGE / 'models'
BASE_MODELS = sorted(
    p.parent.name for p in MODELS.glob('*/layouts.py') if p.parent.name != 'checkpoints'
)


@pytest.mark.parametrize('name', BASE_MODELS)
def test_a_base_model_knows_no_other(name):
    assert {'dit', 'latte', 'pixart'} <= set(BASE_MODELS)
    others = {f'mmsparsedit.models.{other}' for other in BASE_MODELS if other != name}
    for path in (MODELS / name).glob('*.py'):
        found = {'.'.join(imported.split('.')[:3]) for imported in imports(path)}
        assert not found & others, path
    # and nothing but the package's front knows it
    for path in PACKAGE.rglob('*.py'):
        if (MODELS / name) not in path.parents and path != MODELS / '__init__.py':
            found = {'.'.join(imported.split('.')[:3]) for imported in imports(path)}
            assert f'mmsparsedit.models.{name}' not in found, path


@pytest.mark.parametrize('path', files('.'), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_package_stands_alone(path):
    heads = {name.split('.')[0] for name in imports(path)}
    assert not heads & {'tools', 'configs', 'projects', 'tests'}
    at_import = {name.split('.')[0] for name in imports(path, top_level_only=True)}
    optional = OPTIONAL
    if path.parent == PACKAGE / 'diffusers':  # is what uses it, and is imported by nobody here
        optional = OPTIONAL - {'diffusers'}
    else:
        assert not any(name.startswith('mmsparsedit.diffusers') for name in imports(path))
    assert not at_import & optional, 'import it inside what uses it'


def test_import_loads_no_optional_library():
    """Nor does MMEngine's transformers, which it asks for Adafactor: it keeps that name."""
    script = (
        'import sys; from mmsparsedit.apis.stack import import_stack; import_stack();'
        'import mmengine.runner, mmengine.optim; stack = set(sys.modules);'  # loads its own
        'from mmengine.registry import OPTIMIZERS; from importlib.util import find_spec;'
        "assert ('Adafactor' in OPTIMIZERS) == (find_spec('transformers') is not None);"
        "assert not {'transformers', 'peft', 'torch._dynamo'} & stack;"
        'import mmsparsedit.apis, mmsparsedit.engine, mmsparsedit.datasets;'
        f'print(sorted({OPTIONAL!r} & (set(sys.modules) - stack)))'
    )
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr


def test_adafactor_is_built_by_its_name():
    transformers = pytest.importorskip('transformers')
    weight = torch.nn.Parameter(torch.ones(2))
    built = stack._adafactor([weight], lr=0.1, relative_step=False)
    assert isinstance(built, transformers.Adafactor)
    assert built.param_groups[0]['lr'] == 0.1 and built.param_groups[0]['params'][0] is weight


def test_help_of_the_tools_waits_for_no_network():
    """``--help`` of every tool, one after another: none loads models, Runner or their libraries."""
    tools = sorted(str(p) for p in (ROOT / 'tools').rglob('*.py'))
    script = (
        'import contextlib, io, runpy, sys\n'
        f'for tool in {tools!r}:\n'
        "    sys.argv = [tool, '--help']\n"
        '    try:\n'
        '        with contextlib.redirect_stdout(io.StringIO()):\n'
        "            runpy.run_path(tool, run_name='__main__')\n"
        '    except SystemExit as end:\n'
        '        assert not end.code, tool\n'
        "heavy = {'mmsparsedit.models', 'mmsparsedit.engine', 'mmengine.runner', 'torchvision'}\n"
        'print(sorted(heavy & set(sys.modules)))\n'
    )
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr
