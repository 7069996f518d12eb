"""Reports of ``benchmark`` as text and as a picture."""

from collections.abc import Sequence

from mmsparsedit.models.acceleration import Acceleration
from mmsparsedit.visualization import save_figure
from mmsparsedit.visualization.colours import DENSE, MEAN, PAPER, SPARSE

from .documents import align


def format_report(report: dict) -> str:
    """One case in full."""
    setting, sides = report['setting'], report['sides']
    sampling = setting['mode'] == 'sample'
    what = 'trajectories' if sampling else 'training steps'
    if sampling and setting['steps_per_stage']:
        what = f'{setting["steps_per_stage"]} network calls a stage, weighted as the sampler visits'
    lines = [
        f'{setting["mode"]}: {what}; {report["device"]}, torch {report["torch"]}, '
        f'{setting["dtype"]}, {setting["attention"]} attention, batch {report["batch"]}, '
        f'{setting["rounds"]} rounds in turn',
        f'matrix rate {report["matrix_tmacs_per_second"]:.4g} TMAC/s',
    ]
    header = ['', 'samples/s', 'min', 'q1', 'q3', 'max', 'NFE', 'GMACs a sample', 'TMAC/s']
    table = [[*header, 'of matrix rate', 'peak GiB']]
    notes = []
    for side in sides:
        speed, guidance, off = side['samples_per_second'], side['guidance'], Acceleration().options
        table.append(
            [
                side['name'],
                *(f'{speed[key]:.4g}' for key in ('median', 'min', 'q1', 'q3', 'max')),
                str(side['nfe']) if sampling else '-',
                f'{side["gmacs_per_sample"]:.4g}',
                f'{side["tmacs_per_second"]:.4g}',
                f'{100 * side["share_of_matrix_rate"]:.1f} %',
                f'{side["peak_memory_gib"]:.3g}',
            ]
        )
        on = [f'{k} {v}' for k, v in side['acceleration'].items() if v != off[k]]
        notes.append(
            f'{side["name"]}: attention {side["attention_kernel"]}, guidance {guidance["scale"]:g}'
            f' (channels {guidance["channels"]}, interval {guidance["interval"]}), '
            f'{", ".join(on) or "not accelerated"}; ready after {side["cold_seconds"]:.3g} s'
        )
        if 'profile' in side:
            kinds = side['profile']['kinds'].items()
            found = ', '.join(f'{kind} {100 * share:.0f} %' for kind, share in kinds)
            notes.append(f'{side["name"]}, where the time goes: {found}')
    if 'speedup' in report:
        ratio = report['speedup']
        notes.append(
            f'{sides[0]["name"]} over {sides[1]["name"]}: {ratio["median"]:.3f} on the clock '
            f'(quartiles {ratio["q1"]:.3f} to {ratio["q3"]:.3f}), {ratio["macs_ratio"]:.3f} in '
            f'MACs, {100 * ratio["share_of_macs_ratio"]:.0f} % of it'
        )
    return '\n'.join([*lines, *align(table), *notes])


def format_rows(reports: Sequence[dict]) -> str:
    """A line for each case, beside the paper's figures."""
    return '\n'.join(align(rows_of(reports)))


def rows_of(reports: Sequence[dict]) -> list[list[str]]:
    """A heading and a row of cells for each case."""
    header = ['', 'batch', 'attention', 'samples/s', 'baseline', 'speed-up', 'MACs', 'peak GiB']
    table = [[*header, "paper's samples/s", 'baseline', 'speed-up']]
    for report in reports:
        case, sides, ratio = report['setting'], report['sides'], report.get('speedup', {})
        speeds = [side['samples_per_second']['median'] for side in sides]
        figures = [*speeds, None][:2], (ratio.get('median'), ratio.get('macs_ratio'))
        paper = case['paper'], case['paper_baseline']
        table.append(
            [
                case['title'],
                str(report['batch']),
                case['attention'],
                *(_cell(speed, '.4g') for speed in figures[0]),
                *(_cell(value, '.2f') for value in figures[1]),
                ' / '.join(f'{side["peak_memory_gib"]:.3g}' for side in sides),
                *(_cell(speed, 'g') for speed in paper),
                _cell(None if None in paper else paper[0] / paper[1], '.2f'),
            ]
        )
    return table


def _cell(value: float | None, form: str) -> str:
    return '-' if value is None else format(value, form)


def plot(reports: Sequence[dict], path: str) -> None:
    """Speed and peak memory of each case as bars, model and baseline in two colours.

    Speeds are drawn over the baseline's where all cases have one: the bar of the model is the ratio
    within rounds with its quartiles, beside marks at the ratio of MACs and at the paper's.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError('a picture needs matplotlib: pip install matplotlib.') from error
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    compared = all('speedup' in report for report in reports)
    size = (max(6.4, 1.8 * len(reports) + 1), 8)
    figure, (speeds, memory) = plt.subplots(2, 1, figsize=size, height_ratios=(3, 2))
    for place, report in enumerate(reports):
        case, ratio = report['setting'], report.get('speedup')
        for i, side in enumerate(report['sides']):
            name = side['name'] if len(reports) == 1 else ('model', 'baseline')[i]
            style = dict(width=0.36, color=(SPARSE, DENSE)[i], label=None if place else name)
            speed = side['samples_per_second']
            shown = (ratio, dict.fromkeys(speed, 1))[i] if compared else speed
            span = [[shown['median'] - shown['q1']], [shown['q3'] - shown['median']]]
            bar = speeds.bar(place + 0.4 * i, shown['median'], yerr=span, **style)
            text = f'{speed["median"]:.3g}/s'
            speeds.bar_label(bar, [text], label_type='center', color='white')
            peak = memory.bar(place + 0.4 * i, side['peak_memory_gib'], **style)
            memory.bar_label(peak, fmt='%.3g', padding=1)
        marks = {'in MACs': ratio['macs_ratio']} if compared else {}
        if compared and case['paper'] and case['paper_baseline']:
            marks['in the paper'] = case['paper'] / case['paper_baseline']
        for color, (name, value) in zip((MEAN, PAPER), marks.items(), strict=False):
            line = dict(color=color, linestyle='--', label=None if place else name)
            speeds.plot([place - 0.2, place + 0.6], [value] * 2, **line)
        if compared:
            text, corner = f'{ratio["median"]:.2f} times', (place, ratio['q3'])
            style = dict(textcoords='offset points', ha='center', weight='bold')
            speeds.annotate(text, corner, (0, 5), **style)
    what = 'speed over the baseline' if compared else 'samples per second'
    middles = [place + 0.2 * (len(r['sides']) - 1) for place, r in enumerate(reports)]
    names = [
        '{title}\n{mode}, {dtype}, {attention}'.format(**report['setting'])
        + f'\nbatch {report["batch"]}'
        for report in reports
    ]
    for axis, label in ((speeds, what), (memory, 'peak memory, GiB')):
        axis.set_xticks(middles, names, fontsize=8)
        axis.set_ylabel(label)
        axis.margins(y=0.12)
    speeds.legend(ncols=4, loc='lower left', bbox_to_anchor=(0, 1), frameon=False)
    figure.suptitle(reports[0]['device'], fontsize=10)
    figure.tight_layout()
    save_figure(path, figure, dpi=120)
    plt.close(figure)
