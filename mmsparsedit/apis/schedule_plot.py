"""A prune schedule as a picture: rate, tokens and cost over timesteps and over sampler steps."""

import math
from pathlib import Path

import torch

from mmsparsedit.models.distillation import dense_network
from mmsparsedit.registry import MODELS
from mmsparsedit.visualization import save_figure
from mmsparsedit.visualization.colours import DENSE, MEAN, SPARSE

from .cost import cost_report
from .launch import ConfigError


def dense_model(model_config: dict, depth: int) -> dict:
    """The config of a sparse model's dense counterpart: the same layers, each on all tokens."""
    network = dense_network(model_config['network'], depth)
    return {**model_config, 'network': network, 'prune': None, 'cfg_prune': None}


def plot_schedule(model_config: dict, name: str, out: str | Path) -> None:
    """Draw the schedule of a generator's config as a PNG; nothing is allocated.

    Rate, tokens and GMACs start at zero; a line says what the dense model has.

    Raises:
        ConfigError: the model is dense.
    """
    with torch.device('meta'):
        generator = MODELS.build(model_config)
    prune = generator.prune
    if prune is None:
        raise ConfigError(f'{name} has no prune schedule: a dense model reads all tokens.')
    macs = {tuple(row['grid']): row['gmacs'] for row in cost_report(model_config)['stages']}
    dense_cost = cost_report(dense_model(model_config, generator.network.depth))['mean_t']['gmacs']
    calls = generator.sampler.timesteps(generator.diffusion)
    times = range(prune.num_timesteps)
    num_dense = math.prod(prune.token_grid)

    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(
        3, 2, figsize=(10, 8.5), sharex='col', sharey='row', constrained_layout=True
    )
    figure.suptitle(f'{name}: {type(generator.sampler).__name__}, {len(calls)} calls')
    over_t = [prune.stage_at(t) for t in times]
    over_steps = [prune.stage_at(t) for t in calls]
    for column, (stages, label) in enumerate(
        ((over_t, 'timestep t (0 clean)'), (over_steps, 'sampler step (0 noise)'))
    ):
        cost = [macs[s.grid] for s in stages]
        series = (
            ('pruning rate r', [s.rate for s in stages], 0),
            ('tokens of the middle', [math.prod(s.grid) for s in stages], num_dense),
            ('GMACs a call', cost, dense_cost),
        )
        for axis, (quantity, values, dense) in zip(rows[:, column], series, strict=True):
            axis.axhline(dense, color=DENSE, linestyle=':', label=f'dense: {dense:.4g}')
            # the last value once more: the last step has a width too
            axis.plot([*values, values[-1]], drawstyle='steps-post', color=SPARSE, label='sparse')
            axis.set_ylabel(quantity)
            axis.grid(alpha=0.3)
            axis.set_ylim(0, 1 if dense == 0 else 1.12 * dense)
        rows[2, column].set_xlabel(label)
        mean = sum(cost) / len(cost)
        times_less = f'mean: {mean:.4g}, {dense_cost / mean:.2f} times less'
        rows[2, column].axhline(mean, color=MEAN, linestyle='--', label=times_less)
    rate = [prune.rate_at(t) for t in times]
    rows[0, 0].plot(rate, color=MEAN, linestyle='--', label='Eq. 5')
    for axis in (*rows[:, 0], rows[2, 1]):
        axis.legend(fontsize=9)
    for stage in prune.stages:
        rows[1, 0].annotate(
            'x'.join(map(str, stage.grid)),
            ((stage.t_start + stage.t_end) / 2, math.prod(stage.grid)),
            textcoords='offset points', xytext=(0, 4), ha='center',
        )  # fmt: skip
    save_figure(out, figure, dpi=110)
    plt.close(figure)
