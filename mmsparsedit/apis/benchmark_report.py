"""Benchmarks as text and pictures, and the pairs of configs that the presets measure."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .documents import align

OFF = dict(compile=False, cuda_graphs=False, dtype='float32', fp8=False, cache_interval=1)


class Row(NamedTuple):
    """A config, its baseline, the batch to measure, and the throughputs that the paper gives."""

    title: str
    config: str
    baseline: str | None
    batch: int
    paper: float | None = None
    paper_baseline: float | None = None


_XL_256, _XL_512, _XL_1024 = (f'sparsedit/dit_xl_{side}' for side in (256, 512, 1024))
# the paper's throughputs: images or clips per second on one A100 (Tables 1, 2 and 3)
PRESETS = {
    'paper': (
        Row('DiT-B 256, r .61-.86', 'sparsedit/b_256', 'sparsedit/dit_b_256', 128, 13.2, 7.84),
        Row('DiT-XL 256, r .44-.61', 'sparsedit/xl_256_r44_61', _XL_256, 128, 2.13, 1.58),
        Row('DiT-XL 256, r .61-.86', 'sparsedit/xl_256', _XL_256, 128, 2.95, 1.58),
        Row('DiT-XL 512, r .61-.86', 'sparsedit/xl_512_r61_86', _XL_512, 128, 0.609, 0.249),
        Row('DiT-XL 512, r .90-.96', 'sparsedit/xl_512', _XL_512, 128, 0.685, 0.249),
        Row('Latte-XL, r .80-.93', 'sparselatte/ffs', 'sparselatte/latte_ffs', 2, 0.228, 0.108),
        Row(  # the paper gives no batch for this table
            'PixArt 256, r .61-.86', 'sparsepixart/sam_256', 'sparsepixart/pixart_sam_256', 128,
            0.701, 0.414,
        ),
    ),
    'sweep': (
        Row('DiT-XL 256', 'sparsedit/xl_256', _XL_256, 128),
        Row('DiT-XL 512', 'sparsedit/xl_512', _XL_512, 128),
        Row('DiT-XL 1024', 'sparsedit/xl_1024', _XL_1024, 128),
    ),
}  # fmt: skip


def preset(name: str, folder: Path) -> list[Row]:
    """The rows of a preset with the paths of their configs under ``folder``."""
    return [
        row._replace(config=f'{folder / row.config}.py', baseline=f'{folder / row.baseline}.py')
        for row in PRESETS[name]
    ]


def format_report(report: dict) -> str:
    """One benchmark as a table of the terminal."""
    setting, sides = report['setting'], report['sides']
    what = 'trajectories' if setting['mode'] == 'sample' else 'training steps'
    if setting['mode'] == 'sample' and setting['steps_per_stage']:
        what = f'{setting["steps_per_stage"]} network calls a stage, weighted as the sampler visits'
    lines = [
        f'{setting["mode"]}: {what}; {report["device"]}, torch {report["torch"]}, '
        f'{setting["dtype"]}, {setting["attention"]} attention, batch {report["batch"]}, '
        f'{setting["rounds"]} rounds in turn',
        f'matrix rate {report["matrix_tmacs_per_second"]:.4g} TMAC/s',
    ]
    header = ['', 'samples/s', 'min', 'q1', 'q3', 'max', 'NFE', 'GMACs a sample', 'TMAC/s']
    table = [[*header, 'of matrix rate', 'peak GiB']]
    for side in sides:
        speed = side['samples_per_second']
        table.append(
            [
                side['name'],
                *(f'{speed[key]:.4g}' for key in ('median', 'min', 'q1', 'q3', 'max')),
                str(side['nfe']) if setting['mode'] == 'sample' else '-',
                f'{side["gmacs_per_sample"]:.4g}',
                f'{side["tmacs_per_second"]:.4g}',
                f'{100 * side["share_of_matrix_rate"]:.1f} %',
                f'{side["peak_memory_gib"]:.3g}',
            ]
        )
    lines += align(table)
    for side in sides:
        guidance = side['guidance']
        on = {k: v for k, v in side['acceleration'].items() if v != OFF[k]}
        lines.append(
            f'{side["name"]}: attention {side["attention_kernel"]}, guidance {guidance["scale"]:g}'
            f' (channels {guidance["channels"]}, interval {guidance["interval"]}), '
            + (', '.join(f'{k} {v}' for k, v in on.items()) or 'not accelerated')
        )
    for side in sides:
        if 'profile' in side:
            kinds = side['profile']['kinds'].items()
            found = ', '.join(f'{kind} {100 * share:.0f} %' for kind, share in kinds)
            lines.append(f'{side["name"]}, where the time goes: {found}')
    if 'speedup' in report:
        ratio = report['speedup']
        lines.append(
            f'{sides[0]["name"]} over {sides[1]["name"]}: {ratio["median"]:.3f} on the clock '
            f'(quartiles {ratio["q1"]:.3f} to {ratio["q3"]:.3f}), {ratio["macs_ratio"]:.3f} in '
            f'MACs, {100 * ratio["share_of_macs_ratio"]:.0f} % of it'
        )
    return '\n'.join(lines)


def format_rows(rows: Sequence[Row], reports: Sequence[dict]) -> str:
    """Benchmarks of a preset side by side with the paper's figures."""
    header = ['', 'batch', 'attention', 'samples/s', 'baseline', 'speed-up', 'MACs', 'peak GiB']
    table = [[*header, "paper's samples/s", 'baseline', 'speed-up']]
    for row, report in zip(rows, reports, strict=True):
        fast, base = report['sides']
        memory = [side['peak_memory_gib'] for side in report['sides']]
        ratio = report['speedup']
        table.append(
            [
                row.title,
                str(report['batch']),
                report['setting']['attention'],
                *(f'{side["samples_per_second"]["median"]:.4g}' for side in (fast, base)),
                f'{ratio["median"]:.2f}',
                f'{ratio["macs_ratio"]:.2f}',
                ' / '.join(f'{m:.3g}' for m in memory),
                *(
                    ['-'] * 3
                    if row.paper is None
                    else [
                        f'{row.paper:g}',
                        f'{row.paper_baseline:g}',
                        f'{row.paper / row.paper_baseline:.2f}',
                    ]
                ),
            ]
        )
    return '\n'.join(align(table))


