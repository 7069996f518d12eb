"""Figures in documents are put there by scripts, between two marks."""

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
