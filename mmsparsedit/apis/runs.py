"""Finished trainings and tests side by side: what their work dirs say, as one table."""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmsparsedit.utils.files import read_json

from .config_files import check_types, read_config, recorded_config
from .documents import markdown_table
from .launch import ConfigError, load_config, parse_options

# top-level keys of a config that a result depends on, randomness through its seed
DECIDING = (
    'model',
    'train_dataloader',
    'val_dataloader',
    'val_evaluator',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'randomness',
)


@dataclass
class Run:
    """A work dir of ``tools/train.py`` or ``tools/test.py``: config, checkpoint and metrics."""

    name: str  # of the config; or of the folder
    config: str
    checkpoint: str
    metrics: dict[str, float] = field(default_factory=dict)
    recipe: dict = field(default_factory=dict, repr=False)  # DECIDING of its config
    trusted: bool = False  # its config may run as a program

    def figures(self) -> dict:
        """What a file of figures keeps of it."""
        hidden = ('recipe', 'trusted')
        return {key: value for key, value in vars(self).items() if key not in hidden}


def read_run(folder: str | Path, named_by_folder: bool = False, trusted: bool = False) -> Run:
    """The run of a work dir: a training with its newest checkpoint, or a test with the one it had.

    Args:
        named_by_folder: where one config was tested with several options.
        trusted: whether its config may run as a program and build any class. By default it is read
            as data and builds registered classes only.

    Raises:
        ConfigError: the folder is not that of a finished training with validation, or of a test.
    """
    folder = Path(folder)
    last, metrics = folder / 'last_checkpoint', folder / 'metrics.json'
    configs = sorted(folder.glob('*.py'))
    config = {}
    if len(configs) == 1:
        config = read_config(configs[0]) if trusted else recorded_config(configs[0])
    checkpoint = None
    if last.is_file():  # the folder may have moved since it was written
        name = Path(last.read_text(errors='replace').strip()).name
        checkpoint = str(folder / name) if name else None
    elif config.get('test_cfg') is not None:
        checkpoint = config.get('load_from')
    if checkpoint is None or not metrics.is_file() or len(configs) != 1:
        raise ConfigError(
            f'{folder}: got {len(configs)} configs, checkpoint {checkpoint or "missing"}, '
            f'metrics.json {"there" if metrics.is_file() else "missing"}; expected the work dir of '
            'one finished training with validation, or of one finished test.'
        )
    found = read_json(metrics, advice='Run the validation or the test again.').get('metrics')
    if not isinstance(found, dict) or not all(isinstance(v, int | float) for v in found.values()):
        raise ConfigError(f'{metrics} is damaged: expected "metrics", numbers by name.')
    name = folder.resolve().name if named_by_folder else configs[0].stem
    return Run(name, str(configs[0]), checkpoint, found, _recipe(config), trusted)


def recipe_of(config: str | Path, options: Sequence[str] = ()) -> dict:
    """What decides the result of a config with ``--cfg-options``, but for the weights it loads."""
    parser = argparse.ArgumentParser()
    parse_options(parser)
    given = parser.parse_args(['--cfg-options', *options]).cfg_options
    return _recipe(load_config(str(config), given))


def check_same(folder: str | Path, config: str | Path, options: Sequence[str]) -> None:
    """Refuse a work dir whose result another config, or other ``--cfg-options``, made.

    Raises:
        ConfigError: with the keys that differ.
    """
    asked = recipe_of(config, options)
    made = _recipe(recorded_config(Path(folder) / Path(config).name))
    if differing := _differing(asked, made):
        raise ConfigError(
            f'{folder} holds a run with another {differing}: delete it, or name another --work-dir.'
        )


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


def nearest_real(run: Run, samples: Sequence) -> list[dict]:
    """For each sample the nearest image that its run was trained on: ``image`` and ``distance``.

    The images are those that ``RealImagesMetric`` of its config compares with; the distance is the
    metric's, root mean square of pixels in [0, 1].

    Raises:
        ConfigError: the run was judged by another metric.
    """
    import torch

    from mmsparsedit.evaluation.real_images import nearest
    from mmsparsedit.registry import DATASETS
    from mmsparsedit.utils.uint8 import to_uint8

    config = _config_of(run)
    evaluator = config.get('val_evaluator') or config.test_evaluator
    if not isinstance(evaluator, dict) or evaluator.get('type') != 'RealImagesMetric':
        raise ConfigError(
            f'{run.config}: nearest images are those of RealImagesMetric, and the evaluator is '
            f'{evaluator}.'
        )
    if not run.trusted:
        check_types([evaluator.train], run.config)
    items = DATASETS.build(evaluator.train)
    real = to_uint8(torch.stack([items[i]['inputs'] for i in range(len(items))]), 'round')
    distances, places = nearest(torch.stack([sample.image for sample in samples]), real)
    return [
        dict(image=real[place], distance=distance)
        for place, distance in zip(places.tolist(), distances.tolist(), strict=True)
    ]


