"""The file of a run's metrics, with the recipe of what decides them."""

import json
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmsparsedit.evaluation.recipe import build_recipe, write_result
from mmsparsedit.models.cost import cost_metrics

from .bare import bare_model

# of a config, what decides a result: not where it is written, nor by how many processes
_DECIDING = ('model', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator')


def write_metrics(runner, metrics: dict, path: Path) -> None:
    """Add the cost to the metrics of a validation or test, and write them with their recipe."""
    try:
        metrics.update(cost_metrics(bare_model(runner)))
    except ValueError as error:
        runner.logger.warning(f'no cost among the metrics: {error}')
    kept = {key: runner.cfg[key] for key in _DECIDING if runner.cfg.get(key) is not None}
    sampling = sampling_recipe(runner)
    steps = getattr(bare_model(runner).sampler, 'num_steps', None)
    if steps is not None:  # fewer than the config says in a ``SampledValLoop``
        sampling['model']['sampler']['num_steps'] = steps
    loop = runner.val_loop if runner._test_loop is None else runner.test_loop
    recipe = build_recipe(
        config=Config(kept, filename=runner.cfg.filename),
        checkpoint=runner._load_from if runner._train_loop is None else None,
        sampling=sampling,
        metrics=loop.evaluator.metrics,
    )
    write_result(path, metrics, recipe)


def sampling_recipe(runner) -> dict:
    """What decides the samples of a run besides its weights, as plain values."""
    loader = runner.cfg.get('test_dataloader') or runner.cfg.get('val_dataloader')
    recipe = ConfigDict(model=runner.cfg.model, requests=loader['dataset']).to_dict()
    return json.loads(json.dumps(recipe, default=str))
