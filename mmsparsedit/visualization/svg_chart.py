"""Line charts as SVG inside HTML: no library, no script needed to see them, light and dark.

Colours are the CSS variables ``--s0``, ``--s1``, ... of the page.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 10, 28
MOST_POINTS = 300  # of a line; neighbours of longer ones are averaged


@dataclass
class Line:
    """A named line of points (x, y); ``colour`` counts the page's colours.

    Attributes:
        faint: drawn thin behind the others and left out of the legend.
        dashed: for a reference.
        steps: a value holds until the next x.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    faint: bool = False
    dashed: bool = False
    steps: bool = False


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most ``MOST_POINTS`` finite points, means of neighbours."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    size = math.ceil(len(finite) / MOST_POINTS) or 1
    groups = [finite[i : i + size] for i in range(0, len(finite), size)]
    return [(g[-1][0], sum(y for _, y in g) / len(g)) for g in groups]


def smoothed(points: Sequence[tuple[float, float]], share: float = 0.05) -> list:
    """A running mean over the last ``share`` of the points, at least over one."""
    size = max(1, round(share * len(points)))
    return [
        (x, sum(y for _, y in points[max(0, i - size + 1) : i + 1]) / min(size, i + 1))
        for i, (x, _) in enumerate(points)
    ]


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str = 'iteration',
    log: bool = False,
    from_zero: bool = False,
    y_range: tuple[float, float] | None = None,
) -> str:
    """A ``<figure>`` with the chart and its legend; a note where no line has a point.

    Args:
        log: logarithmic y; values that are not positive are left out.
        from_zero: y starts at zero.
        y_range: lowest and highest y at least, so that charts side by side can be compared.
    """
    shown = [(line, [p for p in thinned(line.points) if p[1] > 0 or not log]) for line in lines]
    shown = [(line, points) for line, points in shown if points]
    head = f'<figcaption>{escape(title)}</figcaption>'
    if not shown:
        return f'<figure class="chart">{head}<p class="none">nothing was logged</p></figure>'
    xs = [x for _, points in shown for x, _ in points]
    ys = [y for _, points in shown for _, y in points] + list(y_range or ())
    low_x, high_x = _widened(min(xs), max(xs))
    if log:
        low, high = _widened(math.log10(min(ys)), math.log10(max(ys)))
    else:
        low, high = _widened(0 if from_zero else min(ys), max(ys))
    edge = 0.04 * (high - low)
    high, low = high + edge, low if from_zero else low - edge

    def place(x: float, y: float) -> tuple[float, float]:
        level = math.log10(y) if log else y
        return (
            LEFT + (x - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (level - low) / (high - low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = []
    for value in _log_ticks(low, high) if log else _ticks(low, high):
        y = place(low_x, value)[1]
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        )
    bottom = HEIGHT - 10
    for value in _ticks(low_x, high_x, 5):
        x = place(value, 1 if log else low)[0]
        anchor = 'end' if x > WIDTH - 30 else 'middle'
        parts.append(
            f'<text x="{x:.1f}" y="{bottom}" text-anchor="{anchor}">{_number(value)}</text>'
        )
    legend, reading = [], []
    for line, points in shown:
        colour = f'var(--s{line.colour})'
        kind = ' faint' if line.faint else ' dashed' if line.dashed else ''
        spots = [place(x, y) for x, y in points]
        if len(spots) == 1:
            x, y = spots[0]
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        else:
            path = _steps(spots) if line.steps else spots
            text = ' '.join(f'{x:.1f},{y:.1f}' for x, y in path)
            parts.append(f'<polyline class="line{kind}" stroke="{colour}" points="{text}"/>')
        if not line.faint:
            legend.append(
                f'<span><i class="{kind.strip()}" style="--c:{colour}"></i>'
                f'{escape(line.name)}</span>'
            )
            reading.append(
                [
                    line.name,
                    [
                        [x, float(f'{y:.4g}'), round(a, 1)]
                        for (x, y), (a, _) in zip(points, spots, strict=True)
                    ],
                ]
            )
    data = escape(json.dumps([x_label, reading], separators=(',', ':')), quote=True)
    described = escape(f'{title}: {", ".join(name for name, _ in reading)}', quote=True)
    return (
        f'<figure class="chart" data-lines="{data}">{head}'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{described}">{"".join(parts)}'
        f'<line class="cross" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="-9" x2="-9"/></svg>'
        f'<div class="legend">{"".join(legend)}<span class="x">over {escape(x_label)}</span></div>'
        '<output></output></figure>'
    )


def _steps(spots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    path = [spots[0]]
    for (_, before), (x, y) in zip(spots[:-1], spots[1:], strict=True):
        path += [(x, before), (x, y)]
    return path


def _widened(low: float, high: float) -> tuple[float, float]:
    """A range that is not empty."""
    return (
        (low, high) if high > low else (low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5)
    )


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers in a range."""
    rough = (high - low) / most
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + i) * step, 12) for i in range(count)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two exponents; 1, 2, 5 of each where these are few."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    found = [10.0**k for k in powers if low <= k <= high]
    if len(found) < 3:
        found = [m * 10.0**k for k in powers for m in (1, 2, 5)]
        found = [value for value in found if low <= math.log10(value) <= high]
    return found


def _number(value: float) -> str:
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f'{value:.0e}'.replace('e-0', 'e-').replace('e+0', 'e')
    return f'{value:g}'
