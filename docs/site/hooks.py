"""What the site adds to MkDocs: files outside ``docs/`` that its pages link, and the zoo's tables.

A link such as ``../configs/sparsedit/xl_256.py`` works in a checkout and, through a page made here,
on the site. A linked file that does not exist stays a dead link, which ``--strict`` refuses.
"""

import os
import posixpath
import re
from collections import defaultdict
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r'(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))')
ROOT_PAGES = {'README.md': 'index.md'}
LANGUAGES = {'.py': 'python', '.yml': 'yaml', '.json': 'json', '.sh': 'bash', '.toml': 'toml'}


def on_config(config):
    """Leave out pages of the navigation that are not there yet."""
    config['nav'] = _present(config['nav'], Path(config['docs_dir']))
    return config


def _present(items, docs: Path):
    kept = []
    for item in items:
        name, value = next(iter(item.items())) if isinstance(item, dict) else (None, item)
        if isinstance(value, list):
            value = _present(value, docs)
        elif not (
            ROOT / value.removeprefix('repo/') if value.startswith('repo/') else docs / value
        ).is_file():
            continue
        if value:
            kept.append(value if name is None else {name: value})
    return kept


def on_files(files, config):
    """Add a page for every file of the repository that a page links, and for those they link."""
    waiting = [(file.src_uri, Path(file.abs_src_path)) for file in files.documentation_pages()]
    waiting += [('repo/CONTRIBUTING.md', ROOT / 'CONTRIBUTING.md')]
    waiting += [('repo/CHANGELOG.md', ROOT / 'CHANGELOG.md')]
    waiting += [
        (f'repo/{p.relative_to(ROOT).as_posix()}', p) for p in ROOT.glob('configs/*/README.md')
    ]
    seen = {uri for uri, _ in waiting}
    for uri, path in waiting:  # grows
        text = path.read_text(encoding='utf-8')
        if uri.startswith('repo/'):
            files.append(File.generated(config, uri, content=_as_page(path, text)))
        if path.suffix != '.md':
            continue
        for target, _ in LINK.findall(text):
            found = _in_repository(path, target)
            if found and (place := _uri(found)).startswith('repo/') and place not in seen:
                seen.add(place)
                waiting.append((place, found))
    for entry in _zoo():
        place = _uri(entry.config)
        if place not in seen:
            seen.add(place)
            content = _as_page(entry.config, entry.config.read_text(encoding='utf-8'))
            files.append(File.generated(config, place, content=content))
    return files


def on_nav(nav, config, files):
    """Put pages of ``docs/`` that the navigation does not name at its end, so that none is lost."""
    from mkdocs.structure.nav import Section
    from mkdocs.structure.pages import Page

    named = {page.file.src_uri for page in nav.pages}
    lost = [
        file.page or Page(None, file, config)
        for file in files.documentation_pages()
        if file.src_uri not in named and not file.src_uri.startswith('repo/')
    ]
    if lost:
        nav.items.append(Section('More', lost))
        nav.pages.extend(lost)
    return nav


def on_page_markdown(markdown, page, config, files):
    """Fill the zoo in, and turn links to files of the repository to their pages."""
    uri = page.file.src_uri
    path = _path(uri)
    if uri == 'zoo.md':
        markdown = markdown.replace('<!-- zoo -->', _zoo_tables())

    def turned(match: re.Match) -> str:
        found = _in_repository(path, match[1])
        if found is None:
            return match[0]
        return posixpath.relpath(_uri(found), posixpath.dirname(uri) or '.') + (match[2] or '')

    return '\n'.join(_four_spaces(LINK.sub(turned, markdown).split('\n')))


def _four_spaces(lines: list[str]) -> list[str]:
    """What belongs to an item of a list, indented by four spaces as Python-Markdown wants it.

    Elsewhere it stands under the item's text, two spaces to the right for a bullet.
    """
    out: list[str] = []
    fenced = False
    while lines:
        line, *lines = lines
        fenced ^= line.startswith('```')
        marker = None if fenced else re.match(r'(\d+\.|[*-]) +', line)
        if marker is None:
            out.append(line)
            continue
        width = marker.end()
        item = [line[width:]]
        while lines and (not lines[0].strip() or lines[0].startswith(' ' * width)):
            item.append(lines[0][width:])
            lines = lines[1:]
        blank = 0
        while len(item) > 1 and not item[-1].strip():
            item.pop()
            blank += 1
        first, *rest = _four_spaces(item)
        out += [marker[0] + first, *(f'    {text}' if text else '' for text in rest)]
        out += [''] * blank
    return out


def _path(uri: str) -> Path:
    """The file of the repository that a page was made of."""
    inside = uri.removeprefix('repo/')
    if inside == uri:
        return ROOT / 'docs' / uri
    return ROOT / inside if (ROOT / inside).is_file() else ROOT / inside.removesuffix('.md')


def _uri(path: Path) -> str:
    """The page of a file of the repository."""
    place = path.relative_to(ROOT).as_posix()
    if place in ROOT_PAGES:
        return ROOT_PAGES[place]
    if place.startswith('docs/'):
        return place.removeprefix('docs/')
    return f'repo/{place}' if path.suffix == '.md' else f'repo/{place}.md'


def _in_repository(page: Path, target: str) -> Path | None:
    """The file that a link of a page names, None where there is none."""
    found = Path(os.path.normpath(page.parent / target))
    if found.is_dir():
        found = found / 'README.md'
    return found if found.is_file() and found.is_relative_to(ROOT) else None


def _as_page(path: Path, text: str) -> str:
    if path.suffix == '.md':
        return text
    place = path.relative_to(ROOT).as_posix()
    language = LANGUAGES.get(path.suffix, '')
    return f'# {path.name}\n\n`{place}`\n\n```{language}\n{text.rstrip()}\n```\n'


def _zoo():
    from mmsparsedit.apis.metafiles import read_index

    return read_index(ROOT / 'model-index.yml')


def _zoo_tables() -> str:
    from mmsparsedit.apis.metafiles import model_table, recipe_table

    collections = defaultdict(list)
    for entry in _zoo():
        collections[entry.collection].append(entry)
    lines = []
    for name, entries in collections.items():
        lines += [f'## {name}', '', *model_table(entries, ROOT / 'docs'), '']
        lines += [*recipe_table(entries, ROOT / 'docs'), '']
    return '\n'.join(lines)
