"""Finished trainings and tests side by side: what their work dirs say, as one table."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .launch import ConfigError


@dataclass
class Run:
    """A work dir of ``tools/train.py`` or ``tools/test.py``: config, checkpoint and metrics."""

    name: str  # of the config; or of the folder
    config: str
    checkpoint: str
    metrics: dict[str, float] = field(default_factory=dict)


def read_run(folder: str | Path, named_by_folder: bool = False) -> Run:
    """The run of a work dir: a training with its newest checkpoint, or a test with the one it had.

    Args:
        named_by_folder: where one config was tested with several options.

    Raises:
        ConfigError: the folder is not that of a finished training with validation, or of a test.
    """
    from mmengine.config import Config

    folder = Path(folder)
    last, metrics = folder / 'last_checkpoint', folder / 'metrics.json'
    configs = sorted(folder.glob('*.py'))
    checkpoint = None
    if last.is_file():  # the folder may have moved since it was written
        checkpoint = str(folder / Path(last.read_text().strip()).name)
    elif len(configs) == 1:
        config = Config.fromfile(configs[0])
        checkpoint = None if config.get('test_cfg') is None else config.get('load_from')
    if checkpoint is None or not metrics.is_file() or len(configs) != 1:
        raise ConfigError(
            f'{folder}: got {len(configs)} configs, checkpoint {checkpoint or "missing"}, '
            f'metrics.json {"there" if metrics.is_file() else "missing"}; expected the work dir of '
            'one finished training with validation, or of one finished test.'
        )
    found = json.loads(metrics.read_text())['metrics']
    name = folder.resolve().name if named_by_folder else configs[0].stem
    return Run(name, str(configs[0]), checkpoint, found)


def measure_speed(runs: Sequence[Run], batch_size: int, rounds: int, device: str) -> None:
    """Add ``samples_per_second`` to the metrics: the median of timed calls, runs by turns."""
    from .clock import timed

    prepared = [(*_model_and_batch(run, batch_size, device), []) for run in runs]
    for round_number in range(rounds + 1):  # the first warms up
        for model, batch, seconds in prepared:
            elapsed = timed(lambda model=model, batch=batch: model.predict(**batch), device)
            if round_number:
                seconds.append(elapsed)
    for run, (_, _, seconds) in zip(runs, prepared, strict=True):
        run.metrics['samples_per_second'] = batch_size / statistics.median(seconds)


def sample_runs(runs: Sequence[Run], num_samples: int, device: str) -> list[list]:
    """The first samples of each run's own requests."""
    samples = []
    for run in runs:
        model, batch = _model_and_batch(run, num_samples, device)
        samples.append(model.predict(**batch))
    return samples


def _model_and_batch(run: Run, batch_size: int, device: str):
    import torch
    from mmengine.config import Config

    from mmsparsedit.registry import DATASETS

    from .inference import init_model

    config = Config.fromfile(run.config)
    model = init_model(config, run.checkpoint, device)
    loader = config.get('val_dataloader') or config.test_dataloader
    requests = DATASETS.build(loader.dataset)
    items = [requests[i % len(requests)] for i in range(batch_size)]
    return model, torch.utils.data.default_collate(items)


def runs_table(runs: Sequence[Run], keys: Sequence[str] | None = None) -> list[str]:
    """Markdown lines: a row per name, in order of appearance, a column per metric.

    Runs of one name are repetitions with other seeds: their mean and, behind ±, their standard
    deviation (n - 1) are shown.

    Args:
        keys: metrics; by default all that the runs share. The part after the last slash heads the
            column, or what follows ``=`` in ``'key=heading'``.

    Raises:
        ConfigError: a metric that a run does not have.
    """
    shared = set.intersection(*(set(run.metrics) for run in runs))
    columns = [key.partition('=')[::2] for key in keys or sorted(shared)]
    unknown = sorted({key for key, _ in columns} - shared)
    if unknown:
        raise ConfigError(f'metrics {unknown} are not in all runs: use {sorted(shared)}.')
    headings = [label or key.split('/')[-1].replace('_', ' ') for key, label in columns]
    rows = []
    for name in dict.fromkeys(run.name for run in runs):
        same = [run for run in runs if run.name == name]
        rows.append(
            [f'`{name}`', *(_spread([run.metrics[key] for run in same]) for key, _ in columns)]
        )
    lines = [['run', *headings], ['---'] + ['---:'] * len(headings), *rows]
    return ['| ' + ' | '.join(line) + ' |' for line in lines]


def _spread(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    if len(values) == 1 or max(values) == min(values):
        return f'{mean:.4g}'
    spread = statistics.stdev(values)
    # as many digits as the spread makes worth printing
    digits = 2 if spread < 1 else 1
    return f'{mean:.{digits}f} ± {spread:.{digits}f}'
