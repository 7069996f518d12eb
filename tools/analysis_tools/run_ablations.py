"""Train the digits ablations with several seeds and show their table.

    python tools/analysis_tools/run_ablations.py --document docs/ablations.md ablations

For each seed: the dense model and a sparse one from scratch, then every variant, fine-tuned from
that seed's dense model. Runs that a work dir holds already are not repeated.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mmsparsedit.apis.documents import parse_table, show_table
from mmsparsedit.apis.launch import ConfigError, run_tool

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs/sparsedit/ablations'
SCRATCH = ('dit_digits16', 'digits16_scratch')
FINE_TUNED = (
    'digits16',
    'digits16_sdtm1',
    'digits16_sdtm3',
    'digits16_sdtm4',
    'digits16_pool0',
    'digits16_pool1',
    'digits16_pool3',
    'digits16_fixed5',
    'digits16_dynamic3_5',
    'digits16_fixed4',
    'digits16_no_reinject',
)
KEYS = (
    'cost/gmacs_mean_t=GMACs a call',
    'digits/recognised=recognised, %',
    'digits/frechet=Fréchet distance',
)


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='trainings at a time')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/ablations'))
    parse_table(parser)
    parser.add_argument('--only', nargs='+', help='these variants only')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for every training'
    )
    parser.add_argument('--traceback', action='store_true')
    return parser.parse_args(argv)


def train(config: str, folder: Path, seed: int, threads: int, options: list[str]) -> None:
    """One training by ``tools/train.py``, unless ``folder`` holds its result.

    Raises:
        ConfigError: the folder holds the result of another config, or the training failed.
    """
    from mmsparsedit.apis.runs import check_same

    path, options = CONFIGS / f'{config}.py', [f'randomness.seed={seed}', *options]
    if (folder / 'metrics.json').is_file():
        check_same(folder, path, options)
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / 'tools/train.py'), str(path)]
    command += ['--work-dir', str(folder), '--cfg-options', *options]
    began = time.perf_counter()
    with open(folder / 'console.txt', 'w') as log:
        env = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=env).returncode
    if code:
        tail = '\n'.join((folder / 'console.txt').read_text().splitlines()[-5:])
        raise ConfigError(f'{config} with seed {seed} ended with {code}, in {folder}:\n{tail}')
    print(f'{config} seed {seed}: {time.perf_counter() - began:.0f} s', flush=True)


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.apis.runs import read_run, runs_table

    if args.jobs < 1:
        raise ConfigError(f'--jobs: got {args.jobs}, expected at least 1.')
    threads = max(1, os.cpu_count() // args.jobs)
    variants = args.only or FINE_TUNED
    unknown = set(variants) - set(FINE_TUNED)
    if unknown:
        raise ConfigError(f'variants {sorted(unknown)} are unknown: use {", ".join(FINE_TUNED)}.')

    def folder(config: str, seed: int) -> Path:
        return args.work_dir / f'{config}_seed{seed}'

    def from_scratch(config: str, seed: int) -> None:
        train(config, folder(config, seed), seed, threads, args.cfg_options)

    def fine_tune(config: str, seed: int) -> None:
        start = read_run(folder('dit_digits16', seed)).checkpoint
        options = [f'load_from={start}', *args.cfg_options]
        train(config, folder(config, seed), seed, threads, options)

    with ThreadPoolExecutor(args.jobs) as pool:
        for function, configs in ((from_scratch, SCRATCH), (fine_tune, variants)):
            jobs = [(config, seed) for seed in args.seeds for config in configs]
            list(pool.map(lambda job, function=function: function(*job), jobs))
    runs = [
        read_run(folder(config, seed)) for config in (*SCRATCH, *variants) for seed in args.seeds
    ]
    figures = [dict(config=run.name, metrics=run.metrics) for run in runs]  # seeds in order
    show_table(runs_table(runs, KEYS), figures, args)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
