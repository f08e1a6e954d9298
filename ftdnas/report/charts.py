"""What a chart shows, apart from how it is drawn: `svg` draws it for the page, `plots` as a PNG."""

from __future__ import annotations

import math
from dataclasses import dataclass

# What a mark means; each has its colour in report.css and in `plots`.
PLAIN, MARKED, FAINT, FAILED = "plain", "marked", "faint", "failed"


@dataclass(frozen=True)
class Axis:
    """`low` < `high` are the ends of what is shown; both positive where `log`.

    `names`: of a y axis that has names instead of numbers: the places 0, -1, -2 ... from the top. A place without a dot
    is a heading of those below it.
    """

    label: str
    low: float
    high: float
    log: bool = False
    names: tuple[str, ...] = ()

    def place(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        if self.log:
            return (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        if self.names:
            return [(-float(place), name) for place, name in enumerate(self.names)]
        return _log_ticks(self) if self.log else _linear_ticks(self)


@dataclass(frozen=True)
class Dot:
    """A mark; `title` is told on hovering. `label`: a short text; `open`: a ring.

    `low`, `high`: an interval in y, in x where `across`.
    """

    x: float
    y: float
    title: str
    tone: str = PLAIN
    low: float | None = None
    high: float | None = None
    across: bool = False
    label: str = ""
    open: bool = False

    @property
    def bar(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """The ends of the interval: two x and two y."""
        if self.low is None or self.high is None:
            return None
        return ((self.low, self.high), (self.y, self.y)) if self.across else ((self.x, self.x), (self.low, self.high))


@dataclass(frozen=True)
class Curve:
    """Points joined by a line; with `low` and `high` inside a band."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    label: str = ""
    tone: str = PLAIN
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """`name`: of its file. `caption`: how to read it. `legend`: what the marks mean, in order."""

    name: str
    heading: str
    caption: str
    x: Axis
    y: Axis
    dots: tuple[Dot, ...] = ()
    curves: tuple[Curve, ...] = ()
    legend: tuple[str, ...] = ()

    @property
    def layers(self) -> list[Dot]:
        """The dots in the order in which they are drawn: marked ones lie above the others."""
        return sorted(self.dots, key=lambda dot: dot.tone == MARKED)


def around(values: list[float], label: str, log: bool = False, zero: bool = False) -> Axis:
    """An axis that shows all values with some room; `zero`: from 0 on."""
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = min(known, default=1.0), max(known, default=10.0)
    if log:
        return Axis(label, low / 1.3, high * 1.3, log=True)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(label, 0.0 if zero else low - room, high + room)


def number(value: float) -> str:
    """A short number: 0.013, 4.2, 120, 24k, 1.2M, 3.4G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value + 0.0:.3g}"


def _linear_ticks(axis: Axis) -> list[tuple[float, str]]:
    rough = (axis.high - axis.low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((s * power for s in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
    first = math.ceil(axis.low / step - 1e-9)
    last = math.floor(axis.high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(i * step, f"{i * step + 0.0:,.{digits}f}") for i in range(first, last + 1)]


def _log_ticks(axis: Axis) -> list[tuple[float, str]]:
    decades = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
    for parts in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        values = [part * 10.0**power for power in decades for part in parts]
        shown = [value for value in values if axis.low <= value <= axis.high]
        if len(shown) >= 3:
            break
    every = math.ceil(len(shown) / 7)
    return [(value, number(value)) for value in shown[::every]]
