"""Pareto plots of a comparison of methods: quality against time, and against MACs."""

from collections.abc import Sequence
from pathlib import Path

from mmsparsedit.visualization.colours import DENSE, SPARSE
from mmsparsedit.visualization.pictures import save_figure

from .method_comparison import on_front


def plot(rows: Sequence[dict], quality: str, path: str | Path) -> None:
    """Two panels; rows of the front are joined, and named beside the panel by their numbers.

    Args:
        rows: of ``summary``; lower quality is better.
        quality: name of the metric.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError('a picture needs matplotlib: pip install matplotlib.') from error
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    numbers = {row['title']: number for number, row in enumerate(rows, start=1)}
    timed = [row for row in rows if row['ratio']]
    base = rows[0]['gmacs_per_sample']
    panels = (
        ('times as fast as the first row, on the clock', timed, lambda r: r['ratio']['median']),
        ('times fewer MACs than the first row', rows, lambda r: base / r['gmacs_per_sample']),
    )
    figure, axes = plt.subplots(1, 2, figsize=(14, 8), sharey=True)
    for axis, (label, shown, gain) in zip(axes, panels, strict=True):
        front = on_front(shown, lambda row, gain=gain: -gain(row))
        axis.step(
            [gain(row) for row in front], [row['quality'] for row in front],
            color='black', linewidth=1, where='pre', zorder=1, label='best at this speed',
        )  # fmt: skip
        for model, colour, marker in (('dense', DENSE, 's'), ('sparse', SPARSE, 'o')):
            of_model = [row for row in shown if row['model'] == model]
            axis.errorbar(
                [gain(row) for row in of_model], [row['quality'] for row in of_model],
                yerr=[row['quality_spread'] for row in of_model],
                fmt=marker, color=colour, elinewidth=0.8, label=model, zorder=2,
            )  # fmt: skip
        for row in shown:
            best = row in front
            axis.annotate(
                str(numbers[row['title']]), (gain(row), row['quality']), (6, 5),
                textcoords='offset points', fontsize=10 if best else 8,
                weight='bold' if best else 'normal', color='black' if best else '0.35',
            )  # fmt: skip
        axis.set_xscale('log')
        axis.set_yscale('log')
        ticks = [tick for tick in (0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20)]
        low, high = axis.get_xlim()
        axis.set_xticks([tick for tick in ticks if low <= tick <= high])
        axis.xaxis.set_major_formatter('{x:g}')
        axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axis.yaxis.set_major_formatter('{x:g}')
        axis.yaxis.set_minor_formatter('{x:g}')
        axis.grid(alpha=0.3, which='both')
        axis.set_xlabel(label)
    axes[0].set_ylabel(f'{quality} (lower is better)')
    axes[0].legend(loc='best', frameon=False)
    half = -(-len(rows) // 3)
    names = [f'{number}  {title}' for title, number in numbers.items()]
    for column in range(3):
        text = '\n'.join(names[column * half : (column + 1) * half])
        figure.text(0.05 + 0.31 * column, 0.01, text, fontsize=8.5, va='bottom', linespacing=1.35)
    figure.tight_layout(rect=(0, 0.02 + 0.022 * half, 1, 1))
    save_figure(path, figure, dpi=110)
    plt.close(figure)
