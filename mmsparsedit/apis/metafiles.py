"""Metafiles of config folders: how each config is trained, what it costs, what the paper prints.

A folder's ``metafile.yml`` stands beside its configs and is found from them, wherever both are
installed; ``model-index.yml`` lists all of them. Neither torch nor a model is needed to read them.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .documents import markdown_table, marked

METAFILE = 'metafile.yml'


@dataclass(frozen=True)
class PaperRow:
    """What the paper prints for a config; none of it was measured here.

    Attributes:
        gmacs: its FLOPs, which are multiply-adds; whole where it prints no decimals.
        grid: the one grid at which it counts them, where it counts at one.
        counted: what its way of counting gives for this network at that grid, in multiply-adds.
        reproduced: False where no way of counting gives ``gmacs``.
        samples_per_second: on one A100.
        results: task, dataset and metrics.
    """

    table: int
    row: str
    gmacs: float | None = None
    grid: tuple[int, ...] | None = None
    counted: int | None = None
    reproduced: bool = True
    samples_per_second: float | None = None
    results: tuple[dict, ...] = ()

    @property
    def printed(self) -> str:
        """Its GMACs with the decimals that it prints."""
        return f'{self.gmacs}' if isinstance(self.gmacs, int) else f'{self.gmacs:.2f}'

    def cost(self) -> str:
        """Its figure of cost and how it is to be read."""
        if self.gmacs is None:
            return '–'
        grid = '' if self.grid is None else f' at {format_grid(self.grid)}'
        return f'{self.printed}{grid}' + ('' if self.reproduced else ', not reproduced')


@dataclass(frozen=True)
class Entry:
    """A config of a metafile.

    Attributes:
        config: the file, beside the metafile.
        macs: of one network call on one sample, mean over uniform t.
        parameters: tables and merges included.
        grids: of the middle, from clean to noisy; none of a dense model.
    """

    name: str
    collection: str
    config: Path
    recipe: str
    command: str
    macs: int
    parameters: int
    grids: tuple[tuple[int, ...], ...] = ()
    paper: PaperRow | None = None


def read_index(path: str | Path) -> list[Entry]:
    """All entries of the metafiles that a ``model-index.yml`` imports."""
    path = Path(path)
    imported = _load(path)['Import']
    return [entry for name in imported for entry in read_metafile(path.parent / name)]


def read_metafile(path: str | Path) -> list[Entry]:
    """The entries of a metafile in their order.

    Raises:
        ValueError: a key is missing or unknown.
    """
    path = Path(path)
    entries = []
    for model in _load(path)['Models']:
        try:
            entries.append(_entry(dict(model), path.parent))
        except (KeyError, TypeError) as error:
            name = model.get('Name', 'an entry without Name')
            raise ValueError(f'{path}: {name}: {type(error).__name__}: {error}') from error
    return entries


def entry_of(config: str | Path) -> Entry | None:
    """The entry of a config in its folder's metafile; None where there is none."""
    metafile = Path(config).parent / METAFILE
    if not metafile.is_file():
        return None
    found = [entry for entry in read_metafile(metafile) if entry.config.name == Path(config).name]
    return found[0] if found else None


def entries_of(paths: Sequence[str | Path]) -> list[Entry]:
    """The entries of configs, and all entries of metafiles, in the order given.

    Raises:
        ValueError: a config that no metafile has.
    """
    entries: list[Entry] = []
    for path in map(Path, paths):
        if path.name == METAFILE:
            entries += read_metafile(path)
        elif (entry := entry_of(path)) is None:
            raise ValueError(f'{path} is in no {path.parent / METAFILE}: add an entry there.')
        else:
            entries.append(entry)
    return entries


def linked_configs(document: str | Path, mark: str) -> list[Path]:
    """The configs that the rows of a marked table of a document link, in their order."""
    links = re.findall(r'^\| \[.*?\]\(([^)]+\.py)\)', marked(document, mark), flags=re.MULTILINE)
    return [Path(document).parent / link for link in links]


