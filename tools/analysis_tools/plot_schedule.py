"""Draw a prune schedule: ``python tools/analysis_tools/plot_schedule.py CONFIG --out s.png``."""

import argparse
from pathlib import Path

from mmsparsedit.apis.launch import ConfigError, load_config, parse_options, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Pruning rate, tokens and GMACs over timesteps and over the steps of the '
        "config's sampler."
    )
    parser.add_argument('config')
    parser.add_argument('--out', help='PNG to write (default: CONFIG_schedule.png)')
    parse_options(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    import math

    import torch
    from mmengine.registry import init_default_scope

    from mmsparsedit.nn.flops import count_macs
    from mmsparsedit.registry import MODELS

    config = load_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmsparsedit'))
    with torch.device('meta'):
        generator = MODELS.build(config.model)
    prune = generator.prune
    if prune is None:
        raise ConfigError(f'{args.config} has no prune schedule: a dense model reads all tokens.')
    generator.to('meta')
    macs = {s.grid: count_macs(generator.network, s.grid).gmacs for s in prune.stages}
    calls = generator.sampler.timesteps(generator.diffusion)
    times = list(range(prune.num_timesteps))
    out = Path(args.out or f'{Path(args.config).stem}_schedule.png')
    draw(
        out,
        title=f'{Path(args.config).stem}: {type(generator.sampler).__name__}, {len(calls)} calls',
        rates=[prune.rate_at(t) for t in times],
        over_t=[prune.stage_at(t) for t in times],
        over_steps=[prune.stage_at(t) for t in calls],
        tokens=math.prod,
        macs=macs,
    )
    print(f'schedule drawn in {out}')


def draw(out: Path, title, rates, over_t, over_steps, tokens, macs) -> None:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(3, 2, figsize=(10, 8), sharex='col', constrained_layout=True)
    figure.suptitle(title)
    for column, (stages, label) in enumerate(
        ((over_t, 'timestep t (0 clean)'), (over_steps, 'sampler step (0 noise)'))
    ):
        series = (
            ('pruning rate r', [s.rate for s in stages]),
            ('tokens', [tokens(s.grid) for s in stages]),
            ('GMACs a call', [macs[s.grid] for s in stages]),
        )
        for axis, (name, values) in zip(rows[:, column], series, strict=True):
            axis.plot(values, drawstyle='steps-post', color='C0', label='stages')
            axis.set_ylabel(name)
            axis.grid(alpha=0.3)
        rows[2, column].set_xlabel(label)
        mean = sum(macs[s.grid] for s in stages) / len(stages)
        rows[2, column].axhline(mean, color='C1', linestyle='--', label=f'mean {mean:.4g}')
        rows[2, column].legend()
    rows[0, 0].plot(rates, color='C1', linestyle='--', label='Eq. 5')
    rows[0, 0].legend()
    begin = 0
    for stage in dict.fromkeys(over_t):
        count = over_t.count(stage)
        rows[1, 0].annotate(
            'x'.join(map(str, stage.grid)), (begin + count / 2, tokens(stage.grid)),
            textcoords='offset points', xytext=(0, 4), ha='center',
        )  # fmt: skip
        begin += count
    figure.savefig(out, dpi=110)


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
