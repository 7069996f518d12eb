"""A structure for a budget: measured, searched, measured as a whole, and written as a config."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from mmsparsedit.models import noisy_batches
from mmsparsedit.models.cost import macs_by_grid, network_macs, trajectory_calls, trajectory_macs
from mmsparsedit.models.distillation import load_teacher
from mmsparsedit.prune import Stage
from mmsparsedit.registry import MODELS

from ..budget import dense_cost
from ..calibration import training_batches
from ..schedule_plot import dense_model
from .search import Candidate, search
from .sensitivity import Probe, Sensitivity, measure
from .structure import Grid, Layout, grids_of


@dataclass(frozen=True)
class Judged:
    """A structure measured as a whole.

    Attributes:
        shown: in words.
        network, prune: their configs.
        share: of the dense model's MACs for one sample, exact.
        distance: of its output to the dense model's before any training, squared and relative,
            mean over the sampler's calls.
        predicted: the sum of what its segments do alone; None for the config's own.
    """

    shown: str
    network: dict = field(repr=False)
    prune: dict = field(repr=False)
    share: float
    distance: float
    predicted: float | None = None

    def __str__(self) -> str:
        sizes = ', '.join('x'.join(map(str, grid)) for grid in self.prune.get('grids', ()))
        predicted = '' if self.predicted is None else f' (segments alone {self.predicted:.4f})'
        return (
            f'{self.share:.4f} of the MACs, distance {self.distance:.4f}{predicted}: {self.shown}'
            + (f', grids {sizes}' if sizes else '')
        )


@dataclass(frozen=True)
class Plan:
    """The result: structures, least distance first; the config's own where it is sparse."""

    judged: list[Judged]
    own: Judged | None
    sensitivity: Sensitivity


