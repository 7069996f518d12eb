"""Runs as one HTML page: ``python tools/analysis_tools/report.py WORK_DIR... --out report.html``.

Loss, metrics, sample grids, speed, schedule, cost, environment and config; several work dirs stand
side by side. The page needs no network and nothing that it shows is run.
"""

import argparse
from pathlib import Path

from mmsparsedit.apis.launch import output_file, run_tool


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='One self-contained HTML page of runs.')
    parser.add_argument('work_dirs', nargs='+', type=Path, help='of tools/train.py, at most 6')
    parser.add_argument('--out', type=output_file, default='report.html', help='page to write')
    parser.add_argument('--pictures', type=int, default=4, help='sample grids of each run')
    parser.add_argument('--traceback', action='store_true', help='show where an error arose')
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.apis.run_report import write_report

    write_report(args.work_dirs, args.out, args.pictures)
    print(f'report in {args.out}')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
