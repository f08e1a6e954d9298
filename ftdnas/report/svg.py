"""Charts as SVG inside a page: classes instead of styles, a title in every mark for hovering without a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from ftdnas.report.charts import FAILED, Axis, Chart

WIDTH, HEIGHT = 520, 380
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 46
ROW, NAMES = 20, 190  # height and width of names beside a y axis
LETTERS = 30  # of such a name
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, keep_trailing_newline=True
)
TEMPLATES.filters["px"] = "{:.1f}".format


def draw(chart: Chart) -> str:
    """The chart as one svg element; as tall as it has names, where it has them."""
    left, height = (NAMES, TOP + ROW * len(chart.y.names) + BOTTOM) if chart.y.names else (LEFT, HEIGHT)
    return TEMPLATES.get_template("chart.svg").render(
        chart=chart,
        x=_scale(chart.x, left, WIDTH - RIGHT),
        y=_scale(chart.y, height - BOTTOM, TOP),
        dotted={dot.y for dot in chart.dots},
        width=WIDTH,
        height=height,
        left=left,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=height - BOTTOM,
        letters=LETTERS,
        failed=FAILED,
        zip=zip,
    )


def _scale(axis: Axis, start: float, end: float) -> Callable[[float], float]:
    def place(value: float) -> float:
        part = axis.place(max(value, axis.low)) if axis.log else axis.place(value)
        return start + min(max(part, -0.02), 1.02) * (end - start)

    return place
