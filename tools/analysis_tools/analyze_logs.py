"""Curves and times of trainings, from their logs.

    analyze_logs.py plot_curve work_dirs/digits work_dirs/dit_digits --keys loss mse_stage0
    analyze_logs.py cal_train_time work_dirs/digits

A log is the JSON file in a run's folder ``vis_data``; of a work dir the newest run is taken.
"""

import argparse
import json
from pathlib import Path

from mmsparsedit.apis.launch import ConfigError, output_file, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tasks = parser.add_subparsers(dest='task', required=True)
    curve = tasks.add_parser('plot_curve', help='values over iterations, as PNG')
    curve.add_argument('logs', nargs='+', type=Path, help='JSON logs or work dirs')
    curve.add_argument('--keys', nargs='+', default=['loss'], help='default: loss')
    curve.add_argument('--legend', nargs='+', help='a name for each curve')
    curve.add_argument('--title')
    curve.add_argument('--smooth', type=int, default=1, help='mean over so many entries')
    curve.add_argument('--out', type=output_file, default='curves.png')
    time = tasks.add_parser('cal_train_time', help='seconds of an iteration')
    time.add_argument('logs', nargs='+', type=Path, help='JSON logs or work dirs')
    for task in (curve, time):
        task.add_argument('--traceback', action='store_true', help='show where an error arose')
    return parser.parse_args()


def find_log(path: Path) -> Path:
    """The JSON log of a run.

    Raises:
        ConfigError: there is none.
    """
    if path.is_file():
        return path
    found = sorted(p for p in path.glob('*/vis_data/*.json') if p.stem[:8].isdigit())
    if not found:
        raise ConfigError(f'{path}: got neither a JSON log nor a work dir with */vis_data/*.json.')
    return found[-1]


def read_log(path: Path) -> list[dict]:
    """Entries of training, in order.

    Raises:
        ConfigError: none in it.
    """
    entries = []
    for line in find_log(path).read_text(encoding='utf-8').splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:  # the last line of a run that was killed
            continue
    entries = [entry for entry in entries if 'loss' in entry]
    if not entries:
        raise ConfigError(f'{find_log(path)} has no entry of a training.')
    return entries


def plot_curve(args: argparse.Namespace) -> None:
    import matplotlib

    from mmsparsedit.visualization import save_figure

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    names = iter(args.legend or [])
    for log in args.logs:
        entries = read_log(log)
        for key in args.keys:
            points = [(entry['step'], entry[key]) for entry in entries if key in entry]
            if not points:
                known = sorted({name for entry in entries for name in entry})
                raise ConfigError(f'{log} has no {key!r}: use {", ".join(known)}.')
            steps, values = zip(*points, strict=True)
            n = min(args.smooth, len(values))
            values = [sum(values[max(0, i - n + 1) : i + 1]) / min(n, i + 1)
                      for i in range(len(values))]  # fmt: skip
            axes.plot(steps, values, label=next(names, f'{log.name} {key}'))
    axes.set(xlabel='iteration', title=args.title or '')
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(args.out, figure, dpi=120, bbox_inches='tight')
    print(f'curves in {args.out}')


def cal_train_time(args: argparse.Namespace) -> None:
    for log in args.logs:
        times = [entry['time'] for entry in read_log(log) if 'time' in entry]
        if not times:
            raise ConfigError(f'{log} has no times.')
        waits = [entry['data_time'] for entry in read_log(log) if 'data_time' in entry]
        print(
            f'{log}: {sum(times) / len(times):.4f} s an iteration, {min(times):.4f} to '
            f'{max(times):.4f} over {len(times)} entries, {sum(waits) / len(times):.4f} s of it '
            'for data'
        )


def main(args: argparse.Namespace) -> None:
    dict(plot_curve=plot_curve, cal_train_time=cal_train_time)[args.task](args)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
