"""The charts as PNG files, for a paper or a chat: the same marks that the page draws."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from distill.files import whole_file
from ftdnas.report.charts import FAILED, FAINT, MARKED, PLAIN, Axis, Chart, Forest

DPI = 120
COLOURS = {PLAIN: "#3b6fb6", MARKED: "#c8501e", FAINT: "#9aa1a9", FAILED: "#b3261e"}


def save(chart: Chart, path: Path) -> None:
    """Write the chart as a PNG."""
    figure = Figure(figsize=(6.4, 4.6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for curve in chart.curves:
        colour = COLOURS[curve.tone]
        axes.plot(curve.x, curve.y, color=colour, linestyle="--" if curve.dashed else "-", label=curve.label or None)
        if curve.low and curve.high:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    for dot in sorted(chart.dots, key=lambda dot: dot.tone == MARKED):
        colour = COLOURS[dot.tone]
        if dot.low is not None and dot.high is not None:
            axes.plot([dot.x, dot.x], [dot.low, dot.high], color=colour, linewidth=1)
        face = "none" if dot.open else colour
        if dot.tone == FAILED:
            axes.scatter([dot.x], [dot.y], s=24, color=colour, marker="x")
        else:
            axes.scatter([dot.x], [dot.y], s=24, facecolors=face, edgecolors=colour, zorder=3)
        if dot.label:
            axes.annotate(dot.label, (dot.x, dot.y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    _axis(axes, "x", chart.x)
    _axis(axes, "y", chart.y)
    axes.grid(alpha=0.3)
    if any(curve.label for curve in chart.curves):
        for text in axes.legend(fontsize=7).get_texts():
            text.set_parse_math(False)
    axes.set_title(chart.heading, size=10, parse_math=False)
    if chart.legend:
        figure.text(0.01, -0.02, "\n".join(chart.legend), size=7, va="top", parse_math=False)
    _write(figure, path)


def save_forest(forest: Forest, path: Path) -> None:
    """Write the forest as a PNG, as tall as it has lines."""
    figure = Figure(figsize=(6.4, 1.0 + 0.22 * len(forest.rows)), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color=COLOURS[FAINT], linewidth=1)
    for place, row in enumerate(forest.rows):
        sure = row.low is not None and row.high is not None and (row.low > 0 or row.high < 0)
        colour = COLOURS[MARKED if sure else PLAIN]
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [-place, -place], color=colour, linewidth=1)
        axes.scatter([row.value], [-place], s=20, color=colour)
    names = [f"{row.group}  {row.label} ({row.n})" for row in forest.rows]
    axes.set_yticks([-place for place in range(len(names))], names, fontsize=7, parse_math=False)
    _axis(axes, "x", forest.x)
    axes.grid(alpha=0.3, axis="x")
    axes.set_title(forest.heading, size=10, parse_math=False)
    _write(figure, path)


def _axis(axes: Any, which: str, axis: Axis) -> None:
    getattr(axes, f"set_{which}label")(axis.label, parse_math=False)
    if axis.log:
        getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"set_{which}lim")(axis.low, axis.high)


def _write(figure: Figure, path: Path) -> None:
    with whole_file(path) as beside, warnings.catch_warnings():
        # Names may be in any script; a letter that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        figure.savefig(beside, format="png", dpi=DPI, bbox_inches="tight")