def plot_reports(reports: Sequence[dict], path: str) -> None:
    """Samples per second of each side as bars, with the quartiles; one panel a benchmark."""
    figure, axes = _figure(len(reports))
    for axis, report in zip(axes, reports, strict=True):
        speeds = [side['samples_per_second'] for side in report['sides']]
        medians = [speed['median'] for speed in speeds]
        spans = [
            [speed['median'] - speed['q1'] for speed in speeds],
            [speed['q3'] - speed['median'] for speed in speeds],
        ]
        names = [side['name'] for side in report['sides']]
        bars = axis.bar(names, medians, yerr=spans, capsize=4)
        axis.bar_label(bars, [f'{median:.3g}' for median in medians])
        axis.set_ylabel('samples per second')
        setting = report['setting']
        axis.set_title(
            f'{report["device"]}\n{setting["mode"]}, {setting["dtype"]}, {setting["attention"]} '
            f'attention, batch {report["batch"]}',
            fontsize=9,
        )
    _save(figure, path)


def plot_rows(rows: Sequence[Row], reports: Sequence[dict], path: str) -> None:
    """Speed-up of each row beside its ratio of MACs and the paper's; peak memory of both sides."""
    memory = [[side['peak_memory_gib'] for side in report['sides']] for report in reports]
    figure, axes = _figure(2)
    names = [
        f'{row.title}\n{report["setting"]["attention"]}'
        for row, report in zip(rows, reports, strict=True)
    ]
    series = {
        'on the clock': [report['speedup']['median'] for report in reports],
        'in MACs': [report['speedup']['macs_ratio'] for report in reports],
    }
    if any(row.paper for row in rows):
        series['paper'] = [row.paper / row.paper_baseline if row.paper else 0 for row in rows]
    _bars(axes[0], names, series, 'speed-up over the dense model')
    pairs = {'sparse': [m[0] for m in memory], 'dense': [m[1] for m in memory]}
    _bars(axes[1], names, pairs, 'peak memory, GiB')
    _save(figure, path)


def _bars(axis, names: Sequence[str], series: dict[str, list[float]], label: str) -> None:
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        places = [place + (i - (len(series) - 1) / 2) * width for place in range(len(names))]
        axis.bar_label(axis.bar(places, values, width, label=name), fmt='%.2f', fontsize=7)
    axis.set_xticks(range(len(names)), names, fontsize=7, rotation=20, ha='right')
    axis.set_ylabel(label)
    axis.legend(ncols=len(series), loc='lower left', bbox_to_anchor=(0, 1))  # above the bars


def _figure(panels: int):
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError('a picture needs matplotlib: pip install matplotlib.') from error
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(panels, 1, figsize=(8, 4.5 * panels), squeeze=False)
    return figure, axes[:, 0]


def _save(figure, path: str) -> None:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
