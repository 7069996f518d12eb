"""Metafiles: what is read, what the tables say, what is refused."""

import pytest

from mmsparsedit.apis.documents import marked
from mmsparsedit.apis.metafiles import (
    describe_paper,
    entries_of,
    entry_of,
    linked_configs,
    model_table,
    read_index,
    read_metafile,
    recipe_table,
)

from runs import ROOT, run_tool

TABLES = [
    ('docs/models.md', 'models', model_table),
    ('docs/ablations.md', 'xl', model_table),
    *(
        (f'configs/{folder}/README.md', mark, table)
        for folder in sorted(
            path.parent.relative_to(ROOT / 'configs').as_posix()
            for path in ROOT.glob('configs/**/metafile.yml')
        )
        for mark, table in (('models', model_table), ('recipes', recipe_table))
    ),
]


@pytest.mark.parametrize(
    'document,mark,table', TABLES, ids=lambda value: getattr(value, '__name__', value)
)
def test_tables_of_the_documents_are_those_of_the_metafiles(document, mark, table):
    path = ROOT / document
    entries = entries_of(linked_configs(path, mark))
    assert entries, 'the table has rows'
    assert marked(path, mark).splitlines() == table(entries, path.parent)
    if document.startswith('configs'):
        assert entries == read_metafile(path.parent / 'metafile.yml'), 'a row for each config'


@pytest.mark.parametrize(
    'config,line',
    [
        ('xl_512', 'the paper: 235 G (Table 1, Sparse-XL, 512, r 0.90-0.96; its FLOPs are '
         'multiply-adds), at one grid, 8x8; counted its way 234.893'),
        ('ablations/xl_256_sdtm2', 'the paper: 67.00 G (Table 4, 2 SDTMs; its FLOPs are '
         'multiply-adds), at one grid, 8x8; counted its way 67.005'),
        ('ablations/xl_256_sdtm1', 'the paper: 68.74 G (Table 4, 1 SDTM; its FLOPs are '
         'multiply-adds), at one grid, 8x8; counted its way 69.685; not reproduced'),
        ('xl_256_ddim25', 'the paper gives no cost for its row (Table 5, 25 DDIM steps, sparse)'),
        ('digits', 'the paper has no such row'),
        ('no_such_config', 'the paper has no such row'),
    ],
)  # fmt: skip
def test_the_papers_cost_in_a_line(config, line):
    assert describe_paper(entry_of(ROOT / f'configs/sparsedit/{config}.py')) == line


def test_a_folder_is_read_wherever_it_lies(tmp_path):
    """As of an installed package: neither the index nor the repository's root is needed."""
    text = (ROOT / 'configs/sparselatte/metafile.yml').read_text()
    (tmp_path / 'metafile.yml').write_text(text)
    entry = entry_of(tmp_path / 'ffs.py')
    assert entry.config == tmp_path / 'ffs.py' and entry.grids[0] == (8, 10, 10)
    assert entry.paper.results[0]['Metrics'] == {'FVD': 24.51}
    assert entry_of(tmp_path / 'elsewhere' / 'ffs.py') is None
    with pytest.raises(ValueError, match=r'other\.py is in no .*metafile\.yml: add an entry'):
        entries_of([tmp_path / 'other.py'])


def test_a_key_that_is_missing_or_unknown_is_named(tmp_path):
    path = tmp_path / 'metafile.yml'
    text = (ROOT / 'configs/sparselatte/metafile.yml').read_text()
    path.write_text(text.replace('    Recipe:', '    Recipy:', 1))
    with pytest.raises(ValueError, match="sparselatte/latte_ffs: KeyError: 'Recipe'"):
        read_metafile(path)
    path.write_text(text.replace('      Row:', '      Rate: 0.8\n      Row:', 1))
    with pytest.raises(ValueError, match=r"unknown keys \['Rate'\] of Paper"):
        read_metafile(path)


def test_the_index_has_every_folder_and_names_are_unique():
    entries = read_index(ROOT / 'model-index.yml')
    assert {entry.config.parent for entry in entries} == {
        path.parent for path in ROOT.glob('configs/**/metafile.yml')
    }
    assert len({entry.name for entry in entries}) == len(entries)


def test_the_tool_makes_a_documents_table_again(tmp_path):
    document = tmp_path / 'page.md'
    document.write_text('a\n<!-- t:begin -->\n<!-- t:end -->\nb\n')
    tool = ['tools/analysis_tools/model_table.py', '--document', document, 't']
    done = run_tool(*tool, ROOT / 'configs/sparsedit/b_256.py')
    assert done.returncode == 0, done.stderr
    made = document.read_text()
    assert (
        '| dense |' not in made and '| 14.14 | 131.69 | 1 | 14.34 at 8×8 | 14.34 | 8.23 |' in made
    )
    document.write_text(made.replace('14.14', 'old'))
    assert run_tool(*tool).returncode == 0
    assert document.read_text() == made
    nothing = run_tool(tool[0])
    assert nothing.returncode == 2 and 'name configs, or a document' in nothing.stderr
