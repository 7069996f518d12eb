"""What a generator costs: by grid, over timesteps, and over a sampler's trajectory.

What one call costs is ``mmsparsedit.nn.flops``; which calls there are follows here from prune
schedule, sampler, guidance and the method that spares calls. All costs are of one sample.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import nn

from mmsparsedit.nn.flops import PARTS, MacCount, count_macs, count_read_once
from mmsparsedit.nn.meta import on_meta

from .paper_count import AS_AUTHORS, ONES, extra_macs

# a backward pass costs two forward passes: one product for inputs, one for weights
TRAINING_MACS_PER_FORWARD = 3

Grid = tuple[int, ...] | None

_COUNTED: WeakKeyDictionary[nn.Module, dict[Grid, MacCount]] = WeakKeyDictionary()
_READ_ONCE: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


class Call(NamedTuple):
    """A network call of a sampler, as far as its cost goes.

    Attributes:
        guided: with guidance, on both halves of the batch.
        reused: a method spares part of it.
        null_grid: of the unconditional half of guidance where it has a schedule of its own.
    """

    grid: Grid
    guided: bool
    reused: bool
    null_grid: Grid = None


def model_cost(generator) -> dict:
    """GMACs of a generator per network call and sample; guidance not counted in a call.

    Nothing is computed: the network is counted on the meta device.

    Returns:
        ``stages``: per stage t_start, t_end, grid, rate, ``gmacs`` in total and ``parts``, and what
        others count for the same: ``as_authors`` (``AS_AUTHORS`` added), ``as_authors_with_ones``
        and ``as_paper`` (the authors' code counted by fvcore); ``mean_t`` and ``mean_sampler``
        likewise, over uniform t and over the calls of the sampler; ``sampler``: its calls, those
        whose middle a step cache spares, its network evaluations, GMACs per sample with guidance,
        and GMACs of ``read_once`` among them; ``parameters``, tables and merges included.
    """
    network, prune = _whole(generator.network), generator.prune
    T = generator.diffusion.num_train_timesteps
    spans = (
        [(0, T, None, 0.0)]
        if prune is None
        else [(s.t_start, s.t_end, s.grid, s.rate) for s in prune.stages]
    )
    counts = {grid: network_macs(network, grid) for grid in dict.fromkeys(s[2] for s in spans)}
    rows = [_stage(network, *span, counts[span[2]]) for span in spans]
    calls = generator.sampler.timesteps(generator.diffusion)
    visited = [0 if prune is None else prune.stage_at(t).index for t in calls]
    made = trajectory_calls(generator)
    totals = {grid: count.total for grid, count in counts.items()}
    for grid in {call.null_grid for call in made} - {None}:
        totals[grid] = network_macs(network, grid).total
    return dict(
        stages=rows,
        mean_t=_mean(rows, [(row['t_end'] - row['t_start']) / T for row in rows]),
        mean_sampler=_mean(rows, [visited.count(i) / len(calls) for i in range(len(rows))]),
        sampler=dict(
            type=type(generator.sampler).__name__,
            calls=len(calls),
            nfe=sum(1 + call.guided for call in made),
            reused=sum(call.reused for call in made),
            gmacs_per_sample=trajectory_macs(generator, totals) / 1e9,
            gmacs_read_once=read_once_macs(generator) / 1e9,
        ),
        parameters=sum(value.numel() for value in network.state_dict().values()),
    )


def _stage(network, t_start: int, t_end: int, grid: Grid, rate: float, count: MacCount) -> dict:
    extra = extra_macs(network, grid)
    authors = count.total + sum(extra[name] for name in AS_AUTHORS)
    return dict(
        t_start=t_start,
        t_end=t_end,
        grid=None if grid is None else list(grid),
        rate=rate,
        gmacs=count.gmacs,
        parts={part: macs / 1e9 for part, macs in count.parts.items()},
        as_authors=authors / 1e9,
        as_authors_with_ones=(authors + extra[ONES]) / 1e9,
        as_paper=(count.total + sum(extra.values())) / 1e9,
    )


def _mean(rows: list[dict], weights: list[float]) -> dict:
    def mean(get: Callable[[dict], float]) -> float:
        return sum(weight * get(row) for row, weight in zip(rows, weights, strict=True))

    counters = ('gmacs', 'as_authors', 'as_authors_with_ones', 'as_paper')
    return dict(
        parts={part: mean(lambda row, part=part: row['parts'][part]) for part in PARTS},
        **{name: mean(lambda row, name=name: row[name]) for name in counters},
    )


def cost_metrics(generator) -> dict[str, float]:
    """``model_cost`` as numbers among the metrics of a run, under ``cost/``."""
    cost = model_cost(generator)
    metrics = {
        'cost/nfe': float(cost['sampler']['nfe']),
        'cost/gmacs_per_sample': cost['sampler']['gmacs_per_sample'],
        'cost/gmacs_mean_t': cost['mean_t']['gmacs'],
        'cost/gmacs_mean_sampler': cost['mean_sampler']['gmacs'],
    }
    if generator.prune is not None:
        for i, stage in enumerate(cost['stages']):
            metrics[f'cost/gmacs_stage{i}'] = stage['gmacs']
    return metrics


def training_macs(generator) -> dict[Grid, int]:
    """MACs of a training step, forward and backward, for each grid."""
    return {grid: TRAINING_MACS_PER_FORWARD * m for grid, m in macs_by_grid(generator).items()}


def network_macs(network: nn.Module, grid: Grid = None) -> MacCount:
    """``count_macs``, once for each network and grid: it traces the network, hooks ask often."""
    counts = _COUNTED.setdefault(network, {})
    if grid not in counts:
        counts[grid] = count_macs(network, grid)
    return counts[grid]


def trajectory_calls(generator) -> list[Call]:
    """The network calls of one trajectory, in their order.

    Of a method that decides by the data: those of the last trajectory that was sampled.

    Raises:
        ValueError: the method decides by the data, and nothing was sampled yet.
    """
    return sampled_calls(generator)[-1][1]


def sampled_calls(generator) -> list[tuple[int, list[Call]]]:
    """Trajectories with the number of samples that they made; one where all are alike."""
    prune, guidance, cfg_prune = generator.prune, generator.guidance, generator.cfg_prune
    method = generator.acceleration.method
    times = generator.sampler.timesteps(generator.diffusion)
    stages = [(None if prune is None else prune.grid_at(t), guidance.active_at(t)) for t in times]
    nulls = [
        cfg_prune.grid_at(t) if cfg_prune is not None and guided else None
        for t, (_, guided) in zip(times, stages, strict=True)
    ]
    if method is None:
        plans = [(1, [False] * len(times))]
    elif method.decides:
        plans = [(rows, made) for rows, made in method.made if len(made) == len(times)]
        if not plans:
            raise ValueError(
                f'{type(method).__name__} decides while it samples which calls it spares: its cost '
                'is known once something has been sampled.'
            )
    else:
        plans = [(1, method.plan(stages))]
    return [
        (rows, [Call(*s, r, null) for s, r, null in zip(stages, reused, nulls, strict=True)])
        for rows, reused in plans
    ]


def macs_by_grid(generator) -> dict[Grid, int]:
    """MACs of one network call, for each grid the generator can be at."""
    prune, network = generator.prune, _whole(generator.network)
    grids: list[Grid] = [None] if prune is None else [*prune.grids]
    grids += [] if generator.cfg_prune is None else generator.cfg_prune.grids
    return {grid: network_macs(network, grid).total for grid in dict.fromkeys(grids)}


def call_macs(generator, calls: Collection[Call], counted: dict[Grid, int]) -> dict[Call, int]:
    """MACs of each distinct call of a trajectory, both halves of guidance counted.

    Without ``read_once``, which is not part of a call.

    Args:
        counted: MACs of one network call by grid, as of ``macs_by_grid``.
    """
    network, acceleration = _whole(generator.network), generator.acceleration
    kinds = {(call.grid, call.reused) for call in calls}
    kinds |= {(call.null_grid, False) for call in calls if call.null_grid is not None}
    one = {kind: acceleration.call_macs(network, *kind) for kind in kinds}
    whole = _read_once(network)
    bare = on_meta(network)
    bare.middle = nn.ModuleList()  # at a grid without tokens
    outer = _read_once(bare)

    def half(grid: Grid, reused: bool) -> int:
        own = one[grid, reused]
        if own is None:
            own = counted[grid] - (whole if grid is None or any(grid) else outer)
        return own

    def macs(call: Call) -> int:
        first = half(call.grid, call.reused)
        if call.null_grid is not None:
            return first + half(call.null_grid, False)
        return first * (1 + call.guided)

    return {call: macs(call) for call in set(calls)}


def read_once_macs(generator) -> int:
    """MACs of what a trajectory computes once of its conditions (PixArt's captions)."""
    guidance = generator.guidance
    conditions = 1 if guidance.scale == 1 else 2 if guidance.interval is None else 3
    return conditions * _read_once(_whole(generator.network))


def _read_once(network: nn.Module) -> int:
    if network not in _READ_ONCE:
        _READ_ONCE[network] = count_read_once(network)
    return _READ_ONCE[network]


def trajectory_macs(generator, counted: dict[Grid, int]) -> int:
    """MACs of one trajectory as guidance, method and merging are set.

    Of a method that decides by the data: the mean per sample of what was sampled.
    """
    sampled = sampled_calls(generator)
    calls = [call for _, trajectory in sampled for call in trajectory]
    macs = call_macs(generator, calls, counted)
    total = sum(rows * macs[call] for rows, trajectory in sampled for call in trajectory)
    return read_once_macs(generator) + round(total / sum(rows for rows, _ in sampled))


def _whole(network: nn.Module) -> nn.Module:
    """The network; of a sharded one, its blueprint."""
    return getattr(network, 'blueprint', [network])[0]
