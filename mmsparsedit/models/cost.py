"""Multiply-accumulates of a generator's network calls: by grid, and over a sampler's trajectory.

What one call costs is ``mmsparsedit.nn.flops``; which calls there are follows here from prune
schedule, sampler, guidance and step cache.
"""

from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from mmsparsedit.nn.flops import count_macs, on_meta
from mmsparsedit.nn.step_cache import StepCache

# a backward pass costs two forward passes: one product for inputs, one for weights
TRAINING_MACS_PER_FORWARD = 3

Grid = tuple[int, ...] | None


class Call(NamedTuple):
    """A network call of a sampler, as far as its cost goes.

    Attributes:
        guided: with guidance, on both halves of the batch.
        reused: the step cache spares the middle segment.
    """

    grid: Grid
    guided: bool
    reused: bool


def trajectory_calls(generator) -> list[Call]:
    """The network calls of one trajectory, in their order."""
    prune, guidance = generator.prune, generator.guidance
    stages = [
        (None if prune is None else prune.grid_at(t), guidance.active_at(t))
        for t in generator.sampler.timesteps(generator.diffusion)
    ]
    reused = StepCache(generator.acceleration.cache_interval).plan(stages)
    return [Call(*stage, r) for stage, r in zip(stages, reused, strict=True)]


def macs_by_grid(generator) -> dict[Grid, int]:
    """MACs of one network call on one sample, for each grid the generator can be at."""
    prune, network = generator.prune, _whole(generator.network)
    grids = [None] if prune is None else [stage.grid for stage in prune.stages]
    return {grid: count_macs(network, grid).total for grid in dict.fromkeys(grids)}


def call_macs(generator, calls: Iterable[Call], counted: dict[Grid, int]) -> dict[Call, int]:
    """MACs per sample of each distinct call, both halves of guidance counted.

    Args:
        counted: MACs of one network call by grid, as of ``macs_by_grid``.
    """
    outer = None
    if any(call.reused for call in calls):
        bare = on_meta(_whole(generator.network))
        bare.middle = nn.ModuleList()  # what runs around a kept residual
        outer = count_macs(bare).total
    return {
        call: (outer if call.reused else counted[call.grid]) * (1 + call.guided)
        for call in set(calls)
    }


def trajectory_macs(generator, counted: dict[Grid, int]) -> int:
    """MACs of one trajectory on one sample: guidance and step cache as they are set."""
    calls = trajectory_calls(generator)
    macs = call_macs(generator, calls, counted)
    return sum(macs[call] for call in calls)


def _whole(network: nn.Module) -> nn.Module:
    """The network; of one that is divided among processes, its blueprint."""
    return getattr(network, 'blueprint', [network])[0]
