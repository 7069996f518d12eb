"""README and docs: every block of code runs, or says by a mark why it cannot (``documents.py``)."""

import contextlib
import io
import re
import runpy
import sys

import pytest

from documents import CANNOT_RUN, OTHERS, Sandbox, blocks, tool_of
from runs import ROOT

SHELL = [pytest.param(b, id=b.name) for b in blocks() if b.language == 'bash' and b.runs]
PYTHON = [pytest.param(b, id=b.name) for b in blocks() if b.language == 'python']
MOST_THAT_CANNOT_RUN = 35


@pytest.fixture(scope='module')
def sandbox(tmp_path_factory):
    return Sandbox(tmp_path_factory.mktemp('documents'))


@pytest.mark.slow(2)
@pytest.mark.parametrize('block', SHELL)
def test_commands_run(block, sandbox):
    for env, command in block.commands:
        if command[0] not in OTHERS:
            sandbox.run(command, env)


@pytest.mark.parametrize('block', PYTHON)
def test_python_runs(block, sandbox, monkeypatch):
    code = compile(block.code, block.name, 'exec')
    if not block.runs:
        return
    given = block.mark.removeprefix('given') if (block.mark or '').startswith('given') else ''
    for path in re.findall(r'work_dirs/\w+/iter_\d+\.pth', block.code):
        sandbox.provide(path, 'python', [])
    if 'register_cost' in block.code:  # what it changes lasts
        sandbox.call(['python', '-c', block.code], {})
        return
    monkeypatch.chdir(sandbox.folder)
    names: dict = {}
    exec(given, names)
    exec(code, names)
    if 'out' in names:
        assert names['out'].isfinite().all()
    if 'images' in names:
        assert len(names['images']) == 4 and names['images'][0].mode in ('L', 'RGB')


def test_a_network_of_the_documents_is_a_network():
    import torch

    (block,) = (b.values[0] for b in PYTHON if 'class SparseMine' in b.values[0].code)
    names: dict = {}
    exec(block.mark.removeprefix('given'), names)
    exec(block.code, names)
    net = names['SparseMine'](input_size=8, hidden_size=16, num_heads=2, num_sdtm=1, num_top=1)
    out = net(torch.randn(2, 4, 8, 8), torch.tensor([1.0, 9.0]), torch.tensor([3, 4]), (2, 2))
    assert out.shape == (2, 8, 8, 8) and net.depth == 2 + 6 + 1


def test_few_blocks_cannot_run():
    marks = [block.mark for block in blocks() if block.mark in CANNOT_RUN]
    assert len(marks) <= MOST_THAT_CANNOT_RUN, 'make the new one run, or raise the bound'
    unknown = {
        block.name: block.mark
        for block in blocks()
        if block.mark and re.match(r'(needs|takes) ', block.mark) and block.runs
    }
    assert not unknown, f'a mark is one of {CANNOT_RUN}'


COMMANDS = [
    (block.name, *found)
    for block in blocks()
    for _, command in block.commands
    if (found := tool_of(command))
]


def help_of(tool):
    out = io.StringIO()
    arguments = sys.argv
    sys.argv = [str(ROOT / tool), '--help']
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            runpy.run_path(sys.argv[0], run_name='__main__')
    finally:
        sys.argv = arguments
    return out.getvalue()


@pytest.mark.parametrize('tool', sorted({tool for _, tool, _ in COMMANDS}))
def test_commands_name_what_exists(tool):
    script = dict(dist_train='train', dist_test='test', slurm_train='train').get(
        tool.removeprefix('tools/').removesuffix('.sh')
    )
    assert (ROOT / tool).is_file()
    known = set(re.findall(r'--[a-z][\w-]*', help_of(f'tools/{script}.py' if script else tool)))
    for place, named, arguments in COMMANDS:
        if named != tool:
            continue
        given = {word.partition('=')[0] for word in arguments if word.startswith('--')}
        assert given <= known, f'{place}: {tool} has no {sorted(given - known)}'
        for config in (word for word in arguments if re.fullmatch(r'configs/[\w/]+\.py', word)):
            assert (ROOT / config).is_file(), f'{place}: {config}'


def test_extras_of_the_documents_exist():
    extras = set(
        re.findall(r"^        '(\w+)': |^    '(\w+)': \[", (ROOT / 'setup.py').read_text(), re.M)
    )
    known = {name for pair in extras for name in pair if name}
    for block in blocks():
        for _, command in block.commands:
            if command[0] == 'pip' and (asked := re.search(r'\[([\w,]+)\]$', command[-1])):
                assert set(asked[1].split(',')) <= known, block.name


def test_digits_of_the_readme_are_those_of_their_page():
    rows = [
        [line for line in page.read_text(encoding='utf-8').splitlines() if '_ddim25`' in line]
        for page in (ROOT / 'README.md', ROOT / 'docs/digits.md')
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 3
