"""What the site adds to the documents: lists, links to files of the repository, the zoo."""

import importlib.util

import pytest

from mmsparsedit.apis.metafiles import read_index

from runs import ROOT

pytest.importorskip('mkdocs')


@pytest.fixture(scope='module')
def hooks():
    spec = importlib.util.spec_from_file_location('site_hooks', ROOT / 'docs/site/hooks.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_text_under_an_item_belongs_to_it_on_the_site(hooks):
    text = '1. a\n\n   ```\n   * b\n   ```\n\n2. c\n   d\n\n* e\n  * f\n\n```\n* g\n  h\n```'
    expected = (
        '1. a\n\n    ```\n    * b\n    ```\n\n2. c\n    d\n\n* e\n    * f\n\n```\n* g\n  h\n```'
    )
    assert '\n'.join(hooks._four_spaces(text.split('\n'))) == expected


def test_files_outside_the_documents_have_pages(hooks):
    page = ROOT / 'docs/data.md'
    config = hooks._in_repository(page, '../configs/sparsedit/xl_256.py')
    assert hooks._uri(config) == 'repo/configs/sparsedit/xl_256.py.md'
    assert hooks._path(hooks._uri(config)) == config
    assert hooks._uri(hooks._in_repository(page, '../README.md')) == 'index.md'
    assert hooks._uri(hooks._in_repository(page, 'images/digits.png')) == 'images/digits.png'
    assert hooks._in_repository(page, '../configs/none.py') is None
    assert hooks._in_repository(page, '../../../etc/passwd') is None


def test_pages_that_are_not_there_are_left_out_of_the_navigation(hooks):
    nav = ['index.md', {'a': [{'b': 'none.md'}]}, {'c': ['data.md', {'d': 'repo/CHANGELOG.md'}]}]
    expected = ['index.md', {'c': ['data.md', {'d': 'repo/CHANGELOG.md'}]}]
    assert hooks._present(nav, ROOT / 'docs') == expected


def test_the_zoo_has_every_config(hooks):
    tables = hooks._zoo_tables()
    for entry in read_index(ROOT / 'model-index.yml'):
        assert tables.count(f'[`{entry.config.stem}`](../configs/') >= 2  # its cost and its recipe
