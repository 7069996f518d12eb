"""One table of several runs: ``python tools/analysis_tools/compare_runs.py WORK_DIR WORK_DIR ...``.

Reads config, checkpoint and ``metrics.json`` of each work dir of ``train.py`` or ``test.py``.
Several of one config are its seeds, unless ``--by-folder`` gives each a row of its own, for one
config tested with several options. Speed is measured here, the runs in turn: all see the same
machine.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mmsparsedit.apis.launch import run_tool


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
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    parser.add_argument(
        '--document',
        nargs=2,
        metavar=('FILE', 'MARK'),
        help='put the table between <!-- MARK:begin --> and <!-- MARK:end --> of FILE',
    )
    parser.add_argument('--picture', type=Path, help='PNG of the first samples of each run')
    parser.add_argument('--samples', type=int, default=12, help='of each run on the picture')
    parser.add_argument('--traceback', action='store_true', help='show where an error arose')
    return parser.parse_args(argv)


def picture(runs, samples: list[list]):
    """The samples of each run, under or beside their requests; clips as rows of frames."""
    from mmsparsedit.visualization import contact_sheet, labelled_grid

    shown = [sample for found in samples for sample in found]
    requests = [str(sample.get('prompt', sample.get('label', ''))) for sample in shown]
    if 'video' in shown[0]:
        names = [run.name for run, found in zip(runs, samples, strict=True) for _ in found]
        captions = [f'{name} {asked}' for name, asked in zip(names, requests, strict=True)]
        videos = [sample.video for sample in shown]
        return contact_sheet(videos, captions, columns=len(runs), cell=48)
    images = [sample.image for sample in shown]
    return labelled_grid(images, requests, columns=min(4, len(samples[0])), cell=240)


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.apis.documents import replace_marked
    from mmsparsedit.apis.runs import measure_speed, read_run, runs_table, sample_runs

    runs = [read_run(folder, args.by_folder) for folder in args.work_dirs]
    if args.rounds:
        measure_speed(runs, args.batch_size, args.rounds, args.device)
    lines = runs_table(runs, args.keys)
    print('\n'.join(lines))
    if args.document:
        replace_marked(*args.document, lines)
    if args.json:
        args.json.write_text(json.dumps([asdict(run) for run in runs], indent=2) + '\n')
    if args.picture:
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        sheet = picture(runs, sample_runs(runs, args.samples, args.device))
        sheet.save(args.picture, optimize=True)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
