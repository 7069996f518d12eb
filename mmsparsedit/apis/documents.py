"""Tables of figures: for the terminal, and in documents, where scripts put them between marks."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mmsparsedit.utils.files import write_text

from .launch import output_file


def parse_table(parser: argparse.ArgumentParser) -> None:
    """Add the options of tools that make a table: nothing is written without them."""
    parser.add_argument(
        '--document',
        nargs=2,
        metavar=('FILE', 'MARK'),
        help='put the table between <!-- MARK:begin --> and <!-- MARK:end --> of FILE',
    )
    parser.add_argument('--json', type=output_file, help='write the figures to this file')


def show_table(lines: Sequence[str], figures, args: argparse.Namespace) -> None:
    """Print a table and write what ``parse_table``'s options ask for."""
    print('\n'.join(lines))
    if args.document:
        replace_marked(*args.document, lines)
    if args.json:
        write_text(args.json, json.dumps(figures, indent=2) + '\n')


def replace_marked(path: str | Path, mark: str, lines: Sequence[str]) -> None:
    """Replace what stands between ``<!-- mark:begin -->`` and ``<!-- mark:end -->`` of a file.

    Raises:
        ValueError: the marks are not there.
    """
    before, _, after = _split_at(path, mark)
    write_text(path, '\n'.join([before, *lines, after]))


def marked(path: str | Path, mark: str) -> str:
    """What stands between the marks of a file.

    Raises:
        ValueError: the marks are not there.
    """
    return _split_at(path, mark)[1].strip('\n')


def _split_at(path: str | Path, mark: str) -> tuple[str, str, str]:
    """Text up to the first mark, between the marks, and from the second on."""
    begin, end = f'<!-- {mark}:begin -->', f'<!-- {mark}:end -->'
    before, found_begin, rest = Path(path).read_text(encoding='utf-8').partition(begin)
    between, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f'{path} has no {begin} ... {end} to put a table between.')
    return before + begin, between, end + after


def markdown_table(table: Sequence[Sequence[str]], right: Sequence[int] | None = None) -> list[str]:
    """Lines of a table whose first row is its header.

    Args:
        right: columns that are flush right; by default all but the first.
    """
    columns = range(len(table[0]))
    flush_right = set(columns[1:] if right is None else right)
    rule = ['---:' if i in flush_right else '---' for i in columns]
    return ['| ' + ' | '.join(row) + ' |' for row in (table[0], rule, *table[1:])]


def align(table: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of equally wide columns, the first ``left`` flush left, the others flush right."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return [
        '  '.join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
