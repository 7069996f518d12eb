"""Ways to be faster and their combinations, each at its quality, cost and time.

A row is a trained model, dense or sparse, with options of its config; the first row is what all
others are compared with. Measurements are kept in a dict of JSON values as soon as they are known,
so that a stopped comparison goes on where it stopped.
"""

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import yaml
from mmengine.config import Config
from mmengine.evaluator import Evaluator

from mmsparsedit.models import cost as counted
from mmsparsedit.registry import DATASETS, METRICS

from .clock import machine, spread, timed
from .config_files import check_types, recorded_config
from .documents import markdown_table
from .inference import generate, init_model
from .launch import ConfigError
from .runs import Run

MODELS = ('dense', 'sparse')


@dataclass(frozen=True)
class Row:
    """A trained model with options: one way to be faster."""

    title: str
    model: str  # of MODELS
    options: dict = field(default_factory=dict)  # of the config, as --cfg-options names them

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ConfigError(
                f'row {self.title!r}: model must be one of {MODELS}, got {self.model!r}.'
            )


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a YAML file: a list of arguments of ``Row``.

    Raises:
        ConfigError: no such list, an unknown argument, two rows of one title.
    """
    try:
        found = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
        rows = [Row(**row) for row in found]
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, OSError) as error:
        raise ConfigError(f'table of methods {path}: {error}') from error
    titles = [row.title for row in rows]
    if not rows or len(set(titles)) < len(titles):
        raise ConfigError(f'table of methods {path}: expected rows, each of a title of its own.')
    return rows


@dataclass(frozen=True)
class Setting:
    """How all rows are measured."""

    num_samples: int = 500  # of one measurement of quality
    seeds: tuple[int, ...] = (0, 1, 2)  # of sampling, each with every training
    batch_size: int = 50  # of sampling for quality
    timed_batch: int = 8
    rounds: int = 5  # of timing, each of the row and of the first row
    device: str = 'cpu'


class Comparison:
    """Measures rows one by one into ``found``.

    Args:
        runs: trainings by model, those of one list being seeds of one config; more may follow
            those that ``found`` has.
        found: what an earlier comparison measured, or an empty dict; it is added to.
        save: called after each measurement.
        out_of_time: asked before each measurement; True stops.

    Raises:
        ConfigError: ``found`` was measured in another setting, or a row of it with other options.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        runs: Mapping[str, Sequence[Run]],
        setting: Setting,
        found: dict,
        save: Callable[[], None] = lambda: None,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> None:
        self.rows, self.runs, self.setting, self.found = rows, runs, setting, found
        self.save, self.out_of_time = save, out_of_time
        self._metrics: dict[str, Evaluator] = {}
        missing = {row.model for row in rows if not runs.get(row.model)}
        if missing:
            raise ConfigError(f'the table has {sorted(missing)} rows: name their work dirs.')
        asked = {key: value for key, value in asdict(setting).items() if key != 'rounds'}
        asked['seeds'] = list(setting.seeds)
        asked['runs'] = {
            model: [dict(config=run.config, checkpoint=run.checkpoint) for run in of_model]
            for model, of_model in runs.items()
        }
        kept = found.setdefault('setting', asked)
        begun = {model: asked['runs'][model][: len(kept['runs'][model])] for model in kept['runs']}
        if {**kept, 'runs': begun} != {**asked, 'runs': kept['runs']}:
            raise ConfigError(
                f'the figures were measured with {found["setting"]}, asked for is {asked}: give '
                'the same, or another file.'
            )
        kept['runs'] = asked['runs']
        found.setdefault('rows', {})
        for row in rows:
            kept = found['rows'].setdefault(
                row.title, dict(model=row.model, options=row.options, quality=[], rounds=[])
            )
            if (kept['model'], kept['options']) != (row.model, row.options):
                raise ConfigError(
                    f'row {row.title!r} was measured with {kept["options"]}, asked for is '
                    f'{row.options}: give it another title, or delete it from the figures.'
                )

    def measure_quality(self) -> bool:
        """Metrics and cost of every row, training and seed; False where time ran out."""
        for seed in self.setting.seeds:
            for row in self.rows:
                kept = self.found['rows'][row.title]['quality']
                for run in self.runs[row.model]:
                    key = dict(checkpoint=run.checkpoint, seed=seed)
                    if any(key.items() <= each.items() for each in kept):
                        continue
                    if self.out_of_time():
                        return False
                    kept.append(dict(key, **self._quality(row, run, seed)))
                    self.save()
        return True

    def measure_speed(self) -> bool:
        """Seconds of a batch of each row and of the first, by turns; False where time ran out.

        A round of all rows comes before the next round of any.
        """
        first = None
        ready: dict[str, Callable[[], float]] = {}
        self.found.setdefault('machine', machine(self.setting.device))
        for number in range(self.setting.rounds):
            for row in self.rows:
                rounds = self.found['rows'][row.title]['rounds']
                if len(rounds) > number:
                    continue
                if self.out_of_time():
                    return False
                first = first or self._timer(self.rows[0])
                if row.title not in ready:
                    ready[row.title] = self._timer(row)
                rounds.append([ready[row.title](), first()])
                self.save()
        return True

    def _config(self, row: Row, run: Run) -> Config:
        config = recorded_config(run.config)
        config.merge_from_dict(copy.deepcopy(row.options))
        loader = config.get('val_dataloader') or config.test_dataloader
        evaluator = config.get('val_evaluator') or config.test_evaluator
        check_types([config.model, loader.dataset, evaluator], run.config)
        return config

    def _requests(self, config: Config, num_samples: int, seed: int) -> list[dict]:
        loader = config.get('val_dataloader') or config.test_dataloader
        dataset = DATASETS.build({**loader.dataset, 'num_samples': num_samples, 'seed': seed})
        return [dataset[i] for i in range(num_samples)]

    def _quality(self, row: Row, run: Run, seed: int) -> dict:
        config = self._config(row, run)
        generator = init_model(config, run.checkpoint, self.setting.device)
        requests = self._requests(config, self.setting.num_samples, seed)
        began = time.perf_counter()
        samples = list(generate(generator, requests, self.setting.batch_size))
        seconds = time.perf_counter() - began
        evaluator = config.get('val_evaluator') or config.test_evaluator
        kind = repr(evaluator)
        if kind not in self._metrics:  # real images are looked at once
            parts = evaluator if isinstance(evaluator, list | tuple) else [evaluator]
            self._metrics[kind] = Evaluator([METRICS.build(part) for part in parts])
        self._metrics[kind].process(data_samples=samples, data_batch=None)
        metrics = self._metrics[kind].evaluate(len(samples))
        trajectories = counted.sampled_calls(generator)
        made = sum(rows for rows, _ in trajectories)
        spared = sum(rows * sum(c.reused for c in calls) for rows, calls in trajectories) / made
        macs = counted.trajectory_macs(generator, counted.macs_by_grid(generator))
        return dict(
            metrics={key: float(value) for key, value in metrics.items()},
            seconds=seconds,
            calls=len(trajectories[0][1]),
            spared=spared,
            evaluations=sum(1 + call.guided for call in trajectories[0][1]),
            gmacs_per_sample=macs / 1e9,
        )

    def _timer(self, row: Row) -> Callable[[], float]:
        """Seconds of one batch, warmed up."""
        run, batch = self.runs[row.model][0], self.setting.timed_batch
        config = self._config(row, run)
        generator = init_model(config, run.checkpoint, self.setting.device)
        items = torch.utils.data.default_collate(self._requests(config, batch, 0))
        items.pop('index')
        seeds = items.pop('seed').tolist()

        def seconds() -> float:
            return timed(lambda: generator.sample(seeds, **items), self.setting.device)

        seconds()
        return seconds


