"""Train the rows of a table with several seeds and show it.

    python tools/analysis_tools/run_ablations.py --document docs/ablations.md ablations
    python tools/analysis_tools/run_ablations.py --suite mnist28 openmoji \\
        --work-dir work_dirs/proof --json docs/proof.json --document docs/proof.md proof

Seed by seed: the dense model, what is trained from scratch, then every variant from that seed's
dense model. Rows whose figures the file of --json or a work dir holds already are not repeated:
after a stop, the same command goes on with the missing ones.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from mmsparsedit.apis.ablations import HEADINGS, SUITES, Row, Suite
from mmsparsedit.apis.documents import parse_table, show_table
from mmsparsedit.apis.launch import ConfigError, run_tool
from mmsparsedit.utils.files import write_text

ROOT = Path(__file__).resolve().parents[2]
SPEED_BATCH = 20  # images of a timed call


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--suite', nargs='+', choices=list(SUITES), default=['digits16'])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument(
        '--jobs',
        type=int,
        default=os.cpu_count(),
        help='trainings at a time; they share the cores, or have OMP_NUM_THREADS each',
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/ablations'))
    parse_table(parser)
    parser.add_argument('--only', nargs='+', metavar='ROW', help='these, and what they start from')
    parser.add_argument(
        '--no-train', action='store_true', help='a table of what is there; nothing is trained'
    )
    parser.add_argument(
        '--rounds', type=int, default=0, help='measure images/s by so many timed calls of each row'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for every training'
    )
    parser.add_argument('--traceback', action='store_true')
    return parser.parse_args(argv)


def _tool(tool: str, folder: Path, threads: int, *arguments: str | Path | int) -> None:
    """Run a tool of the repository; its words go to ``folder``.

    Raises:
        ConfigError: it failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    with open(folder / 'console.txt', 'w') as log:
        env = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=env).returncode
    if code:
        tail = '\n'.join((folder / 'console.txt').read_text().splitlines()[-5:])
        raise ConfigError(f'{tool} in {folder} ended with {code}:\n{tail}')


def run(suite: Suite, row: Row, seed: int, threads: int) -> None:
    """Train or test a row in its work dir, and take its figures."""
    from mmsparsedit.apis.launch import load_config
    from mmsparsedit.apis.runs import check_same, read_run

    folder, options = suite.folder(row, seed), suite.options(row, seed)
    start = dense = None
    if row.start:
        start = dense = read_run(suite.folder(suite.rows[row.start], seed)).checkpoint
    began = time.perf_counter()
    if row.options:
        _tool('test.py', folder, threads, row.path, start, '--work-dir', folder,
              '--cfg-options', *options)  # fmt: skip
    else:
        if (folder / row.path.name).is_file():  # a training that was stopped
            check_same(folder, row.path, options)
        if row.fitted:
            fitted = folder / 'fitted.pth'
            if not fitted.is_file():
                _tool('model_converters/fit_start.py', folder, threads, row.path, start,
                      '--out', fitted, '--seed', seed)  # fmt: skip
            start = fitted
        if start:
            options = [f'load_from={start}', *options]
        if load_config(str(row.path)).model.get('distillation'):
            options = [f'model.distillation.teacher={dense}', *options]
        _tool('train.py', folder, threads, row.path, '--resume', '--work-dir', folder,
              '--cfg-options', *options)  # fmt: skip
    suite.collect(row, seed)
    print(f'{row.name} seed {seed}: {time.perf_counter() - began:.0f} s', flush=True)


def measure(suite: Suite, seed: int, rounds: int) -> None:
    """Images a second of every row that a work dir of the seed holds, by turns in this process."""
    from mmsparsedit.apis.runs import measure_speed, read_run

    folders = {name: suite.folder(row, seed) for name, row in suite.rows.items()}
    runs = {
        name: read_run(folder)
        for name, folder in folders.items()
        if (folder / 'metrics.json').is_file()
    }
    measure_speed(list(runs.values()), SPEED_BATCH, rounds, 'cpu')
    suite.speeds |= {name: run.metrics['samples_per_second'] for name, run in runs.items()}


def main(args: argparse.Namespace) -> None:
    if args.jobs < 1:
        raise ConfigError(f'--jobs: got {args.jobs}, expected at least 1.')
    known = [row.name for suite in args.suite for row in SUITES[suite]]
    if unknown := set(args.only or ()) - set(known):
        raise ConfigError(f'rows {sorted(unknown)} are unknown: use {", ".join(known)}.')
    threads = int(os.environ.get('OMP_NUM_THREADS') or max(1, os.cpu_count() // args.jobs))
    there = json.loads(args.json.read_text()) if args.json and args.json.is_file() else {}
    if not isinstance(there, dict):
        print(f'{args.json} is of an older form, without seeds: its figures are made again.')
        there = {}
    suites = [
        Suite(name, args.work_dir, args.seeds, args.cfg_options, there.get(name, {}))
        for name in args.suite
    ]
    lock = Lock()

    def write() -> None:
        there.update({suite.name: suite.stored() for suite in suites})
        if args.json:
            write_text(args.json, json.dumps(there, indent=2) + '\n')

    def run_and_write(suite: Suite, row: Row, seed: int) -> None:
        run(suite, row, seed, threads)
        with lock:
            write()

    if not args.no_train:
        with ThreadPoolExecutor(args.jobs) as pool:
            for suite, seed in ((suite, seed) for suite in suites for seed in args.seeds):
                for rows in suite.levels(seed, args.only or ()):
                    list(pool.map(lambda row, s=suite, n=seed: run_and_write(s, row, n), rows))
    if args.rounds:
        for suite in suites:
            measure(suite, args.seeds[0], args.rounds)
    write()
    lines = []
    for suite in suites:
        lines += ['', f'### {HEADINGS[suite.name]}', ''] if len(suites) > 1 else []
        lines += suite.table()
    show_table(lines, there, args)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
