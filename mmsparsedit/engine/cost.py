"""The cost of a generator as hooks and results state it."""

from mmsparsedit.models.cost import (
    TRAINING_MACS_PER_FORWARD,
    macs_by_grid,
    trajectory_calls,
    trajectory_macs,
)


def training_macs(generator) -> dict:
    """MACs of forward and backward pass on one sample, for each grid."""
    return {g: m * TRAINING_MACS_PER_FORWARD for g, m in macs_by_grid(generator).items()}


def cost_metrics(generator) -> dict[str, float]:
    """GMACs of one network call: per stage, mean over t, mean over the sampler's own calls; network
    evaluations of one sample, and its GMACs with guidance and step cache."""
    macs, calls = macs_by_grid(generator), trajectory_calls(generator)
    costs = {
        'cost/nfe': float(sum(1 + call.guided for call in calls)),
        'cost/gmacs_mean_sampler': sum(macs[call.grid] for call in calls) / len(calls) / 1e9,
        'cost/gmacs_per_sample': trajectory_macs(generator, macs) / 1e9,
    }
    if generator.prune is None:
        costs['cost/gmacs_mean_t'] = macs[None] / 1e9
        return costs
    stages = generator.prune.stages
    total = sum(macs[s.grid] * s.num_timesteps for s in stages)
    costs['cost/gmacs_mean_t'] = total / generator.prune.num_timesteps / 1e9
    for stage in stages:
        costs[f'cost/gmacs_stage{stage.index}'] = macs[stage.grid] / 1e9
    return costs
