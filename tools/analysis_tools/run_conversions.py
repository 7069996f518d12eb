"""Ways from a dense digits model to a sparse one of its quality, by length: ``docs/convert.md``.

    python tools/analysis_tools/run_conversions.py --document docs/convert.md conversions

For each seed: the dense model, merges fitted to it, and for each share of its iterations plain
fine-tuning and distillation, both from the dense checkpoint and from the fitted one. Runs that a
work dir holds already are not repeated.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from mmsparsedit.apis.documents import parse_table, show_table
from mmsparsedit.apis.launch import ConfigError, run_tool

ROOT = Path(__file__).resolve().parents[2]
DENSE, SPARSE = (ROOT / f'configs/sparsedit/{name}.py' for name in ('dit_digits', 'digits_distill'))
DENSE_ITERATIONS = 1500
METHODS = ('plain', 'fitted', 'distilled', 'fitted_distilled')
# a quarter of the time of the configs' own, for dense and sparse alike
SAMPLING = (
    'model.sampler.type=DiffusersSampler',
    'model.sampler.scheduler=DPMSolverMultistepScheduler',
    'model.sampler.num_steps=15',
    'val_dataloader.dataset.num_samples=500',
    'test_dataloader.dataset.num_samples=500',
)
KEYS = ('digits/recognised=recognised, %', 'digits/frechet=Fréchet distance')


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument(
        '--percent', nargs='+', type=int, default=[1, 3, 10], help="of the dense run's iterations"
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/conversion'))
    parse_table(parser)
    parser.add_argument('--traceback', action='store_true')
    return parser.parse_args(argv)


def run(folder: Path, result: str, tool: str, *arguments: str | Path) -> None:
    """A tool of the repository, unless ``folder`` holds its ``result``; its words go there too."""
    if (folder / result).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    with open(folder / 'console.txt', 'w') as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
    if code:
        tail = '\n'.join((folder / 'console.txt').read_text().splitlines()[-5:])
        raise ConfigError(f'{folder.name} ended with {code}:\n{tail}')
    print(folder.name, flush=True)


def length(iterations: int) -> list[str]:
    """Options of a training of so many iterations; the average spans the same share of each."""
    return [
        f'train_cfg.max_iters={iterations}',
        f'train_cfg.val_interval={iterations}',
        f'param_scheduler.0.end={iterations}',
        f'default_hooks.checkpoint.interval={iterations}',
        f'default_hooks.ema.momentum={min(0.3, 4.5 / iterations):.3f}',
        'default_hooks.sample_grid=None',
    ]


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.apis.runs import read_run, runs_table

    os.environ.setdefault('OMP_NUM_THREADS', '1')
    found = {}
    for seed in args.seeds:
        names = {name: args.work_dir / f'{name}_seed{seed}' for name in ('dense', 'fit', 'tested')}
        chance = f'randomness.seed={seed}'
        train = ('metrics.json', 'train.py', SPARSE, '--work-dir')
        run(
            names['dense'], 'metrics.json', 'train.py', DENSE,
            '--work-dir', names['dense'], '--cfg-options', chance,
        )  # fmt: skip
        dense = read_run(names['dense']).checkpoint
        run(
            names['tested'], 'metrics.json', 'test.py', DENSE, dense,
            '--work-dir', names['tested'], '--cfg-options', *SAMPLING,
        )  # fmt: skip
        found.setdefault('dense', []).append(names['tested'])
        fitted = names['fit'] / 'fitted.pth'
        run(
            names['fit'], fitted.name, 'model_converters/fit_merges.py', SPARSE, dense,
            '--out', fitted, '--seed', str(seed),
        )  # fmt: skip
        for percent in args.percent:
            iterations = DENSE_ITERATIONS * percent // 100
            for method in METHODS:
                name = f'{method}_{percent}'
                folder = args.work_dir / f'{name}_seed{seed}'
                start = fitted if 'fitted' in method else dense
                teacher = f'distillation.teacher={dense}'
                if 'distilled' not in method:
                    teacher = 'distillation=None'
                run(
                    folder, *train, folder, '--cfg-options', chance, f'load_from={start}',
                    f'model.{teacher}', *length(iterations), *SAMPLING,
                )  # fmt: skip
                found.setdefault(name, []).append(folder)
    runs = []
    for name, folders in found.items():
        for folder in folders:
            runs.append(read_run(folder))
            # the options of a name are the same in all seeds, but for the paths of their teachers
            runs[-1].name, runs[-1].recipe = name, {}
    figures = [dict(run=run.name, metrics=run.metrics) for run in runs]  # seeds in order
    show_table(runs_table(runs, KEYS), figures, args)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
