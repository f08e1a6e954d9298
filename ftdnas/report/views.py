"""The charts of a report, made of a table and its comparison."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from scipy.stats import rankdata

from ftdnas.agreement.bias import biases, pareto
from ftdnas.agreement.bootstrap import Bootstrap
from ftdnas.agreement.comparison import EQUAL_COST, Comparison, Line, Table
from ftdnas.agreement.estimates import Repeated, Values, chance_regret, regret_at
from ftdnas.report.charts import FAILED, FAINT, MARKED, PLAIN, Axis, Chart, Curve, Dot, around, number
from ftdnas.report.terminal import seconds_told

TOP = 10  # of the proxy's ranking, marked
RESAMPLES = 1_000  # of the band
KS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100)
MOST_VALUES, MOST_LETTERS = 40, 20  # of the bias
FREE = 5  # how much less than the cheapest is drawn what costs nothing


def charts(table: Table, comparison: Comparison | None) -> dict[str, list[Chart]]:
    """Everything that is drawn, by the section of the page that it stands in."""
    if comparison is None:
        return {"front": fronts(table)}
    drawn: dict[str, Sequence[Chart | None]] = {
        "agreement": [scatter(table), regret(table, comparison.seed)],
        "cost": [cost(comparison, table)],
        "bias": [bias(table)],
        "front": fronts(table),
    }
    return {section: [chart for chart in figures if chart is not None] for section, figures in drawn.items()}


def ranks(values: Values) -> list[float]:
    """1 for the best, ties averaged; what failed shares the last place."""
    worst = [math.inf if value is None or math.isnan(value) else -value for value in values]
    return [float(rank) for rank in rankdata(worst)]


def top(table: Table) -> list[int]:
    """The rows of the proxy's best ten, best first."""
    values = table.columns[0].values
    known = [row for row, value in enumerate(values) if value is not None]
    return sorted(known, key=lambda row: -(values[row] or 0.0))[:TOP]


def percent(value: float | None) -> str:
    return "failed" if value is None else f"{100 * value:.2f} %"


def scatter(table: Table) -> Chart:
    """Real rank against the proxy's rank."""
    rows = [row for row, truth in enumerate(table.truth) if truth is not None]
    proxy = table.columns[0]
    scores, truth = [proxy.values[row] for row in rows], [table.truth[row] for row in rows]
    best = {*top(table)}
    dots = []
    for row, by_proxy, by_truth in zip(rows, ranks(scores), ranks(truth), strict=True):
        value, true = proxy.values[row], table.truth[row]
        failed = value is None
        at_chance = (true or 0.0) <= table.chance_bound
        told = f"{table.candidates[row]}\nreal rank {by_truth:g}, {percent(true)}\nrank by proxy {by_proxy:g}"
        told += f", {_failure(table, row)}" if failed else f", score {value:.4g}"
        told += f"\n{number(table.parameters[row])} parameters" + ("\nat chance in truth" if at_chance else "")
        tone = FAILED if failed else MARKED if row in best else PLAIN
        dots.append(Dot(by_truth, by_proxy, told, tone, open=at_chance and not failed))
    n = len(rows)
    curves = (Curve((1.0, max(2.0, n)), (1.0, max(2.0, n)), "perfect agreement", FAINT, dashed=True),)
    ends = (0.5 - 0.02 * n, n + 0.5 + 0.02 * n)
    return Chart(
        name="ranks",
        heading="Rank by proxy against real rank",
        caption=(
            f"1 is the best. Orange: the proxy's best {len(best)}, which a user would really train; "
            "rings: candidates at chance in truth; crosses: the proxy failed (last place)."
        ),
        x=Axis("real rank", *ends),
        y=Axis("rank by proxy", *ends),
        dots=tuple(dots),
        curves=curves,
    )


