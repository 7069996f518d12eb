"""The cost of a config's model: what ``get_flops.py`` prints."""

import torch

from mmsparsedit.models.cost import trajectory_calls, trajectory_macs
from mmsparsedit.nn.flops import PARTS, MacCount, count_macs
from mmsparsedit.registry import MODELS

from .documents import align


def cost_report(model_config: dict) -> dict:
    """GMACs per network call and sample, guidance not counted, of a generator's config.

    Nothing is allocated: the model is built and counted on the meta device.

    Returns:
        ``stages``: per stage t_start, t_end, grid, rate, ``gmacs`` by part and in total, and
        ``as_paper`` (values mapped before their mean, W1 after upsampling) without and with the
        product by ones; ``mean_t`` and ``mean_sampler`` likewise, over uniform t and over the
        calls of the sampler; ``sampler``: its calls, those whose middle a step cache spares, its
        network evaluations and GMACs per sample with guidance; ``parameters``, tables and merges
        included.
    """
    with torch.device('meta'):
        generator = MODELS.build(model_config)
    generator.to('meta')
    network, prune = generator.network, generator.prune
    T = generator.diffusion.num_train_timesteps
    spans = (
        [(0, T, None, 0.0)]
        if prune is None
        else [(s.t_start, s.t_end, s.grid, s.rate) for s in prune.stages]
    )
    counts = {grid: count_macs(network, grid) for grid in dict.fromkeys(s[2] for s in spans)}
    rows = [_stage_row(network, *span, counts[span[2]]) for span in spans]
    totals = {grid: count.total for grid, count in counts.items()}
    made = trajectory_calls(generator)
    calls = generator.sampler.timesteps(generator.diffusion)
    indices = [0 if prune is None else prune.stage_at(t).index for t in calls]
    return dict(
        stages=rows,
        mean_t=_mean(rows, [(row['t_end'] - row['t_start']) / T for row in rows]),
        mean_sampler=_mean(rows, [indices.count(i) / len(calls) for i in range(len(rows))]),
        sampler=dict(
            type=type(generator.sampler).__name__,
            calls=len(calls),
            nfe=sum(1 + call.guided for call in made),
            reused=sum(call.reused for call in made),
            gmacs_per_sample=trajectory_macs(generator, totals) / 1e9,
        ),
        parameters=sum(value.numel() for value in network.state_dict().values()),
    )


def _stage_row(network, t_start: int, t_end: int, grid, rate: float, count: MacCount) -> dict:
    extra = network.reference_extra_macs(grid)
    ones = extra.pop('ones product', 0)
    return dict(
        t_start=t_start,
        t_end=t_end,
        grid=None if grid is None else list(grid),
        rate=rate,
        gmacs=count.gmacs,
        parts={part: macs / 1e9 for part, macs in count.parts.items()},
        as_paper=(count.total + sum(extra.values())) / 1e9,
        as_paper_with_ones=(count.total + sum(extra.values()) + ones) / 1e9,
    )


def _mean(rows: list[dict], weights: list[float]) -> dict:
    def mean(get) -> float:
        return sum(weight * get(row) for row, weight in zip(rows, weights, strict=True))

    return dict(
        gmacs=mean(lambda row: row['gmacs']),
        parts={part: mean(lambda row, part=part: row['parts'][part]) for part in PARTS},
        as_paper=mean(lambda row: row['as_paper']),
        as_paper_with_ones=mean(lambda row: row['as_paper_with_ones']),
    )


def format_report(report: dict, name: str) -> str:
    """The report as a table of the terminal."""
    header = ['', 't', 'grid', 'r', 'GMACs', *PARTS, 'as paper', '+ ones']
    lines = [header]
    for i, row in enumerate(report['stages']):
        grid = 'dense' if row['grid'] is None else 'x'.join(map(str, row['grid']))
        span = f'{row["t_start"]}-{row["t_end"] - 1}'
        lines.append([f'stage {i}', span, grid, f'{row["rate"]:.3f}', *_figures(row)])
    lines.append(['mean over t', '', '', '', *_figures(report['mean_t'])])
    sampler = report['sampler']
    lines.append(
        [f'mean over {sampler["calls"]} calls', '', '', '', *_figures(report['mean_sampler'])]
    )
    return '\n'.join(
        [
            f'{name}: GMACs of one network call on one sample; norms, activations and guidance '
            'are not counted',
            *align(lines, left=3),
            f'sampler {sampler["type"]}: {sampler["calls"]} calls, {sampler["nfe"]} network '
            f'evaluations and {sampler["gmacs_per_sample"]:,.0f} GMACs a sample with guidance'
            + (f', {sampler["reused"]} calls reuse the middle' if sampler['reused'] else ''),
            f'parameters {report["parameters"]:,} (position table and merges included)',
        ]
    )


def _figures(row: dict) -> list[str]:
    values = [row['gmacs'], *row['parts'].values(), row['as_paper'], row['as_paper_with_ones']]
    return [f'{value:.2f}' if value >= 1 or value == 0 else f'{value:.4f}' for value in values]
