"""A chart as a PNG file, for a paper or a chat: the same marks that the page draws."""

from __future__ import annotations

import warnings
from pathlib import Path

from matplotlib.figure import Figure

from distill.files import whole_file
from ftdnas.report.charts import FAILED, FAINT, MARKED, PLAIN, Chart

COLOURS = {PLAIN: "#3b6fb6", MARKED: "#c8501e", FAINT: "#9aa1a9", FAILED: "#b3261e"}


def save(chart: Chart, path: Path) -> None:
    """Write the chart as a PNG."""
    height = 1.0 + 0.22 * len(chart.y.names) if chart.y.names else 4.6
    figure = Figure(figsize=(6.4, height), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for curve in chart.curves:
        colour = COLOURS[curve.tone]
        axes.plot(curve.x, curve.y, "--" if curve.dashed else "-", color=colour, label=curve.label or None)
        if curve.low and curve.high:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    for dot in chart.layers:
        colour = COLOURS[dot.tone]
        if dot.bar is not None:
            axes.plot(*dot.bar, color=colour, linewidth=1)
        mark, face = "x" if dot.tone == FAILED else "o", "none" if dot.open else colour
        axes.plot(dot.x, dot.y, mark, color=colour, markerfacecolor=face, markersize=5)
        if dot.label:
            axes.annotate(dot.label, (dot.x, dot.y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    for axis, name in ((chart.x, "x"), (chart.y, "y")):
        axes.set(**{f"{name}scale": "log" if axis.log else "linear", f"{name}lim": (axis.low, axis.high)})
        getattr(axes, f"set_{name}label")(axis.label, parse_math=False)
    if chart.y.names:
        axes.set_yticks(*zip(*chart.y.ticks(), strict=True), fontsize=7, parse_math=False)
    axes.grid(alpha=0.3)
    if any(curve.label for curve in chart.curves):
        for text in axes.legend(fontsize=7).get_texts():
            text.set_parse_math(False)
    axes.set_title(chart.heading, size=10, parse_math=False)
    if chart.legend:
        figure.text(0.01, -0.02, "\n".join(chart.legend), size=7, va="top", parse_math=False)
    with whole_file(path) as beside, warnings.catch_warnings():
        # Names may be in any script; a letter that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        figure.savefig(beside, format="png", bbox_inches="tight")