def regret(table: Table, seed: int) -> Chart | None:
    """What really training the k best loses, with a band, beside the baselines of equal cost and blind choice."""
    known = [row for row, truth in enumerate(table.truth) if truth is not None]
    ks = [k for k in KS if k < len(known)]
    if len(ks) < 2:
        return None

    def some(values: Sequence[Any]) -> list[Any]:
        return [values[row] for row in known]

    proxy, truth, places = table.columns[0], some(table.truth), tuple(map(float, ks))
    blind = tuple(100 * (chance_regret(k, truth) or 0.0) for k in ks)
    curves = [Curve(places, blind, "blind choice", FAINT, dashed=True)]
    for column in table.columns[1:]:
        if column.role == EQUAL_COST:
            values = [regret_at(k, some(column.values), truth, Bootstrap(seed, 100)).value for k in ks]
            if None not in values:
                curves.append(Curve(places, tuple(100 * (value or 0.0) for value in values), column.title, FAINT))
    bootstrap = Bootstrap(seed, RESAMPLES, classes=tuple(some(table.classes or table.candidates)))
    scores = Repeated(some(proxy.values), [some(values) for values in proxy.by_seed])
    true = Repeated(truth, [some(values) for values in table.truth_by_seed])
    banded = {}
    for k in ks:
        lost = regret_at(k, scores, true, bootstrap)
        if lost.value is not None and lost.low is not None and lost.high is not None:
            banded[float(k)] = (100 * lost.value, 100 * lost.low, 100 * lost.high)
    if banded:
        middle, lowest, highest = zip(*banded.values(), strict=True)
        curves.append(Curve(tuple(banded), middle, proxy.title, MARKED, lowest, highest))
    return Chart(
        name="regret",
        heading="What really training the k best loses",
        caption=(
            "Best accuracy of all candidates minus the best among the k chosen, in points. Orange with its 95 % band: "
            "the proxy; grey: baselines of equal cost; dashed: blind choice."
        ),
        x=around([*places], "k, candidates really trained", log=True),
        y=around([0.0, *(value for curve in curves for value in (*curve.y, *curve.high))], "regret, points", zero=True),
        curves=tuple(curves),
    )


def cost(comparison: Comparison, table: Table) -> Chart:
    """Seconds against correlation, one mark per way to rank."""
    lines = [line for line in comparison.lines if line.headline.spearman.value is not None]
    free = min((line.seconds for line in lines if line.seconds), default=1.0) / FREE
    spots = _spread([line.seconds or free for line in lines])
    dots: list[Dot] = []
    curves: list[Curve] = []
    for place, (line, x) in enumerate(zip(lines, spots, strict=True), start=1):
        estimate = line.headline.spearman
        tone = MARKED if line is comparison.proxy else FAINT if line.role != EQUAL_COST else PLAIN
        y, told = estimate.value or 0.0, f"{line.title}\nSpearman {estimate}\n{_cost(line)}"
        dots.append(Dot(x, y, told, tone, estimate.low, estimate.high, label=str(place)))
        if line.overhead_s:
            whole = line.seconds + line.overhead_s
            curves.append(Curve((x, whole), (y, y), "", tone, dashed=True))
            dots.append(Dot(whole, y, f"{told}\nwith what is paid once: {seconds_told(whole)} s", tone, open=True))
    ends = [dot.x for dot in dots] + ([table.train_all_s] if table.train_all_s else [])
    low = min([0.0, *(dot.low for dot in dots if dot.low is not None), *(dot.y for dot in dots)])
    axis = Axis("Spearman with the truth", max(-1.05, low - 0.05), 1.05)
    if table.train_all_s:
        spot = (table.train_all_s, table.train_all_s)
        curves.append(Curve(spot, (axis.low, axis.high), "training all for real", FAINT, dashed=True))
    return Chart(
        name="cost",
        heading="Cost against agreement",
        caption=(
            f"Seconds of one process for all {comparison.candidates} candidates; bars: 95 % intervals. Orange: the "
            "proxy; a ring adds what is paid once; blue: baselines of equal cost; grey: for reference. What costs "
            f"nothing is at the left edge{'; the dashed vertical is training all for real' * bool(table.train_all_s)}."
        ),
        x=around(ends or [1.0], "seconds, log scale", log=True),
        y=axis,
        dots=tuple(dots),
        curves=tuple(curves),
        legend=tuple(
            f"{place}  {line.title}: {line.headline.spearman}, {_cost(line)}" for place, line in enumerate(lines, 1)
        ),
    )


