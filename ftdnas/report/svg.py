"""Charts as SVG inside a page: classes instead of styles, a title in every mark for hovering without a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape

from ftdnas.report.charts import FAILED, Axis, Chart, Curve, Dot

WIDTH, HEIGHT = 520, 380
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 46
ROW, NAMES = 20, 190  # height and width of names beside a y axis
LETTERS = 30  # of such a name

Place = Callable[[float], float]


def draw(chart: Chart) -> str:
    """The chart as one svg element; as tall as it has names, where it has them."""
    left, height = (NAMES, TOP + ROW * len(chart.y.names) + BOTTOM) if chart.y.names else (LEFT, HEIGHT)
    x = _scale(chart.x, left, WIDTH - RIGHT)
    y = _scale(chart.y, height - BOTTOM, TOP)
    parts = [*_horizontal(chart.x, x, height - BOTTOM), *_vertical(chart, y)]
    for curve in chart.curves:
        parts += _curve(curve, x, y)
    for dot in chart.layers:
        parts += _dot(dot, x, y)
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(chart.heading)}">\n{body}\n</svg>'


def _scale(axis: Axis, start: float, end: float) -> Place:
    def place(value: float) -> float:
        part = axis.place(max(value, axis.low)) if axis.log else axis.place(value)
        return start + min(max(part, -0.02), 1.02) * (end - start)

    return place


def _horizontal(axis: Axis, x: Place, bottom: float) -> Iterator[str]:
    for value, told in axis.ticks():
        yield f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{bottom}"/>'
        yield f'<text class="tick" x="{x(value):.1f}" y="{bottom + 17}">{escape(told)}</text>'
    middle = (x(axis.low) + x(axis.high)) / 2
    yield f'<text class="axis" x="{middle:.1f}" y="{bottom + 37}">{escape(axis.label)}</text>'


def _vertical(chart: Chart, y: Place) -> Iterator[str]:
    used = {dot.y for dot in chart.dots}
    for value, told in chart.y.ticks():
        if not chart.y.names:
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
            yield f'<text class="tick side" x="{LEFT - 6}" y="{y(value) + 4:.1f}">{escape(told)}</text>'
            continue
        kind, side = ("name", NAMES - 8) if value in used else ("group", 4)
        short = told if len(told) <= LETTERS else told[: LETTERS - 1] + "…"
        yield f'<text class="{kind}" x="{side}" y="{y(value) + 4:.1f}">{escape(short)}</text>'
    middle = (y(chart.y.low) + y(chart.y.high)) / 2
    turned = f'transform="rotate(-90 14 {middle:.1f})"'
    yield f'<text class="axis" x="14" y="{middle:.1f}" {turned}>{escape(chart.y.label)}</text>'


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
    a, b, told = x(dot.x), y(dot.y), escape(dot.title)
    if dot.bar is not None:
        (x1, x2), (y1, y2) = dot.bar
        ends = f'x1="{x(x1):.1f}" x2="{x(x2):.1f}" y1="{y(y1):.1f}" y2="{y(y2):.1f}"'
        yield f'<line class="bar {dot.tone}" {ends}/>'
    if dot.tone == FAILED:
        mark = f'path class="mark failed" d="M{a - 4:.1f} {b - 4:.1f}l8 8m0 -8l-8 8"'
    else:
        mark = f'circle class="mark {dot.tone}{" open" if dot.open else ""}" cx="{a:.1f}" cy="{b:.1f}" r="5"'
    yield f'<{mark} data-t="{told}"><title>{told}</title></{mark.partition(" ")[0]}>'
    if dot.label:
        yield f'<text class="mark-label" x="{a + 7:.1f}" y="{b - 6:.1f}">{escape(dot.label)}</text>'
