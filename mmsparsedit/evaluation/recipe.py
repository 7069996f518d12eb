"""The recipe of a result: everything that decides the numbers, as JSON values.

A number of FID or FVD without it cannot be compared. There is no time, host or duration in it, so
an interrupted and an uninterrupted run write the same file.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmsparsedit.utils.files import sha256_of, write_text

from .cache import digest_of

PACKAGES = ('mmsparsedit', 'torch', 'mmengine', 'numpy', 'scipy', 'torch-fidelity')


def build_recipe(
    config: str | os.PathLike | Any | None = None,
    checkpoint: str | os.PathLike | None = None,
    sampling: Mapping | None = None,
    metrics: Iterable = (),
    samples: Mapping | None = None,
) -> dict:
    """The recipe of an evaluation.

    Args:
        config: path of a config, or an ``mmengine.Config`` (its text is hashed).
        checkpoint: file or folder, recorded by name and SHA-256; a URL by name alone.
        sampling: what decides the samples, as given: sampler, steps, guidance (scale, channels),
            autoencoder, prune schedule, precision, seed.
        metrics: metrics of the evaluator, asked for ``describe()`` after the evaluation; those
            without it are named only.
        samples: where the samples come from, when they were made elsewhere.

    Returns:
        A dict of JSON values, with the versions of the packages.
    """
    recipe: dict = {}
    if config is not None:
        recipe['config'] = _describe_config(config)
    if checkpoint is not None:
        recipe['checkpoint'] = {'path': str(checkpoint), 'sha256': digest_of(checkpoint)}
    if sampling is not None:
        recipe['sampling'] = dict(sampling)
    if samples is not None:
        recipe['samples'] = dict(samples)
    recipe['metrics'] = [
        metric.describe() if hasattr(metric, 'describe') else {'metric': type(metric).__name__}
        for metric in metrics
    ]
    recipe['versions'] = package_versions()
    return json.loads(json.dumps(recipe, default=str))


def package_versions() -> dict[str, str | None]:
    """Versions of what computes the numbers; None for what is not installed."""
    versions: dict[str, str | None] = {'python': platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def write_result(path: str | os.PathLike, metrics: Mapping, recipe: Mapping) -> None:
    """Write metrics and recipe as one JSON file, whole or not at all."""
    text = json.dumps({'metrics': dict(metrics), 'recipe': dict(recipe)}, indent=2, sort_keys=True)
    write_text(path, f'{text}\n')


def _describe_config(config: str | os.PathLike | Any) -> dict:
    if isinstance(config, str | os.PathLike):
        return {'path': str(config), 'sha256': sha256_of(config)}
    text = config.pretty_text
    name = Path(config.filename).name if config.filename else None
    return {'path': name, 'sha256': hashlib.sha256(text.encode()).hexdigest()}