def summary(found: dict, key: str) -> list[dict]:
    """Of each row that has been measured: cost, speed over the first row, and one metric.

    ``quality`` and ``gmacs`` are means over seeds, ``quality_spread`` a standard deviation (n - 1);
    ``speed`` and ``ratio`` are medians with quartiles, where the row was timed.

    Raises:
        ConfigError: the metric is unknown.
    """
    rows = []
    for title, row in found['rows'].items():
        if not row['quality']:
            continue
        names = row['quality'][0]['metrics']
        if key not in names:
            raise ConfigError(f'metric {key!r} is not among {sorted(names)}.')
        values = [each['metrics'][key] for each in row['quality']]
        mean = {
            name: statistics.fmean(each[name] for each in row['quality'])
            for name in ('gmacs_per_sample', 'calls', 'spared', 'evaluations')
        }
        timed_rounds = row['rounds']
        batch = found['setting']['timed_batch']
        rows.append(
            dict(
                title=title,
                model=row['model'],
                quality=statistics.fmean(values),
                quality_spread=statistics.stdev(values) if len(values) > 1 else 0.0,
                seeds=len(values),
                **mean,
                speed=spread([batch / own for own, _ in timed_rounds]) if timed_rounds else None,
                ratio=spread([base / own for own, base in timed_rounds]) if timed_rounds else None,
            )
        )
    return rows


def on_front(rows: Sequence[dict], cost: Callable[[dict], float]) -> list[dict]:
    """Rows that no other beats in cost without being worse in quality, cheapest first.

    Lower is better for both.
    """
    front: list[dict] = []
    for row in sorted(rows, key=lambda row: (cost(row), row['quality'])):
        if not front or row['quality'] < front[-1]['quality']:
            front.append(row)
    return front


def best_at(rows: Sequence[dict], speeds: Sequence[float]) -> dict[float, dict | None]:
    """For each speed the row of the best quality that is as many times as fast, or None.

    By the median on the clock.
    """
    timed_rows = [row for row in rows if row['ratio']]
    return {
        speed: min(
            (row for row in timed_rows if row['ratio']['median'] >= speed),
            key=lambda row: row['quality'],
            default=None,
        )
        for speed in speeds
    }


def comparison_table(found: dict, keys: Sequence[str]) -> list[str]:
    """Markdown: a line per row, its metrics as mean ± standard deviation over seeds.

    Args:
        keys: ``'metric=heading'``, the heading by default what follows the last slash.
    """
    columns = [key.partition('=')[::2] for key in keys]
    headings = [heading or key.split('/')[-1] for key, heading in columns]
    header = ['', 'model', 'calls', 'spared', 'GMACs', 'images/s', 'speed-up', 'quartiles']
    table = [[*header, *headings]]
    by_key = [summary(found, key) for key, _ in columns]
    for i, row in enumerate(by_key[0]):
        ratio, speed = row['ratio'], row['speed']
        timed_cells = ['-'] * 3
        if ratio:
            quartiles = f'{ratio["q1"]:.2f} to {ratio["q3"]:.2f}'
            timed_cells = [f'{speed["median"]:.3g}', f'{ratio["median"]:.2f}', quartiles]
        metrics = [
            f'{of_key[i]["quality"]:.2f} ± {of_key[i]["quality_spread"]:.2f}' for of_key in by_key
        ]
        cells = [
            f'{row["evaluations"]:g}',
            f'{row["spared"]:.1f}',
            f'{row["gmacs_per_sample"]:.3g}',
        ]
        table.append([row['title'], row['model'], *cells, *timed_cells, *metrics])
    return markdown_table(table)
