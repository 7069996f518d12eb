"""A training, or several side by side, as one HTML page that needs nothing but a browser."""

import base64
import io
import math
import statistics
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from mmsparsedit.utils.files import write_text
from mmsparsedit.visualization.svg_chart import Line, line_chart, smoothed

from .launch import ConfigError
from .report_style import SCRIPT, STYLE
from .run_history import History, flat, read_history

MOST_RUNS = 6  # as many as there are colours
LARGEST_PICTURE = 600_000  # bytes; larger ones are made smaller


def write_report(folders: Sequence[str | Path], out: str | Path, pictures: int = 4) -> None:
    """Read work dirs and write the page.

    Args:
        pictures: sample grids of each run, evenly spread over the training, the last one included.

    Raises:
        ConfigError: no run in a folder, or more than ``MOST_RUNS``.
    """
    if not 1 <= len(folders) <= MOST_RUNS:
        raise ConfigError(f'got {len(folders)} work dirs, expected 1 to {MOST_RUNS}.')
    runs = [read_history(folder) for folder in folders]
    if len({run.name for run in runs}) < len(runs):
        for run in runs:
            run.name = str(run.folder)
    page = report_page(runs, pictures)
    write_text(out, page)


def report_page(runs: Sequence[History], pictures: int = 4) -> str:
    """The page as text."""
    title = ' and '.join(run.name for run in runs)
    sections = [
        ('Summary', _summary(runs)),
        ('Loss', _loss(runs)),
        ('Metrics over time', _metrics(runs)),
        ('Samples over time', _samples(runs, pictures)),
        ('Speed', _speed(runs)),
        ('Schedule and cost', _schedule(runs)),
        ('Environment', _environment(runs)),
        ('Config', _configs(runs)),
    ]
    unread = [f'{run.name}: {text}' for run in runs for text in run.unread]
    if unread:
        sections.append(('Not read', ''.join(f'<p>{escape(text)}</p>' for text in unread)))
    links = ''.join(f'<a href="#s{i}">{name}</a>' for i, (name, _) in enumerate(sections))
    body = ''.join(
        f'<section id="s{i}"><h2>{name}</h2>{text}</section>'
        for i, (name, text) in enumerate(sections)
    )
    # nothing may be loaded from anywhere, whatever the names and values of a run say
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    policy += "script-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<title>{escape(title)}</title><style>{STYLE}</style></head><body>'
        f'<header><h1>{escape(title)}</h1><button id="theme">light / dark</button>'
        f'<nav>{links}</nav></header><main>{body}</main><script>{SCRIPT}</script></body></html>\n'
    )


def _table(rows: Sequence[Sequence[str]], classes: str = '') -> str:
    """Rows of escaped cells, the first its heading."""
    head, *body = [[escape(str(cell)) for cell in row] for row in rows]
    lines = ''.join(
        f'<tr><th>{row[0]}</th>' + ''.join(f'<td>{cell}</td>' for cell in row[1:]) + '</tr>'
        for row in body
    )
    top = ''.join(f'<th>{cell}</th>' for cell in head)
    return (
        f'<div class="wide"><table class="{classes}"><thead><tr>{top}</tr></thead>'
        f'<tbody>{lines}</tbody></table></div>'
    )


def _compared(runs: Sequence[History], rows: Sequence[tuple[str, Callable]], **style) -> str:
    """A table with a column for each run; rows that no run knows are left out."""
    table = [['', *(run.name for run in runs)]]
    for name, value in rows:
        cells = [value(run) for run in runs]
        if any(cell is not None for cell in cells):
            table.append([name, *('–' if cell is None else _cell(cell) for cell in cells)])
    return _table(table, **style)


def _cell(value) -> str:
    return f'{value:,.4g}' if isinstance(value, float) else str(value)


def _summary(runs: Sequence[History]) -> str:
    def kind(run: History) -> str | None:
        if not run.config:
            return None
        return 'sparse' if run.get('model', 'prune') else 'dense'

    def progress(run: History) -> str | None:
        most = run.get('train_cfg', 'max_iters')
        if not run.iterations:
            return None
        return f'{run.iterations:,}' + (f' of {most:,}' if isinstance(most, int) else '')

    def final_loss(run: History) -> float | None:
        return _mean_of_last(run.training.get('loss', []))

    def speed(run: History) -> float | None:
        values = [value for _, value in run.training.get('images_per_second', [])]
        return statistics.median(values) if values else None

    rows = [
        ('model', lambda run: run.get('model', 'network', 'type')),
        ('tokens', kind),
        ('iterations', progress),
        ('loss, mean of the last tenth', final_loss),
        ('images/s in training, median', speed),
        ('GMACs a network call', lambda run: run.metrics.get('cost/gmacs_mean_t')),
        ('GMACs a sample', lambda run: run.metrics.get('cost/gmacs_per_sample')),
        ('seed', lambda run: run.get('randomness', 'seed')),
        ('last checkpoint', lambda run: run.checkpoint),
    ]
    names = dict.fromkeys(k for run in runs for k in run.metrics if not k.startswith('cost/'))
    rows += [(name, lambda run, name=name: run.metrics.get(name)) for name in names]
    return _compared(runs, rows)


