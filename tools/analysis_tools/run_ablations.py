"""Train the rows of a table with several seeds and show it.

    python tools/analysis_tools/run_ablations.py --document docs/ablations.md ablations
    python tools/analysis_tools/run_ablations.py --suite mnist28 openmoji \\
        --work-dir work_dirs/proof --json docs/proof.json --document docs/proof.md proof

Seed by seed: the dense model, what is trained from scratch, then every variant from that seed's
dense model. Rows whose figures the file of --json or a work dir holds already are not repeated:
after a stop, the same command goes on with the missing ones.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from mmsparsedit.apis.documents import parse_table, show_table
from mmsparsedit.apis.launch import ConfigError, run_tool

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Row:
    """A training, or a test of another row's weights.

    Attributes:
        config: below ``configs``.
        start: name of the row whose weights it starts from; none for a training from scratch.
        fitted: the merges are fitted to those weights first.
        options: by which it differs from its config; it is then a test of ``start``, no training.
        suffix: of its name, where the config has several rows.
    """

    config: str
    start: str | None = None
    fitted: bool = False
    options: tuple[str, ...] = ()
    suffix: str = ''

    @property
    def name(self) -> str:
        return Path(self.config).stem + self.suffix

    @property
    def path(self) -> Path:
        return ROOT / 'configs' / self.config


def _from(start: str, *configs: str, fitted: bool = False) -> tuple[Row, ...]:
    return tuple(Row(config, start, fitted) for config in configs)


def _with_steps(config: str, weights: str, *steps: int) -> tuple[Row, ...]:
    return tuple(
        Row(config, weights, options=(f'model.sampler.num_steps={n}',), suffix=f'_{n}steps')
        for n in steps
    )


DIGITS, HANDWRITING = 'sparsedit/ablations/digits16', 'sparsedit/ablations/mnist28'
PICTURES = (
    'cost/gmacs_mean_t=GMACs a call',
    'real/recognised=recognised, %',
    'real/frechet=Fréchet (EfficientNet-Lite0)',
    'real/precision=precision',
    'real/recall=recall',
    'real/memorised=memorised, %',
)
SUITES = {
    'digits16': (
        Row('sparsedit/ablations/dit_digits16.py'),
        Row(f'{DIGITS}_scratch.py'),
        *_from(
            'dit_digits16',
            f'{DIGITS}.py',
            f'{DIGITS}_sdtm1.py',
            f'{DIGITS}_sdtm3.py',
            f'{DIGITS}_sdtm4.py',
            f'{DIGITS}_pool0.py',
            f'{DIGITS}_pool1.py',
            f'{DIGITS}_pool3.py',
            f'{DIGITS}_fixed5.py',
            f'{DIGITS}_dynamic3_5.py',
            f'{DIGITS}_fixed4.py',
            f'{DIGITS}_no_reinject.py',
        ),
    ),
    'mnist28': (
        Row('sparsedit/dit_mnist28.py'),
        Row('sparsedit/mnist28.py'),
        *_from(
            'dit_mnist28',
            'sparsedit/mnist28_finetune.py',
            f'{HANDWRITING}_sdtm2.py',
            f'{HANDWRITING}_pool0.py',
            f'{HANDWRITING}_pool2.py',
            f'{HANDWRITING}_fixed7.py',
            f'{HANDWRITING}_no_reinject.py',
            fitted=True,
        ),
        *_with_steps('sparsedit/dit_mnist28.py', 'dit_mnist28', 5, 25),
        *_with_steps('sparsedit/mnist28_finetune.py', 'mnist28_finetune', 5, 25),
    ),
    'openmoji': (
        Row('sparsepixart/pixart_openmoji.py'),
        Row('sparsepixart/openmoji.py'),
        *_from('pixart_openmoji', 'sparsepixart/openmoji_finetune.py', fitted=True),
    ),
}
KEYS = {
    'digits16': (
        'cost/gmacs_mean_t=GMACs a call',
        'digits/recognised=recognised, %',
        'digits/frechet=Fréchet distance',
    ),
    'mnist28': PICTURES,
    'openmoji': (*PICTURES, 'real/retrieved5=caption among 5, %'),
}
SPEED = 'images_per_second'


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--suite', nargs='+', choices=list(SUITES), default=['digits16'])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='trainings at a time')
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


class Suite:
    """The rows of one table, their work dirs, and the figures that are there.

    Args:
        name: of ``SUITES``.
        args: of the command.
        kept: what a file of figures holds of the suite.
    """

    def __init__(self, name: str, args: argparse.Namespace, kept: dict) -> None:
        self.name, self.args = name, args
        self.rows = {row.name: row for row in SUITES[name]}
        self.speeds: dict[str, float] = kept.get(SPEED, {})
        self._kept = {(row['config'], row['seed']): row for row in kept.get('rows', [])}
        self.figures: dict[tuple[str, int], dict] = {}
        for row in self.rows.values():
            for seed in {*args.seeds, *(seed for _, seed in self._kept)}:
                self._collect(row, seed)

    def folder(self, row: Row, seed: int) -> Path:
        return self.args.work_dir / f'{row.name}_seed{seed}'

    def options(self, row: Row, seed: int) -> list[str]:
        return [f'randomness.seed={seed}', *row.options, *self.args.cfg_options]

    def digest(self, row: Row, seed: int) -> str:
        """SHA-256 of all that decides the result of a row, its start included."""
        from mmsparsedit.apis.runs import recipe_of

        start = self.digest(self.rows[row.start], seed) if row.start else None
        recipe = recipe_of(row.path, self.options(row, seed))
        whole = json.dumps([recipe, start, row.fitted, bool(row.options)], default=str)
        return hashlib.sha256(whole.encode()).hexdigest()

    def _collect(self, row: Row, seed: int) -> None:
        """Take the figures of a row from its work dir, or else from the file, if they are there."""
        from mmsparsedit.apis.runs import check_same, read_run

        folder, kept = self.folder(row, seed), self._kept.get((row.name, seed))
        digest = self.digest(row, seed)
        if (folder / 'metrics.json').is_file():
            check_same(folder, row.path, self.options(row, seed))
            metrics = read_run(folder).metrics
        elif kept is not None and kept['recipe'] == digest:
            metrics = kept['metrics']
        else:
            return
        self.figures[row.name, seed] = dict(
            config=row.name, seed=seed, recipe=digest, metrics=metrics
        )

    def levels(self, seed: int) -> list[list[Row]]:
        """What is to be run, level by level: each starts from those before it."""
        missing = [row for row in self.rows.values() if (row.name, seed) not in self.figures]
        if self.args.only:
            missing = [row for row in missing if row.name in self.args.only]
        chosen: dict[str, int] = {}

        def choose(row: Row) -> int:
            if row.name not in chosen:
                chosen[row.name] = 0 if row.start is None else self._needed(row, seed, choose)
            return chosen[row.name]

        for row in missing:
            choose(row)
        levels: list[list[Row]] = [[] for _ in range(max(chosen.values(), default=-1) + 1)]
        for name, level in chosen.items():
            levels[level].append(self.rows[name])
        return levels

    def _needed(self, row: Row, seed: int, choose) -> int:
        """The level of a row that starts from another, which is chosen too if it is not there."""
        start = self.rows[row.start]
        there = (self.folder(start, seed) / 'metrics.json').is_file()
        return 0 if there else 1 + choose(start)

    def run(self, row: Row, seed: int, threads: int) -> None:
        """Train or test a row in its work dir, and take its figures."""
        from mmsparsedit.apis.runs import read_run

        folder, options = self.folder(row, seed), self.options(row, seed)
        start = read_run(self.folder(self.rows[row.start], seed)).checkpoint if row.start else None
        began = time.perf_counter()
        if row.options:
            _tool('test.py', folder, threads, row.path, start, '--work-dir', folder,
                  '--cfg-options', *options)  # fmt: skip
        else:
            if row.fitted:
                fitted = folder / 'fitted.pth'
                _tool('model_converters/fit_merges.py', folder, threads, row.path, start,
                      '--out', fitted, '--seed', seed)  # fmt: skip
                start = fitted
            if start:
                options = [f'load_from={start}', *options]
            _tool('train.py', folder, threads, row.path, '--work-dir', folder,
                  '--cfg-options', *options)  # fmt: skip
        self._collect(row, seed)
        print(f'{row.name} seed {seed}: {time.perf_counter() - began:.0f} s', flush=True)

    def measure(self) -> None:
        """Images a second of every trained row of the first seed, by turns in this process."""
        from mmsparsedit.apis.runs import measure_speed, read_run

        rows = [
            row
            for row in self.rows.values()
            if (self.folder(row, self.args.seeds[0]) / 'metrics.json').is_file()
        ]
        runs = [read_run(self.folder(row, self.args.seeds[0])) for row in rows]
        measure_speed(runs, 20, self.args.rounds, 'cpu')
        self.speeds |= {
            row.name: run.metrics['samples_per_second'] for row, run in zip(rows, runs, strict=True)
        }

    def table(self) -> list[str]:
        """Markdown lines: the rows that are there, with the number of their seeds."""
        from mmsparsedit.apis.runs import Run, runs_table

        runs = []
        for name in self.rows:
            seeds = sorted(seed for known, seed in self.figures if known == name)
            for seed in seeds:
                metrics = dict(self.figures[name, seed]['metrics'], seeds=len(seeds))
                if name in self.speeds:
                    metrics[SPEED] = self.speeds[name]
                runs.append(Run(name, '', '', metrics))
        if not runs:
            return ['No row of this table is there yet.']
        keys = [*KEYS[self.name], *([f'{SPEED}=images/s'] if self.speeds else []), 'seeds']
        return runs_table(runs, keys, partial=True)

    def stored(self) -> dict:
        """What a file of figures keeps."""
        order = list(self.rows)
        rows = sorted(self.figures.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
        return {'rows': [row for _, row in rows], SPEED: self.speeds}


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


def main(args: argparse.Namespace) -> None:
    if args.jobs < 1:
        raise ConfigError(f'--jobs: got {args.jobs}, expected at least 1.')
    known = [row.name for suite in args.suite for row in SUITES[suite]]
    if unknown := set(args.only or ()) - set(known):
        raise ConfigError(f'rows {sorted(unknown)} are unknown: use {", ".join(known)}.')
    threads = max(1, os.cpu_count() // args.jobs)
    there = json.loads(args.json.read_text()) if args.json and args.json.is_file() else {}
    if not isinstance(there, dict):
        raise ConfigError(f'{args.json} is of an older form, without seeds: name another file.')
    suites = [Suite(name, args, there.get(name, {})) for name in args.suite]
    lock = Lock()

    def write() -> None:
        there.update({suite.name: suite.stored() for suite in suites})
        if args.json:
            args.json.write_text(json.dumps(there, indent=1) + '\n')

    def run(suite: Suite, row: Row, seed: int) -> None:
        suite.run(row, seed, threads)
        with lock:
            write()

    if not args.no_train:
        with ThreadPoolExecutor(args.jobs) as pool:
            for suite, seed in ((suite, seed) for suite in suites for seed in args.seeds):
                for rows in suite.levels(seed):
                    list(pool.map(lambda row, s=suite, n=seed: run(s, row, n), rows))
    if args.rounds:
        for suite in suites:
            suite.measure()
    write()
    lines = []
    for suite in suites:
        lines += ['', f'### {suite.name}', ''] if len(suites) > 1 else []
        lines += suite.table()
    show_table(lines, there, args)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
