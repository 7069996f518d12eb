"""The cost of a config's model: what ``get_flops.py`` prints."""

import torch

from mmsparsedit.models.cost import model_cost
from mmsparsedit.models.paper_count import log_macs, paper_macs
from mmsparsedit.nn.flops import PARTS
from mmsparsedit.registry import MODELS

from .documents import align
from .metafiles import PaperRow, format_grid

COUNTERS = ('as_authors', 'as_authors_with_ones', 'as_paper')


def cost_report(model_config: dict) -> dict:
    """``model_cost`` of a generator's config; nothing is allocated."""
    with torch.device('meta'):
        generator = MODELS.build(model_config)
    return model_cost(generator.to('meta'))


def paper_report(model_config: dict, paper: PaperRow | None = None) -> dict:
    """The paper's cost of a config: its figure and what its way of counting gives.

    Counted at the grid of the row, or, where the row names none, as the mean over uniform t.

    Returns:
        ``grid``, ``gmacs`` in the paper's way, ``ratio`` to its figure, ``log_gmacs`` (at one grid,
        of an image model of classes: as the authors' log counts), ``parameters`` and ``lines``.
    """
    with torch.device('meta'):
        generator = MODELS.build(model_config)
    network, prune = generator.to('meta').network, generator.prune
    parameters = sum(value.numel() for value in network.state_dict().values())
    spans = [(None, 1.0)]
    if paper is not None and paper.grid is not None:
        spans = [(tuple(paper.grid), 1.0)]
    elif prune is not None:
        T = prune.num_timesteps
        spans = [(stage.grid, (stage.t_end - stage.t_start) / T) for stage in prune.stages]
    gmacs = sum(share * paper_macs(network, grid) for grid, share in spans) / 1e9
    grid = spans[0][0] if len(spans) == 1 else None
    at = 'dense' if grid is None else f'at {format_grid(grid, "x")}'
    line = f'in its way, {at if len(spans) == 1 else "mean over t"}: {gmacs:.3f} G'
    ratio = None
    if paper is not None and paper.gmacs is not None:
        ratio = gmacs / paper.gmacs
        line += f', {ratio:.4f} of its figure' + ('' if paper.reproduced else ': not reproduced')
    lines = [line]
    log = None
    if len(spans) == 1 and type(network).__name__ == 'SparseDiT':
        log = log_macs(network, grid) / 1e9
        lines.append(f"as the authors' log counts, no attention product: {log:.3f} G")
    lines.append(f'parameters {parameters:,}')
    return dict(
        grid=grid, gmacs=gmacs, ratio=ratio, log_gmacs=log, parameters=parameters, lines=lines
    )


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
            + (f', {sampler["reused"]} calls reuse the middle' if sampler['reused'] else '')
            + (
                f'; captions are read once, {sampler["gmacs_read_once"]:,.2f} GMACs of it'
                if sampler['gmacs_read_once']
                else ''
            ),
            f'parameters {report["parameters"]:,} (position table and merges included)',
        ]
    )


def _figures(row: dict) -> list[str]:
    values = [row['gmacs'], *row['parts'].values(), *(row[counter] for counter in COUNTERS)]
    return [f'{value:.2f}' if value >= 1 or value == 0 else f'{value:.4f}' for value in values]