def plan_structure(
    config: Mapping[str, Any],
    checkpoint: str | os.PathLike,
    budget: float,
    *,
    source: str = 'auto',
    most_pooled: int = 4,
    most_sparse: int = 5,
    frames: int | None = None,
    fit_batches: int = 2,
    batch_size: int | None = None,
    finalists: int = 4,
    seed: int = 0,
    device: str | torch.device = 'cpu',
    progress=lambda text: None,
) -> Plan:
    """Segments, module boundaries and grids within a budget that stay near a dense model's output.

    Stages are those of the config's schedule, or T/4 and three equal pieces above it.

    Args:
        config: whole, with training data; its network may be dense or sparse.
        checkpoint, source: of the dense model, as ``load_pretrained`` takes them.
        budget: share of the dense model's MACs for one sample of the config's sampler.
        most_pooled, most_sparse: see ``measure``.
        frames: of the sparse grids of a video.
        fit_batches: for each stage and grid.
        finalists: candidates that are measured as a whole.
        progress: told what is being done.

    Raises:
        ValueError: a budget out of reach.
    """
    model = {**config['model'], 'acceleration': None, 'distillation': None, 'lora': None}
    with torch.device('meta'):
        template = MODELS.build(model)
    depth = template.network.depth
    layout = Layout(depth, video=len(template.data_shape) == 4)
    token_grid = tuple(template.network.token_grid)
    generator = MODELS.build(dense_model(model, depth)).to(device).eval()
    stages = _stages(template)
    if template.prune is not None and layout.video and frames is None:
        frames = template.prune.stages[0].grid[0]
    grids = grids_of(token_grid, frames)
    weights = _weights(generator, stages)

    teacher = load_teacher(model['network'], depth, checkpoint, source).to(device)
    counts = len(stages) * len(grids) * fit_batches
    data = training_batches(generator, config, counts + len(stages), batch_size, seed)
    noisy = noisy_batches(generator, data, stages, seed)
    judging = list(islice(noisy, len(stages)))
    fitting = [
        {**batch, 'grid': grids[i // len(stages) % len(grids)]} for i, batch in enumerate(noisy)
    ]
    probe = Probe(teacher, fitting, judging, generator.diffusion.channel_dim)

    found = measure(model['network'], layout, probe, grids, most_pooled, most_sparse, progress)
    ranked = search(found, weights, budget * network_macs(teacher).total)
    prune = dict(
        type='TimestepPruneScheduler',
        boundaries=[stage.t_start for stage in stages[1:]],
        token_grid=token_grid,
        num_timesteps=generator.diffusion.num_train_timesteps,
    )
    dense = dense_cost(model, depth)
    judged = []
    for candidate in ranked[:finalists]:
        progress(str(candidate.structure))
        network = candidate.structure.network(model['network'])
        schedule = dict(prune, grids=list(candidate.grids))
        judged.append(_judge(model, network, schedule, dense, probe, weights, candidate))
    own = None
    if template.prune is not None:
        progress("the config's own")
        own = _judge(model, model['network'], model['prune'], dense, probe, weights)
    return Plan(sorted(judged, key=lambda each: each.distance), own, found)


def _stages(template) -> list[Stage]:
    if template.prune is not None:
        return list(template.prune.stages)
    T, grid = template.diffusion.num_train_timesteps, tuple(template.network.token_grid)
    edges = [0, T // 4, T // 2, 3 * T // 4, T]
    return [Stage(i, edges[i], edges[i + 1], grid, 0.0) for i in range(4)]


def _weights(generator, stages: Sequence[Stage]) -> list[float]:
    """The share of network evaluations of a sample in each stage; guidance counts twice."""
    times = generator.sampler.timesteps(generator.diffusion)
    totals = [0.0] * len(stages)
    for t, call in zip(times, trajectory_calls(generator), strict=True):
        inside = [k for k, stage in enumerate(stages) if stage.t_start <= t]
        totals[inside[-1]] += 1 + call.guided
    return [total / sum(totals) for total in totals]


def _judge(
    model: Mapping[str, Any],
    network: dict,
    prune: dict,
    dense: int,
    probe: Probe,
    weights: Sequence[float],
    candidate: Candidate | None = None,
) -> Judged:
    """Build a structure, fit it, and measure what it costs, beside ``dense``, and does."""
    with torch.device('meta'):
        generator = MODELS.build({**model, 'network': network, 'prune': prune, 'cfg_prune': None})
    share = trajectory_macs(generator, macs_by_grid(generator)) / dense
    fitted = probe.fitted(network)
    grids: list[Grid] = [stage.grid for stage in generator.prune.stages]
    distance = sum(
        weight * probe.distance(fitted, k, grid)
        for k, (weight, grid) in enumerate(zip(weights, grids, strict=True))
    )
    if candidate is None:
        shown, predicted = "the config's own", None
    else:
        shown, predicted = str(candidate.structure), candidate.predicted
    return Judged(shown, network, {**prune}, share, distance, predicted)


def planned_config(
    base: str | Path,
    out: str | Path,
    config: Mapping[str, Any],
    chosen: Judged,
    checkpoint: str | os.PathLike,
    budget: float,
) -> str:
    """The text of a config for fine-tuning, which inherits from the planned one.

    Args:
        base, out: files of the planned config and of the new one.
    """
    path = os.path.relpath(Path(base).resolve(), Path(out).resolve().parent)
    if not path.startswith('.'):
        path = f'./{path}'
    names = ('num_bottom', 'num_sdtm', 'num_top', 'sdtm')
    network = {key: chosen.network[key] for key in names}
    sdtm = network.pop('sdtm')
    prune = dict(chosen.prune)
    before = config['model'].get('prune') or {}
    if 'per_rank' in before:  # how stages are drawn, whatever they are
        prune['per_rank'] = before['per_rank']
    fresh = dict(_delete_=True) if before else {}
    lines = [
        f'# Planned for {budget:.3g} of the dense MACs (exactly {chosen.share:.4f}); distance of '
        f'the output before',
        f"# training, squared and relative to the dense model's: {chosen.distance:.4f}.",
        f'_base_ = {path!r}',
        '',
        f'load_from = {os.fspath(checkpoint)!r}',
        'model = dict(',
        '    network=dict(',
        *(f'        {key}={value!r},' for key, value in network.items()),
    ]
    if isinstance(sdtm, list):
        lines += ['        sdtm=[', *(f'            {_call(each)},' for each in sdtm), '        ],']
    else:
        lines.append(f'        sdtm={_call(sdtm)},')
    lines += [
        '    ),',
        '    prune=dict(',
        *(f'        {key}={value!r},' for key, value in {**fresh, **prune}.items()),
        '    ),',
        ')',
    ]
    return '\n'.join(lines) + '\n'


def _call(values: Mapping[str, Any]) -> str:
    return f'dict({", ".join(f"{key}={value!r}" for key, value in values.items())})'
