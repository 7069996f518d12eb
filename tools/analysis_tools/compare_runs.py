"""One table of several runs: ``python tools/analysis_tools/compare_runs.py WORK_DIR WORK_DIR ...``.

Reads config, checkpoint and ``metrics.json`` of each work dir of ``train.py`` or ``test.py``.
Several of one config are its seeds, unless ``--by-folder`` gives each a row of its own, for one
config tested with several options. Speed is measured here, the runs in turn: all see the same
machine.
"""

import argparse
from pathlib import Path

from mmsparsedit.apis.documents import parse_table, show_table
from mmsparsedit.apis.launch import output_file, run_tool
from mmsparsedit.utils.files import atomic_write


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Table (Markdown) of the metrics of runs, with sampling speed measured in turn.'
    )
    parser.add_argument('work_dirs', nargs='+', type=Path)
    parser.add_argument(
        '--keys',
        nargs='+',
        metavar='KEY[=HEADING]',
        help='metrics to show (default: all that the runs share)',
    )
    parser.add_argument(
        '--by-folder', action='store_true', help='a row per work dir, under its name'
    )
    parser.add_argument('--batch-size', type=int, default=50, help='samples of a timed call')
    parser.add_argument('--rounds', type=int, default=3, help='timed calls of each run; 0 for none')
    parser.add_argument('--device', default='cpu')
    parse_table(parser)
    parser.add_argument('--picture', type=output_file, help='PNG of the first samples of each run')
    parser.add_argument('--samples', type=int, default=12, help='of each run on the picture')
    parser.add_argument(
        '--neighbours',
        action='store_true',
        help='below the samples, the nearest training image of each (runs of RealImagesMetric)',
    )
    parser.add_argument(
        '--trust',
        action='store_true',
        help='run the configs of the work dirs as programs (a project of your own needs it); by '
        'default they are read as data and build registered classes only',
    )
    parser.add_argument('--traceback', action='store_true', help='show where an error arose')
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.apis.devices import check_device
    from mmsparsedit.apis.runs import (
        measure_speed,
        nearest_real,
        read_run,
        runs_picture,
        runs_table,
        sample_runs,
    )

    runs = [read_run(folder, args.by_folder, args.trust) for folder in args.work_dirs]
    check_device(args.device)
    if args.rounds:
        measure_speed(runs, args.batch_size, args.rounds, args.device)
    show_table(runs_table(runs, args.keys), [run.figures() for run in runs], args)
    if args.picture:
        samples = sample_runs(runs, args.samples, args.device)
        real = None
        if args.neighbours:
            real = [nearest_real(*pair) for pair in zip(runs, samples, strict=True)]
        sheet = runs_picture(runs, samples, real)
        with atomic_write(args.picture) as beside:
            sheet.save(beside, 'PNG', optimize=True)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
