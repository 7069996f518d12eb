"""Tables of figures: for the terminal, and in documents, where scripts put them between marks."""

from collections.abc import Sequence
from pathlib import Path


def replace_marked(path: str | Path, mark: str, lines: Sequence[str]) -> None:
    """Replace what stands between ``<!-- mark:begin -->`` and ``<!-- mark:end -->`` of a file.

    Raises:
        ValueError: the marks are not there.
    """
    begin, end = f'<!-- {mark}:begin -->', f'<!-- {mark}:end -->'
    before, found_begin, rest = Path(path).read_text(encoding='utf-8').partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f'{path} has no {begin} ... {end} to put a table between.')
    Path(path).write_text('\n'.join([before + begin, *lines, end + after]), encoding='utf-8')


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
