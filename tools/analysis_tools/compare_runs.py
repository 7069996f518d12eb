"""One table of several runs: ``python tools/analysis_tools/compare_runs.py WORK_DIR WORK_DIR ...``.

Reads the config, the newest checkpoint and ``metrics.json`` of each work dir. Speed is measured
here, the runs in turn, so that all see the same machine.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from mmsparsedit.apis.launch import ConfigError, run_tool


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Table (Markdown) of the metrics of runs, with sampling speed measured in turn.'
    )
    parser.add_argument('work_dirs', nargs='+', type=Path)
    parser.add_argument('--keys', nargs='+', help='metrics to show (default: all that runs share)')
    parser.add_argument('--batch-size', type=int, default=50, help='images of a timed call')
    parser.add_argument('--rounds', type=int, default=3, help='timed calls of each run; 0 for none')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    parser.add_argument('--traceback', action='store_true', help='show where an error arose')
    return parser.parse_args(argv)


def read_run(folder: Path) -> dict:
    """Config, checkpoint and metrics of a work dir."""
    last, metrics = folder / 'last_checkpoint', folder / 'metrics.json'
    configs = sorted(folder.glob('*.py'))
    if not last.is_file() or not metrics.is_file() or len(configs) != 1:
        raise ConfigError(
            f'{folder}: got {len(configs)} configs, last_checkpoint '
            f'{"there" if last.is_file() else "missing"}, metrics.json '
            f'{"there" if metrics.is_file() else "missing"}; expected the work dir of one finished '
            'training with validation.'
        )
    return dict(
        name=configs[0].stem,
        config=str(configs[0]),
        checkpoint=last.read_text().strip(),
        metrics=json.loads(metrics.read_text()),
    )


def measure_speed(runs: list[dict], batch_size: int, rounds: int, device: str) -> None:
    """Add ``images_per_second`` of each run: the median of its timed calls, runs by turns."""
    import torch

    from mmsparsedit.apis import init_model
    from mmsparsedit.registry import DATASETS

    prepared = []
    for run in runs:
        model = init_model(run['config'], run['checkpoint'], device)
        from mmengine.config import Config

        requests = DATASETS.build(Config.fromfile(run['config']).val_dataloader.dataset)
        items = [requests[i % len(requests)] for i in range(batch_size)]
        prepared.append((model, torch.utils.data.default_collate(items), []))
    for round_number in range(rounds + 1):  # the first warms up
        for model, batch, seconds in prepared:
            began = time.perf_counter()
            model.predict(**batch)  # its images are on the CPU: the device has finished
            if round_number:
                seconds.append(time.perf_counter() - began)
    for run, (_, _, seconds) in zip(runs, prepared, strict=True):
        run['metrics']['images_per_second'] = batch_size / statistics.median(seconds)


def table(runs: list[dict], keys: list[str] | None = None) -> str:
    """Markdown: a row per metric, a column per run."""
    shared = set.intersection(*(set(run['metrics']) for run in runs))
    unknown = set(keys or ()) - shared
    if unknown:
        raise ConfigError(f'metrics {sorted(unknown)} are not in all runs: use {sorted(shared)}.')
    keys = keys or sorted(shared)
    lines = [['', *(run['name'] for run in runs)], ['---'] + ['---:'] * len(runs)]
    lines += [[key, *(f'{run["metrics"][key]:.4g}' for run in runs)] for key in keys]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def main(args: argparse.Namespace) -> None:
    runs = [read_run(folder) for folder in args.work_dirs]
    if args.rounds:
        measure_speed(runs, args.batch_size, args.rounds, args.device)
    print(table(runs, args.keys))
    if args.json:
        args.json.write_text(json.dumps(runs, indent=2) + '\n')


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
