"""Every way to be faster in one table: ``python tools/analysis_tools/compare_methods.py --help``.

    compare_methods.py --dense work_dirs/dit_digits --sparse work_dirs/digits \
        --json methods.json --keys digits/frechet --plot methods.png

Measures quality, cost and speed of the rows of ``configs/benchmarks/methods.yml``, trained models
with options of their configs. Each figure is written as soon as it is known; given again, the
command measures what is missing.
"""

import argparse
import json
import time
from pathlib import Path

from mmsparsedit.apis.launch import ConfigError, output_file, run_tool

BENCHMARKS = Path(__file__).resolve().parents[2] / 'configs' / 'benchmarks'
SPEEDS = (1.5, 2, 3, 5)


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--dense', nargs='+', type=Path, default=[], help='work dirs of trainings; several: seeds'
    )
    parser.add_argument('--sparse', nargs='+', type=Path, default=[], help='likewise')
    parser.add_argument('--json', required=True, type=output_file, help='figures, added to')
    parser.add_argument(
        '--table', default=str(BENCHMARKS / 'methods.yml'), help='YAML of rows, the first the base'
    )
    parser.add_argument('--only', nargs='+', help='rows of these titles, beside the first')
    parser.add_argument('--samples', type=int, default=500, help='of each measurement of quality')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='of sampling')
    parser.add_argument('--batch-size', type=int, default=50, help='of sampling for quality')
    parser.add_argument('--timed-batch', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=5, help='timed calls of each row')
    parser.add_argument('--device', default='cpu')
    parser.add_argument(
        '--measure', choices=('quality', 'speed', 'all', 'nothing'), default='all', help='now'
    )
    parser.add_argument(
        '--minutes', type=float, default=float('inf'), help='begin no measurement after them'
    )
    parser.add_argument(
        '--keys', nargs='+', required=True, metavar='KEY[=HEADING]',
        help='metrics of the table; the first is plotted, lower being better',
    )  # fmt: skip
    parser.add_argument(
        '--document',
        nargs=2,
        metavar=('FILE', 'MARK'),
        help='put the table between <!-- MARK:begin --> and <!-- MARK:end --> of FILE',
    )
    parser.add_argument('--plot', type=output_file, help='PNG: quality against time and MACs')
    parser.add_argument('--traceback', action='store_true', help='show where an error arose')
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.apis.devices import check_device
    from mmsparsedit.apis.documents import replace_marked
    from mmsparsedit.apis.method_comparison import (
        Comparison,
        Setting,
        best_at,
        comparison_table,
        read_rows,
        summary,
    )
    from mmsparsedit.apis.runs import read_run
    from mmsparsedit.utils.files import atomic_write, read_json

    check_device(args.device)
    rows = read_rows(args.table)
    if args.only:
        unknown = set(args.only) - {row.title for row in rows}
        if unknown:
            raise ConfigError(f'rows {sorted(unknown)} are not in {args.table}.')
        rows = [rows[0], *(row for row in rows[1:] if row.title in args.only)]
    runs = {
        name: [read_run(folder) for folder in getattr(args, name)] for name in ('dense', 'sparse')
    }
    setting = Setting(
        args.samples, tuple(args.seeds), args.batch_size, args.timed_batch, args.rounds, args.device
    )
    advice = 'Name another file.'
    found = read_json(args.json, advice=advice) if args.json.is_file() else {}
    end = time.monotonic() + 60 * args.minutes

    def save() -> None:
        with atomic_write(args.json, durable=False) as part:
            part.write_text(json.dumps(found, indent=1) + '\n')

    comparison = Comparison(rows, runs, setting, found, save, lambda: time.monotonic() > end)
    done = args.measure in ('speed', 'nothing') or comparison.measure_quality()
    done = (args.measure in ('quality', 'nothing') or comparison.measure_speed()) and done
    if not done:
        print('no time left, give the command again for what is missing')
    key, _, heading = args.keys[0].partition('=')
    measured = summary(found, key)
    if not measured:
        return
    lines = comparison_table(found, args.keys)
    print('\n'.join(lines))
    for speed, row in best_at(measured, SPEEDS).items():
        best = 'nothing' if row is None else f'{row["title"]}, {key} {row["quality"]:.4g}'
        print(f'at least {speed:g} times as fast: {best}')
    if args.document:
        replace_marked(*args.document, lines)
    if args.plot:
        from mmsparsedit.apis.method_plot import plot

        plot(measured, heading or key.split('/')[-1], args.plot)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
