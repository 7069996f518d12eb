"""The README's table of models and their cost: ``model_table.py [--readme README.md]``."""

import argparse
from pathlib import Path

from mmsparsedit.apis.launch import load_config, run_tool

CONFIGS = (
    'dit_b_256',
    'b_256',
    'dit_xl_256',
    'xl_256_r44_61',
    'xl_256',
    'dit_xl_512',
    'xl_512_r61_86',
    'xl_512',
    'dit_xl_1024',
    'xl_1024',
)
HEADER = (
    '| config | grids of the middle | GMACs, mean of stages | as the paper counts | paper |\n'
    '|---|---|---|---|---|'
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--readme', help='put the table between the models marks of this file')
    parser.add_argument('--traceback', action='store_true')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.cost import cost_report, paper_figure
    from mmsparsedit.apis.documents import replace_marked

    init_default_scope('mmsparsedit')
    lines = [HEADER]
    for name in CONFIGS:
        path = f'configs/sparsedit/{name}.py'
        report = cost_report(load_config(path).model)
        paper = paper_figure(path)
        lines.append(
            f'| [`{name}`]({path}) | {grids(report)} | {report["mean_t"]["gmacs"]:.2f} '
            f'| {report["mean_t"]["as_paper"]:.2f} | {"–" if paper is None else f"{paper:g}"} |'
        )
    print('\n'.join(lines))
    if args.readme:
        replace_marked(Path(args.readme), 'models', lines)


def grids(report: dict) -> str:
    """Grids of the stages from clean to noisy."""
    found = [row['grid'] for row in report['stages']]
    return 'dense' if found == [None] else ', '.join('×'.join(map(str, grid)) for grid in found)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
