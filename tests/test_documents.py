"""README and docs: python blocks run, commands name tools, options and configs that exist.

An HTML comment above a block, which no reader sees, says what cannot run here: ``<!-- excerpt -->``
uses names of the text around it or takes long, and is only compiled; ``<!-- on meta -->`` needs a
download and a large network, and runs on the meta device without the weights; ``<!-- after a
training -->`` needs its checkpoint, and runs in test_readme.py.
"""

import contextlib
import io
import re
import runpy
import sys
import textwrap

import pytest
import torch

from runs import ROOT

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
BLOCK = re.compile(r'(?:<!-- ([\w ]+) -->\n+)?^ *```(\w+)\n(.*?)^ *```', re.DOTALL | re.MULTILINE)
MOST_EXCERPTS = 11


def blocks(language):
    for page in PAGES:
        text = page.read_text(encoding='utf-8')
        for found in BLOCK.finditer(text):
            if found[2] == language:
                line = text[: found.start(3)].count('\n') + 1
                yield pytest.param(found[1], textwrap.dedent(found[3]), id=f'{page.name}:{line}')


PYTHON = list(blocks('python'))


@pytest.mark.parametrize('mark,code', PYTHON)
def test_python_runs(mark, code, monkeypatch):
    compiled = compile(code, 'document', 'exec')
    if mark in ('excerpt', 'after a training'):
        return
    if mark == 'on meta':
        monkeypatch.setattr('mmsparsedit.models.load_pretrained', lambda net, path: net.to('meta'))
    with torch.device('meta') if mark == 'on meta' else contextlib.nullcontext():
        exec(compiled, {})


def test_few_blocks_are_only_compiled():
    marks = [parameters.values[0] for parameters in PYTHON]
    assert marks.count('excerpt') <= MOST_EXCERPTS, 'make the new one run, or raise the bound'


def commands():
    """Lines of shell that start a tool of this repository, continued lines joined."""
    for parameters in blocks('bash'):
        text = re.sub(r'\\\n\s*', ' ', parameters.values[1])
        for line in text.splitlines():
            line = line.split(' #')[0]
            if found := re.search(r'python (tools/\S+\.py)(.*)', line):
                yield parameters.id, found[1], found[2]


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


@pytest.mark.parametrize('tool', sorted({tool for _, tool, _ in commands()}))
def test_commands_name_what_exists(tool):
    known = set(re.findall(r'--[a-z][\w-]*', help_of(tool)))
    for place, named, rest in commands():
        if named != tool:
            continue
        given = set(re.findall(r'(?<=\s)--[a-z][\w-]*', rest))
        assert given <= known, f'{place}: {tool} has no {sorted(given - known)}'
        for config in re.findall(r'configs/[\w/]+\.py', rest):
            assert (ROOT / config).is_file(), f'{place}: {config}'


def test_digits_of_the_readme_are_those_of_their_page():
    rows = [
        [line for line in page.read_text(encoding='utf-8').splitlines() if '_ddim25`' in line]
        for page in (ROOT / 'README.md', ROOT / 'docs/digits.md')
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 3