def _mean_of_last(points, share: float = 0.1) -> float | None:
    values = [value for _, value in points if math.isfinite(value)]
    return statistics.fmean(values[-max(1, round(share * len(values))) :]) if values else None


def _over_runs(runs: Sequence[History], key: str, smooth: bool = False) -> list[Line]:
    lines = []
    for i, run in enumerate(runs):
        points = [p for p in run.training.get(key, []) if math.isfinite(p[1])]
        if smooth and len(points) > 20:
            lines.append(Line(run.name, points, i, faint=True))
            points = smoothed(points)
        lines.append(Line(run.name, points, i))
    return lines


def _charts(*charts: str) -> str:
    return f'<div class="charts">{"".join(charts)}</div>'


def _numbered(quantities, prefix: str) -> list[str]:
    """``mse_stage0``, ``mse_stage1``, ... in their order."""
    found = [k for k in quantities if k.startswith(prefix) and k[len(prefix) :].isdigit()]
    return sorted(found, key=lambda key: int(key[len(prefix) :]))


def _loss(runs: Sequence[History]) -> str:
    charts = [line_chart('loss', _over_runs(runs, 'loss', smooth=True), log=True)]
    charts += [
        line_chart(name, _over_runs(runs, key, smooth=key != 'lr'))
        for key, name in (('grad_norm', 'gradient norm'), ('lr', 'learning rate'))
        if any(key in run.training for run in runs)
    ]
    staged = {run.name: _numbered(run.training, 'mse_stage') for run in runs}
    values = [
        value
        for run in runs
        for key in staged[run.name]
        for _, value in run.training[key]
        if value > 0 and math.isfinite(value)
    ]
    shared = (min(values), max(values)) if values else None
    for run in runs:
        if staged[run.name]:
            lines = [
                Line(f'stage {i}' + (' (clean)' if i == 0 else ''), smoothed(run.training[key]), i)
                for i, key in enumerate(staged[run.name])
            ]
            name = f'{run.name}: squared error by stage'
            charts.append(line_chart(name, lines, log=True, y_range=shared))
    by_time = []
    for i, run in enumerate(runs):
        keys = _numbered(run.training, 'mse_t')
        means = [_mean_of_last(run.training[key]) for key in keys]
        width = (run.get('model', 'diffusion', 'num_timesteps') or 1000) / max(1, len(keys))
        points = [((k + 0.5) * width, m) for k, m in enumerate(means) if m is not None]
        by_time.append(Line(run.name, points, i))
    if any(line.points for line in by_time):
        name = 'squared error by timestep, mean of the last tenth'
        charts.append(line_chart(name, by_time, 'timestep t (0 clean)', log=True))
    return _charts(*charts)


def _metrics(runs: Sequence[History]) -> str:
    names = dict.fromkeys(key for run in runs for key in run.validation)
    charts = []
    for name in names:
        lines = [Line(run.name, run.validation.get(name, []), i) for i, run in enumerate(runs)]
        values = {f'{value:.4g}' for line in lines for _, value in line.points}
        if len(values) > 1:  # a constant, such as the number of samples, is in the summary
            charts.append(line_chart(name, lines))
    if not charts:
        return '<p class="none">no validation while training: its last one is in the summary</p>'
    return _charts(*charts)


def _samples(runs: Sequence[History], most: int) -> str:
    columns = []
    for run in runs:
        steps = list(run.samples)
        if len(steps) > most:
            places = [round(i * (len(steps) - 1) / max(1, most - 1)) for i in range(most)]
            steps = [steps[place] for place in places] if most > 1 else steps[-1:]
        figures = [_picture(run, step) for step in steps]
        if figures:
            columns.append(
                f'<div class="column"><h3>{escape(run.name)}</h3>{"".join(figures)}</div>'
            )
    if not columns:
        return '<p class="none">no sample grids (default_hooks.sample_grid makes them)</p>'
    return f'<div class="columns">{"".join(columns)}</div>'


