"""A table of configs, their cost and the paper's figures, from the metafiles of their folders.

    python tools/analysis_tools/model_table.py configs/sparsedit/metafile.yml
    python tools/analysis_tools/model_table.py --document docs/models.md models

Without configs the rows of the document's table are made again.
"""

import argparse
from pathlib import Path

from mmsparsedit.apis.documents import parse_table, show_table
from mmsparsedit.apis.launch import ConfigError, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='*', help='configs, or metafiles for all of their configs')
    parser.add_argument(
        '--recipes', action='store_true', help='how each is trained, instead of what it costs'
    )
    parse_table(parser)
    parser.add_argument('--traceback', action='store_true', help='show where an error arose')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.apis.metafiles import entries_of, linked_configs, model_table, recipe_table

    if not args.configs and not args.document:
        raise ConfigError('name configs, or a document whose table is to be made again.')
    entries = entries_of(args.configs or linked_configs(*args.document))
    folder = Path(args.document[0]).parent if args.document else '.'
    table = recipe_table if args.recipes else model_table
    figures = [dict(config=entry.name, macs=entry.macs, grids=entry.grids) for entry in entries]
    show_table(table(entries, folder), figures, args)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