def model_table(entries: Sequence[Entry], folder: str | Path = '.') -> list[str]:
    """Markdown: the cost of each config beside the paper's figures; links are from ``folder``."""
    header = ['config', 'grids of the middle', 'GMACs, mean over t', 'parameters, M']
    rows = []
    for entry in entries:
        grids = ', '.join(map(format_grid, entry.grids)) or 'dense'
        paper = entry.paper
        rows.append(
            [
                _link(entry, folder), grids, format_gmacs(entry.macs / 1e9),
                f'{entry.parameters / 1e6:.2f}',
                *(('–', '–', '–', '–') if paper is None else
                  (str(paper.table), paper.cost(), _counted(paper), _quality(paper))),
            ]
        )  # fmt: skip
    header += ["paper's table", 'its GMACs', 'counted its way', 'its FID or FVD']
    return markdown_table([header, *rows])


def recipe_table(entries: Sequence[Entry], folder: str | Path = '.') -> list[str]:
    """Markdown: how each config is trained and started; links are from ``folder``."""
    rows = [[_link(entry, folder), entry.recipe, f'`{entry.command}`'] for entry in entries]
    return markdown_table([['config', 'recipe', 'command'], *rows], right=())


def describe_paper(entry: Entry | None) -> str:
    """The paper's cost of a config, in a line of the terminal."""
    paper = None if entry is None else entry.paper
    if paper is None:
        return 'the paper has no such row'
    place = f'Table {paper.table}, {paper.row}'
    if paper.gmacs is None:
        return f'the paper gives no cost for its row ({place})'
    line = f'the paper: {paper.printed} G ({place}; its FLOPs are multiply-adds)'
    if paper.grid is not None:
        line += f', at one grid, {format_grid(paper.grid, "x")}'
    if paper.counted is not None:
        line += f'; counted its way {paper.counted / 1e9:.3f}'
    return line if paper.reproduced else f'{line}; not reproduced'


def format_grid(grid: Sequence[int], times: str = '×') -> str:
    return times.join(map(str, grid))


def format_gmacs(gmacs: float) -> str:
    return f'{gmacs:.2f}' if gmacs >= 1 else f'{gmacs:.4f}'


def _link(entry: Entry, folder: str | Path) -> str:
    return f'[`{entry.config.stem}`]({Path(os.path.relpath(entry.config, folder)).as_posix()})'


def _counted(paper: PaperRow) -> str:
    return '–' if paper.counted is None else format_gmacs(paper.counted / 1e9)


def _quality(paper: PaperRow) -> str:
    metrics = {name: v for result in paper.results for name, v in result['Metrics'].items()}
    value = metrics.get('FID', metrics.get('FVD'))
    if value is None:
        return '–'
    return 'NaN' if math.isnan(value) else f'{value:.2f}'


def _load(path: Path) -> dict:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is no YAML file: {error}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path}: got {type(content).__name__}, expected a mapping.')
    return content


def _entry(model: dict, folder: Path) -> Entry:
    metadata, paper = dict(model.pop('Metadata')), model.pop('Paper', None)
    entry = Entry(
        name=model.pop('Name'),
        collection=model.pop('In Collection'),
        config=folder / Path(model.pop('Config')).name,
        recipe=model.pop('Recipe'),
        command=model.pop('Command'),
        macs=metadata.pop('FLOPs'),
        parameters=metadata.pop('Parameters'),
        grids=tuple(map(tuple, metadata.pop('Grids', ()))),
        paper=None if paper is None else _paper_row(dict(paper)),
    )
    if model or metadata:
        raise TypeError(f'unknown keys {sorted([*model, *metadata])}')
    return entry


def _paper_row(paper: dict) -> PaperRow:
    grid = paper.pop('Grid', None)
    row = PaperRow(
        table=paper.pop('Table'),
        row=paper.pop('Row'),
        gmacs=paper.pop('GMACs', None),
        grid=None if grid is None else tuple(grid),
        counted=paper.pop('Counted', None),
        reproduced=paper.pop('Reproduced', True),
        samples_per_second=paper.pop('Samples Per Second', None),
        results=tuple(paper.pop('Results', ())),
    )
    if paper:
        raise TypeError(f'unknown keys {sorted(paper)} of Paper')
    return row
