"""A prune schedule as a picture: rate, tokens and cost over timesteps and over sampler steps."""

import math
from pathlib import Path

import torch

from mmsparsedit.registry import MODELS

from .cost import cost_report
from .launch import ConfigError


def plot_schedule(model_config: dict, name: str, out: str | Path) -> None:
    """Draw the schedule of a generator's config as a PNG; nothing is allocated.

    Raises:
        ConfigError: the model is dense.
    """
    with torch.device('meta'):
        generator = MODELS.build(model_config)
    prune = generator.prune
    if prune is None:
        raise ConfigError(f'{name} has no prune schedule: a dense model reads all tokens.')
    macs = {tuple(row['grid']): row['gmacs'] for row in cost_report(model_config)['stages']}
    calls = generator.sampler.timesteps(generator.diffusion)
    times = range(prune.num_timesteps)

    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(3, 2, figsize=(10, 8), sharex='col', constrained_layout=True)
    figure.suptitle(f'{name}: {type(generator.sampler).__name__}, {len(calls)} calls')
    over_t = [prune.stage_at(t) for t in times]
    over_steps = [prune.stage_at(t) for t in calls]
    for column, (stages, label) in enumerate(
        ((over_t, 'timestep t (0 clean)'), (over_steps, 'sampler step (0 noise)'))
    ):
        cost = [macs[s.grid] for s in stages]
        series = (
            ('pruning rate r', [s.rate for s in stages]),
            ('tokens', [math.prod(s.grid) for s in stages]),
            ('GMACs a call', cost),
        )
        for axis, (quantity, values) in zip(rows[:, column], series, strict=True):
            axis.plot(values, drawstyle='steps-post', color='C0', label='stages')
            axis.set_ylabel(quantity)
            axis.grid(alpha=0.3)
        rows[2, column].set_xlabel(label)
        mean = sum(cost) / len(cost)
        rows[2, column].axhline(mean, color='C1', linestyle='--', label=f'mean {mean:.4g}')
        rows[2, column].legend()
    rows[0, 0].plot([prune.rate_at(t) for t in times], color='C1', linestyle='--', label='Eq. 5')
    rows[0, 0].legend()
    for stage in prune.stages:
        rows[1, 0].annotate(
            'x'.join(map(str, stage.grid)),
            ((stage.t_start + stage.t_end) / 2, math.prod(stage.grid)),
            textcoords='offset points', xytext=(0, 4), ha='center',
        )  # fmt: skip
    figure.savefig(out, dpi=110)
    plt.close(figure)