def runs_picture(
    runs: Sequence[Run], samples: Sequence[list], neighbours: Sequence[list[dict]] | None = None
):
    """The samples of each run under a heading: dense or sparse, its GMACs and its seconds.

    Images of the runs stand one below the other, clips side by side, as rows of frames.

    Args:
        neighbours: what ``nearest_real`` found for each run; shown under its samples.
    """
    from mmsparsedit.visualization import contact_sheet, labelled_grid, under_headings

    parts = []
    for run, found, real in zip(runs, samples, neighbours or [()] * len(runs), strict=True):
        captions = [str(sample.get('prompt', sample.get('label', ''))) for sample in found]
        if clips := 'video' in found[0]:
            picture = contact_sheet([sample.video for sample in found], captions, cell=48)
        else:
            images = [sample.image for sample in found]
            height, width = images[0].shape[-2:]
            cell = 240 if width > height else 120 if 'prompt' in found[0] else 64
            layout = dict(columns=min(10, max(4, 1024 // max(cell, width)), len(found)), cell=cell)
            picture = labelled_grid(images, captions, **layout)
        parts.append((run_heading(run), picture))
        if real:
            distances = [f'{one["distance"]:.2f}' for one in real]
            picture = labelled_grid([one['image'] for one in real], distances, **layout)
            parts.append(('the nearest training image of each, and its distance', picture))
    return under_headings(parts, beside=clips)


def run_heading(run: Run) -> str:
    """``dense: dit_digits, 1.48 GMACs and 0.1 s a sample``, with what of it is known."""
    kind = 'sparse' if (run.recipe.get('model') or {}).get('prune') else 'dense'
    costs = []
    if gmacs := run.metrics.get('cost/gmacs_per_sample'):
        costs.append(f'{gmacs:,.4g} GMACs')
    if speed := run.metrics.get('samples_per_second'):
        costs.append(f'{1 / speed:.3g} s')
    return f'{kind}: {run.name}' + (f', {" and ".join(costs)} a sample' if costs else '')


def _config_of(run: Run):
    return read_config(run.config) if run.trusted else recorded_config(run.config)


def _model_and_batch(run: Run, batch_size: int, device: str):
    import torch

    from mmsparsedit.registry import DATASETS

    from .inference import init_model

    config = _config_of(run)
    loader = config.get('val_dataloader') or config.test_dataloader
    if not run.trusted:
        check_types([config.model, loader.dataset], run.config)
    model = init_model(config, run.checkpoint, device)
    requests = DATASETS.build(loader.dataset)
    items = [requests[i % len(requests)] for i in range(batch_size)]
    return model, torch.utils.data.default_collate(items)


def runs_table(
    runs: Sequence[Run], keys: Sequence[str] | None = None, partial: bool = False
) -> list[str]:
    """Markdown lines: a row per name, in order of appearance, a column per metric.

    Runs of one name are repetitions with other seeds: their mean and, behind ±, their standard
    deviation (n - 1) are shown. All else that decides a result must be the same in them.

    Args:
        keys: metrics; by default all that the runs share. The part after the last slash heads the
            column, or what follows ``=`` in ``'key=heading'``.
        partial: a dash stands for what a run does not have.

    Raises:
        ConfigError: a metric that a run does not have; runs of one name that differ in more than
            their seed.
    """
    shared = set.intersection(*(set(run.metrics) for run in runs))
    columns = [key.partition('=')[::2] for key in keys or sorted(shared)]
    unknown = sorted({key for key, _ in columns} - shared)
    if unknown and not partial:
        raise ConfigError(f'metrics {unknown} are not in all runs: use {sorted(shared)}.')
    headings = [label or key.split('/')[-1].replace('_', ' ') for key, label in columns]
    rows = []
    for name in dict.fromkeys(run.name for run in runs):
        same = [run for run in runs if run.name == name]
        for run in same[1:]:
            if differing := _differing(same[0].recipe, run.recipe, but='randomness'):
                raise ConfigError(
                    f'{Path(same[0].config).parent} and {Path(run.config).parent} are runs of '
                    f'{name} with another {differing}, not seeds of one: compare them with '
                    '--by-folder.'
                )
        rows.append(
            [f'`{name}`', *(_spread([run.metrics.get(key) for run in same]) for key, _ in columns)]
        )
    return markdown_table([['run', *headings], *rows])


def _recipe(config) -> dict:
    recipe = {key: config.get(key) for key in DECIDING}
    if distillation := (recipe['model'] or {}).get('distillation'):
        # the teacher is a file of weights
        distillation = {key: value for key, value in distillation.items() if key != 'teacher'}
        recipe['model'] = {**recipe['model'], 'distillation': distillation}
    return recipe


def _differing(recipe: dict, other: dict, but: str = '') -> str:
    """Names of the keys that two recipes differ in."""
    return ', '.join(k for k in DECIDING if k != but and recipe.get(k) != other.get(k))


def _spread(values: Sequence[float | None]) -> str:
    if None in values:
        return '–'
    mean = statistics.fmean(values)
    if len(values) == 1 or max(values) == min(values):
        return f'{mean:.4g}'
    spread = statistics.stdev(values)
    # as many digits as the spread makes worth printing
    digits = 2 if spread < 1 else 1
    return f'{mean:.{digits}f} ± {spread:.{digits}f}'
