"""Charts as SVG inside a page: classes instead of styles, a title in every mark for hovering without a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape

from ftdnas.report.charts import FAILED, MARKED, Axis, Chart, Curve, Dot, Forest

WIDTH, HEIGHT = 520, 380
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 46
ROW = 20  # height of a line of a forest
NAMES = 190  # width of its names

Place = Callable[[float], float]


def draw(chart: Chart) -> str:
    """The chart as one svg element."""
    x = _scale(chart.x, LEFT, WIDTH - RIGHT)
    y = _scale(chart.y, HEIGHT - BOTTOM, TOP)
    parts = [*_horizontal(chart.x, x, TOP, HEIGHT - BOTTOM), *_vertical(chart.y, y)]
    for curve in chart.curves:
        parts += _curve(curve, x, y)
    # Marked dots last, so that they lie above the others.
    for dot in sorted(chart.dots, key=lambda dot: dot.tone == MARKED):
        parts += _dot(dot, x, y)
    return _svg(WIDTH, HEIGHT, chart.heading, parts)


def draw_forest(forest: Forest) -> str:
    """The forest as one svg element, as tall as it has lines."""
    groups = _starts([row.group for row in forest.rows])
    height = TOP + ROW * (len(forest.rows) + len(groups)) + BOTTOM
    x = _scale(forest.x, NAMES, WIDTH - RIGHT)
    parts = list(_horizontal(forest.x, x, TOP, height - BOTTOM))
    parts.append(f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
    line = 0
    for number, row in enumerate(forest.rows):
        if number in groups:
            parts.append(f'<text class="group" x="4" y="{TOP + ROW * (line + 0.7):.1f}">{_text(row.group, 30)}</text>')
            line += 1
        middle = TOP + ROW * (line + 0.5)
        told = f"{row.group} {row.label}: {row.value:+.1f} points"
        told += "" if row.low is None or row.high is None else f" [{row.low:+.1f}, {row.high:+.1f}]"
        told += f", {row.n} candidates"
        name = f"{_text(row.label, 20)} ({row.n})"
        parts.append(f'<text class="name" x="{NAMES - 8}" y="{middle + 4:.1f}">{name}</text>')
        sure = row.low is not None and row.high is not None and (row.low > 0 or row.high < 0)
        tone = MARKED if sure else "plain"
        if row.low is not None and row.high is not None:
            ends = f'x1="{x(row.low):.1f}" x2="{x(row.high):.1f}"'
            parts.append(f'<line class="bar {tone}" {ends} y1="{middle:.1f}" y2="{middle:.1f}"/>')
        parts.append(_circle(x(row.value), middle, 5, tone, told))
        line += 1
    return _svg(WIDTH, height, forest.heading, parts)


def _svg(width: int, height: int, heading: str, parts: list[str]) -> str:
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(heading)}">\n{body}\n</svg>'


def _scale(axis: Axis, start: float, end: float) -> Place:
    def place(value: float) -> float:
        part = axis.place(max(value, axis.low)) if axis.log else axis.place(value)
        return start + min(max(part, -0.02), 1.02) * (end - start)

    return place


def _horizontal(axis: Axis, x: Place, top: float, bottom: float) -> Iterator[str]:
    for value, told in axis.ticks():
        yield f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{top}" y2="{bottom}"/>'
        yield f'<text class="tick" x="{x(value):.1f}" y="{bottom + 17}">{escape(told)}</text>'
    middle = (x(axis.low) + x(axis.high)) / 2
    yield f'<text class="axis" x="{middle:.1f}" y="{bottom + 37}">{escape(axis.label)}</text>'


def _vertical(axis: Axis, y: Place) -> Iterator[str]:
    for value, told in axis.ticks():
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        yield f'<text class="tick side" x="{LEFT - 6}" y="{y(value) + 4:.1f}">{escape(told)}</text>'
    middle = (y(axis.low) + y(axis.high)) / 2
    turned = f'transform="rotate(-90 14 {middle:.1f})"'
    yield f'<text class="axis" x="14" y="{middle:.1f}" {turned}>{escape(axis.label)}</text>'


def _curve(curve: Curve, x: Place, y: Place) -> Iterator[str]:
    def points(ys: tuple[float, ...], backwards: bool = False) -> str:
        pairs = [f"{x(a):.1f},{y(b):.1f}" for a, b in zip(curve.x, ys, strict=True)]
        return " ".join(pairs[::-1] if backwards else pairs)

    if curve.low and curve.high:
        yield f'<polygon class="band {curve.tone}" points="{points(curve.low)} {points(curve.high, True)}"/>'
    dashed = " dashed" if curve.dashed else ""
    title = f"<title>{escape(curve.label)}</title>" if curve.label else ""
    yield f'<polyline class="curve {curve.tone}{dashed}" points="{points(curve.y)}">{title}</polyline>'


def _dot(dot: Dot, x: Place, y: Place) -> Iterator[str]:
    a, b = x(dot.x), y(dot.y)
    if dot.low is not None and dot.high is not None:
        ends = f'y1="{y(dot.low):.1f}" y2="{y(dot.high):.1f}"'
        yield f'<line class="bar {dot.tone}" x1="{a:.1f}" x2="{a:.1f}" {ends}/>'
    if dot.tone == FAILED:
        yield (
            f'<path class="mark failed" d="M{a - 4:.1f} {b - 4:.1f}l8 8m0 -8l-8 8" data-t="{escape(dot.title)}">'
            f"<title>{escape(dot.title)}</title></path>"
        )
    else:
        yield _circle(a, b, 5, dot.tone + (" open" if dot.open else ""), dot.title)
    if dot.label:
        yield f'<text class="mark-label" x="{a + 7:.1f}" y="{b - 6:.1f}">{escape(dot.label)}</text>'


def _circle(x: float, y: float, radius: float, tone: str, title: str) -> str:
    told = escape(title)
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius}"'
    return f'<circle class="mark {tone}" {place} data-t="{told}"><title>{told}</title></circle>'


def _starts(groups: list[str]) -> set[int]:
    return {number for number, group in enumerate(groups) if not number or group != groups[number - 1]}


def _text(text: str, letters: int) -> str:
    return escape(text if len(text) <= letters else text[: letters - 1] + "…")
