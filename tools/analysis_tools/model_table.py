"""A table of configs and their cost, beside the paper's figures, for a document.

python tools/analysis_tools/model_table.py README.md models CONFIG [CONFIG ...]
"""

import argparse
import os
import re
from pathlib import Path

from mmsparsedit.apis.launch import load_config, run_tool

HEADER = (
    '| config | grids of the middle | GMACs, mean of stages | as the paper counts '
    '| paper | its FID |\n'
    '|---|---|---|---|---|---|'
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('document', help='Markdown file')
    parser.add_argument(
        'mark', help='the table goes between <!-- MARK:begin --> and <!-- MARK:end -->'
    )
    parser.add_argument('configs', nargs='+')
    parser.add_argument('--traceback', action='store_true')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.cost import cost_report, paper_figure
    from mmsparsedit.apis.documents import replace_marked

    init_default_scope('mmsparsedit')
    lines = [HEADER]
    for path in args.configs:
        report = cost_report(load_config(path).model)
        paper = paper_figure(path)
        link = os.path.relpath(path, Path(args.document).parent)
        lines.append(
            f'| [`{Path(path).stem}`]({link}) | {grids(report)} | {report["mean_t"]["gmacs"]:.2f} '
            f'| {report["mean_t"]["as_paper"]:.2f} | {"–" if paper is None else f"{paper:g}"} '
            f'| {paper_fid(path)} |'
        )
    print('\n'.join(lines))
    replace_marked(args.document, args.mark, lines)


def grids(report: dict) -> str:
    """Grids of the stages from clean to noisy."""
    found = [row['grid'] for row in report['stages']]
    return 'dense' if found == [None] else ', '.join('×'.join(map(str, grid)) for grid in found)


def paper_fid(path: str) -> str:
    """The FID that the first lines of a config quote."""
    match = re.search(r'FID (NaN|[\d.]+\d)', Path(path).read_text())
    return match[1] if match else '–'


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
