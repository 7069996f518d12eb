"""The cost of a config's model: what ``get_flops.py`` prints."""

import torch

from mmsparsedit.models.cost import model_cost
from mmsparsedit.nn.flops import PARTS
from mmsparsedit.registry import MODELS

from .documents import align

COUNTERS = ('as_authors', 'as_authors_with_ones', 'as_paper')


def cost_report(model_config: dict) -> dict:
    """``model_cost`` of a generator's config; nothing is allocated."""
    with torch.device('meta'):
        generator = MODELS.build(model_config)
    return model_cost(generator.to('meta'))


def format_report(report: dict, name: str) -> str:
    """The report as a table of the terminal."""
    header = ['', 't', 'grid', 'r', 'GMACs', *PARTS, "authors' code", '+ ones', 'as paper']
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
    values = [row['gmacs'], *row['parts'].values(), *(row[counter] for counter in COUNTERS)]
    return [f'{value:.2f}' if value >= 1 or value == 0 else f'{value:.4f}' for value in values]