def _picture(run: History, step: int) -> str:
    from PIL import Image, UnidentifiedImageError

    path = run.samples[step]
    caption = f'<figcaption>iteration {step:,}</figcaption>'
    try:
        data, kind = path.read_bytes(), 'png'
        with Image.open(io.BytesIO(data), formats=['PNG']) as picture:
            picture.load()
            width, height = picture.size
            if len(data) > LARGEST_PICTURE:
                picture.thumbnail((1600, 1600))
                smaller = io.BytesIO()
                picture.convert('RGB').save(smaller, 'JPEG', quality=88)
                data, kind = smaller.getvalue(), 'jpeg'
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        run.unread.append(f'samples/{path.name}: {error}')
        return f'<figure>{caption}<p class="none">cannot be read</p></figure>'
    text = base64.b64encode(data).decode()
    alt = escape(f'samples of {run.name} at iteration {step}', quote=True)
    return (
        f'<figure>{caption}<img width="{width}" height="{height}" alt="{alt}" '
        f'src="data:image/{kind};base64,{text}"></figure>'
    )


def _speed(runs: Sequence[History]) -> str:
    quantities = (
        ('images_per_second', 'images/s'),
        ('data_wait', 'share of time spent waiting for data'),
        ('tmacs_per_second', 'TMAC/s, forward and backward'),
        ('memory', 'memory, MB'),
    )
    charts = [
        line_chart(name, _over_runs(runs, key, smooth=True), from_zero=True)
        for key, name in quantities
        if any(key in run.training for run in runs)
    ]
    return _charts(*charts) if charts else '<p class="none">no speed was logged</p>'


def _schedule(runs: Sequence[History]) -> str:
    tokens, dense = [], 0
    for i, run in enumerate(runs):
        if prune := _prune(run):
            dense = max(dense, math.prod(prune.token_grid))
            points = [(stage.t_start, math.prod(stage.grid)) for stage in prune.stages]
            points.append((prune.num_timesteps, points[-1][1]))
            grids = ', '.join('x'.join(map(str, stage.grid)) for stage in prune.stages)
            tokens.append(Line(f'{run.name}: {grids}', points, i, steps=True))
            end = prune.num_timesteps
    text = ''
    if tokens:
        tokens.append(Line(f'dense: {dense}', [(0, dense), (end, dense)], 6, dashed=True))
        name = 'tokens of the middle'
        text = _charts(line_chart(name, tokens, 'timestep t (0 clean)', from_zero=True))
    names = dict.fromkeys(k for run in runs for k in run.metrics if k.startswith('cost/'))
    if not names:
        return text + '<p class="none">cost: a validation or test writes it to metrics.json</p>'
    rows = [
        (name.removeprefix('cost/').replace('_', ' '), lambda run, n=name: run.metrics.get(n))
        for name in names
    ]
    return text + _compared(runs, rows)


def _prune(run: History):
    """The schedule of a run's config, where it is this package's own and its values are plain."""
    from mmsparsedit import prune

    options = run.get('model', 'prune')
    own = ('TimestepPruneScheduler', 'ElasticPruneScheduler')
    if not isinstance(options, dict) or options.get('type') not in own:
        return None
    try:
        return getattr(prune, options['type'])(**{k: v for k, v in options.items() if k != 'type'})
    except (TypeError, ValueError) as error:
        run.unread.append(f'model.prune of the config: {error}')
        return None


def _environment(runs: Sequence[History]) -> str:
    names = dict.fromkeys(key for run in runs for key in run.versions)
    names |= dict.fromkeys(key for run in runs for key in run.environment)
    shown = {'GPU number': 'processes'}  # MMEngine's word for them, on a CPU too
    rows = [
        (shown.get(name, name), lambda run, n=name: run.environment.get(n) or run.versions.get(n))
        for name in names
    ]
    return _compared(runs, rows, classes='left') if rows else '<p class="none">not logged</p>'


def _configs(runs: Sequence[History]) -> str:
    text = ''
    if len(runs) > 1:
        found = [flat(run.config) for run in runs]
        keys = dict.fromkeys(key for config in found for key in config)
        own = {'work_dir', 'load_from', 'resume'}
        rows = [['key', *(run.name for run in runs)]]
        for key in sorted(set(keys) - own):
            values = [str(config.get(key, '–')) for config in found]
            if len(set(values)) > 1:
                rows.append([key, *values])
        if len(rows) > 1:
            text += '<h3>What differs</h3>' + _table(rows, 'left')
        else:
            text += '<p>The configs are the same.</p>'
    for run in runs:
        text += (
            f'<details><summary>{escape(run.name)}</summary>'
            f'<pre>{escape(run.config_text) or "no config in the folder"}</pre></details>'
        )
    return text