def bias(table: Table) -> Chart | None:
    """Which kind of candidate the proxy flatters: a line per value of a choice, below the name of the choice."""
    flattered = biases(table.choices, table.columns[0].values, table.truth)
    if not flattered:
        return None
    strongest = sorted(flattered, key=lambda gap: -abs(gap.mean))[:MOST_VALUES]
    flattered = [gap for gap in flattered if gap in strongest]
    names: list[str] = []
    dots = []
    for choice, gaps in itertools.groupby(flattered, key=lambda gap: gap.choice):
        names.append(choice)
        for gap in gaps:
            told, tone = f"{choice} {gap.value}: {gap.mean:+.1f} points", PLAIN
            if gap.low is not None and gap.high is not None:
                told += f" [{gap.low:+.1f}, {gap.high:+.1f}]"
                tone = MARKED if gap.low > 0 or gap.high < 0 else PLAIN
            told += f", {gap.n} candidates"
            dots.append(Dot(gap.mean, -len(names), told, tone, gap.low, gap.high, across=True))
            value = gap.value if len(gap.value) <= MOST_LETTERS else gap.value[: MOST_LETTERS - 1] + "…"
            names.append(f"{value} ({gap.n})")
    y = Axis("", 0.5 - len(names), 0.5, names=tuple(names))
    ends = [end for gap in flattered for end in (gap.low, gap.high, gap.mean, 0.0) if end is not None]
    return Chart(
        name="bias",
        heading="Which kind of candidate the proxy flatters",
        caption=(
            "Mean of (percentile by proxy - percentile by truth) of the candidates with that choice, with 95 % "
            "intervals (Student's t, each by itself); right of zero the proxy ranks them too high. In brackets: how "
            "many."
        ),
        x=around(ends, "points of percentile"),
        y=y,
        dots=tuple(dots),
        curves=(Curve((0.0, 0.0), (y.low, y.high), "", FAINT),),
    )


def fronts(table: Table) -> list[Chart]:
    """Accuracy (or, without a truth, the proxy's score) against each cost that is known."""
    costs: list[tuple[str, str, Sequence[float | None]]] = [("parameters", "parameters, log scale", table.parameters)]
    if table.flops:
        costs.append(("flops", "FLOPs of one image, log scale", table.flops))
    if table.latency_ms:
        costs.append(("latency", "latency, ms, log scale", table.latency_ms))
    drawn = [_front(table, *cost) for cost in costs]
    return [chart for chart in drawn if chart is not None]


def _front(table: Table, name: str, label: str, costs: Sequence[float | None]) -> Chart | None:
    real = bool(table.truth)
    values: Values = table.truth if real else table.columns[0].values
    scale = 100.0 if real else 1.0
    known = {
        row: (float(cost), scale * value)
        for row, (cost, value) in enumerate(zip(costs, values, strict=True))
        if cost is not None and cost > 0 and value is not None and math.isfinite(value)
        if not real or value > table.chance_bound
    }
    if len(known) < 2:
        return None
    rows = list(known)
    best = [rows[place] for place in pareto([known[row][0] for row in rows], [known[row][1] for row in rows])]
    dots = []
    for row, (x, y) in known.items():
        shown = percent(values[row]) if real else f"score {values[row]:.4g}"
        title = f"{table.candidates[row]}\n{shown}\n{number(x)} {name}" + ("\non the front" if row in best else "")
        dots.append(Dot(x, y, title, MARKED if row in best else FAINT))
    left = sum(value is not None for value in values) - len(known)
    return Chart(
        name=f"front-{name}",
        heading=f"{'Accuracy' if real else 'Score'} against {'FLOPs' if name == 'flops' else name}",
        caption=f"Orange: the Pareto front, {len(best)} candidates that no other beats in both."
        + (f" {left} at chance are not drawn." if real and left else ""),
        x=around([x for x, _ in known.values()], label, log=True),
        y=around(
            [y for _, y in known.values()], "accuracy in truth, percent" if real else f"score: {table.columns[0].title}"
        ),
        dots=tuple(dots),
        curves=(Curve(tuple(known[row][0] for row in best), tuple(known[row][1] for row in best), "", MARKED),),
    )


def _failure(table: Table, row: int) -> str:
    errors = table.columns[0].errors
    return f"failed: {errors[row] or 'no value'}" if errors else "failed"


def _cost(line: Line) -> str:
    once = f" and {seconds_told(line.overhead_s)} s once" if line.overhead_s else ""
    return f"{seconds_told(line.seconds)} s{once}" if line.seconds or line.overhead_s else "costs nothing"


def _spread(seconds: list[float]) -> list[float]:
    """Costs on a log scale, moved apart as little as shows each of them."""
    if not seconds:
        return []
    step = max(math.log10(max(seconds) / min(seconds)), 1.0) * 0.016
    order = sorted(range(len(seconds)), key=lambda place: seconds[place])
    logs = [math.log10(seconds[place]) for place in order]
    up, down = [*logs], [*logs]
    for place in range(1, len(logs)):
        up[place] = max(up[place], up[place - 1] + step)
        down[-1 - place] = min(down[-1 - place], down[-place] - step)
    spots = dict(zip(order, ((a + b) / 2 for a, b in zip(up, down, strict=True)), strict=True))
    return [10 ** spots[place] for place in range(len(seconds))]
