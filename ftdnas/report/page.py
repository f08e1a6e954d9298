"""The report as one HTML page that needs nothing else: no network, light and dark, wide and narrow."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ftdnas.agreement.comparison import Comparison, Table, failures
from ftdnas.agreement.estimates import Estimate
from ftdnas.agreement.winner import Take
from ftdnas.report import views
from ftdnas.report.charts import Chart, number
from ftdnas.report.finished import Finished
from ftdnas.report.ledger import ONCE, Stage
from ftdnas.report.style import SCRIPT, STYLE, page_policy
from ftdnas.report.svg import TEMPLATES, draw
from ftdnas.report.terminal import beside, points, seconds_told, told_truth, undefined_or
from ftdnas.report.words import UNKNOWN, described, take_told

MOST_CANDIDATES = 500  # rows on the page; the CSV has all
MOST_FAILURES = 200
TOP_HEADS = ["ranking", "k", "precision", "regret, points", "Spearman, best by truth", "tau-b, best by truth"]
TOP_HEADS += ["Spearman, best by ranking", "tau-b, best by ranking"]
MOST_LETTERS = 200  # of a value of the provenance
SECTIONS = {  # id -> heading, in the order of the page
    "finished": "The finished network",
    "agreement": "Agreement",
    "ways": "Every way to rank",
    "cost": "Cost",
    "bias": "Bias",
    "front": "Pareto front",
    "ledger": "Cost ledger",
    "candidates": "Candidates",
    "failures": "Failures",
    "images": "Synthetic images",
    "provenance": "Provenance and notes",
}


@dataclass(frozen=True)
class Extras:
    """What a report says beside the figures.

    `take`: which network, None where none was really trained; `finished`: what came of it, None before that.
    `images`: PNG files of the synthetic images or of how they came to be, by what they show. `provenance`: what the
    figures were made of, by name. `ledger`: what each stage cost; `break_even`: sentences on it. `failures`: (stage,
    architecture, error) of what is not in the table.
    """

    title: str
    take: Take | None = None
    finished: Finished | None = None
    images: Mapping[str, Path] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    failures: Sequence[tuple[str, str, str]] = ()
    ledger: Sequence[Stage] = ()
    break_even: Sequence[str] = ()


@dataclass(frozen=True)
class Cell:
    """`value`: what the column is sorted by, where that is not the text. `kind`: "head", "number" or "long"."""

    text: str = ""
    kind: str = ""
    value: str | None = None
    title: str = ""


@dataclass(frozen=True)
class Cells:
    """A table of the page."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def page(table: Table, comparison: Comparison | None, extras: Extras, charts: Mapping[str, Sequence[Chart]]) -> str:
    """The whole page. `comparison`: None where there is no truth; `charts`: those of `views.charts`.

    Names may hold anything: the template escapes all but the style, the script and what `svg` draws.
    """
    empty = {name for name in ("agreement", "cost", "bias", "front") if not charts.get(name)}
    empty |= {"ways"} if comparison is None else set()
    empty |= set() if extras.ledger or extras.break_even else {"ledger"}
    empty |= set() if extras.images else {"images"}
    empty |= set() if extras.finished else {"finished"}
    told: dict[str, Any] = {}
    if comparison is not None:
        told = {
            "beside": beside(comparison),
            "truth": told_truth(comparison),
            "ceiling": undefined_or(comparison.ceiling),
            "ways": _ways(comparison),
            "tops": Cells(TOP_HEADS, list(_top_rows(comparison))),
        }
    take = extras.take
    if take is not None:
        told["take"] = (described(table, table.candidates.index(take.name)), " ".join(take_told(take, table)))
    return TEMPLATES.get_template("report.html").render(
        extras=extras,
        comparison=comparison,
        unknown=UNKNOWN,
        sections={name: heading for name, heading in SECTIONS.items() if name not in empty},
        charts=charts,
        draw=lambda chart: Markup(draw(chart)),
        policy=Markup(page_policy()),
        style=Markup(STYLE),
        script=Markup(SCRIPT),
        by_class=_by_class(extras.finished),
        ledger=_ledger(extras),
        total=seconds_told(sum(stage.seconds for stage in extras.ledger)),
        once=seconds_told(sum(stage.seconds for stage in extras.ledger if stage.paid == ONCE)),
        candidates=_candidates(table),
        most_candidates=MOST_CANDIDATES,
        failures=_failures(table, comparison, extras),
        most_failures=MOST_FAILURES,
        images={what: base64.b64encode(path.read_bytes()).decode() for what, path in extras.images.items()},
        provenance=Cells([], [[Cell(str(k), "head"), Cell(_short(v), "long")] for k, v in extras.provenance.items()]),
        **told,
    )


def _ways(comparison: Comparison) -> Cells:
    heads = ["ranking", "Spearman", "better half", "proxy ahead by", "ahead, Bonferroni", "ahead, better half"]
    heads += ["with those at chance", "tau-b with them"] if comparison.at_chance else []
    heads += ["tau-b", "better half, tau-b", "beyond parameters", "failed", "dead", "role"]
    rows = []
    for line in comparison.lines:
        estimates: list[Estimate | None] = [line.headline.spearman, line.better_half.spearman]
        estimates += [line.ahead, line.adjusted, line.ahead_better_half]
        estimates += [line.everything.spearman, line.everything.kendall] if comparison.at_chance else []
        estimates += [line.headline.kendall, line.better_half.kendall, line.beyond_parameters]
        counts = [_number(line.failed), _number(line.dead), Cell(line.role)]
        rows.append([Cell(line.title, "head"), *map(_estimate, estimates), *counts])
    return Cells(heads, rows)


def _top_rows(comparison: Comparison) -> Iterator[list[Cell]]:
    for line in comparison.lines:
        for top in line.tops:
            ranked = (top.by_truth.spearman, top.by_truth.kendall, top.by_proxy.spearman, top.by_proxy.kendall)
            lost = "" if top.regret.value is None else str(top.regret.value)
            regret = Cell(points(top.regret), value=lost, title=top.regret.method)
            first = [Cell(line.title, "head"), _number(top.k), _estimate(top.precision)]
            yield [*first, regret, *map(_estimate, ranked)]


def _by_class(found: Finished | None) -> dict[str, Cells]:
    """Tables by their captions."""
    if found is None:
        return {}

    def share(value: float) -> Cell:
        return _number(value, f"{100 * value:.1f} %")

    classes = [[Cell(name, "head"), _number(images), share(right)] for name, images, right in found.classes]
    confused = [[Cell(own, "head"), Cell(said), _number(count)] for own, said, count in found.confused]
    worst = [[Cell(photo, "head"), Cell(own), Cell(said), share(sure)] for photo, own, said, sure in found.worst]
    tables = {
        "Classes, the hardest first": Cells(["class", "test images", "right"], classes),
        "What was taken for what": Cells(["class", "taken for", "times"], confused),
        "Wrong, and most sure of it": Cells(["photo", "class", "taken for", "how sure"], worst),
    }
    return {caption: table for caption, table in tables.items() if table.rows}


def _ledger(extras: Extras) -> Cells:
    heads = ["stage", "seconds", "pieces", "seconds each", "paid", "device", "what"]
    rows = [
        [
            Cell(stage.name, "head"),
            _number(stage.seconds, seconds_told(stage.seconds)),
            _number(stage.count),
            Cell() if stage.each_s is None else _number(stage.each_s, seconds_told(stage.each_s)),
            Cell(stage.paid),
            Cell(stage.device),
            Cell(stage.note, "long"),
        ]
        for stage in extras.ledger
    ]
    return Cells(heads, rows)


def _candidates(table: Table) -> Cells:
    proxy, others = table.columns[0], table.columns[1:]
    by_proxy = views.ranks(proxy.values)
    columns = {"rank": [_number(rank, f"{rank:g}") for rank in by_proxy]}
    columns["architecture"] = [Cell(name, "head") for name in table.candidates]
    columns[proxy.name] = [_value(value) for value in proxy.values]
    if table.truth:
        columns["truth, %"] = [Cell("failed") if v is None else _number(v, f"{100 * v:.2f}") for v in table.truth]
        columns["real rank"] = [_number(rank, f"{rank:g}") for rank in views.ranks(table.truth)]
    columns["parameters"] = [_number(count) for count in table.parameters]
    columns |= {"FLOPs": [_number(count, number(count)) for count in table.flops]} if table.flops else {}
    columns |= {"latency, ms": [_value(latency) for latency in table.latency_ms]} if table.latency_ms else {}
    columns |= {column.name: [_value(value) for value in column.values] for column in others}
    order = sorted(range(len(table.candidates)), key=lambda row: (by_proxy[row], table.candidates[row]))
    return Cells(list(columns), [[cells[row] for cells in columns.values()] for row in order])


def _failures(table: Table, comparison: Comparison | None, extras: Extras) -> Cells:
    known = comparison.failures if comparison else failures(table)
    lost = [(failure.column, failure.architecture, "dead: " * failure.dead + failure.error) for failure in known]
    rows = [[Cell(stage), Cell(name, "head"), Cell(error, "long")] for stage, name, error in [*lost, *extras.failures]]
    return Cells(["column", "architecture", "why"], rows)


def _short(value: Any) -> str:
    told = ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, Mapping) else str(value)
    return told if len(told) <= MOST_LETTERS else told[:MOST_LETTERS] + "… (whole in report.json)"


def _estimate(estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell()
    value = "" if estimate.value is None else f"{estimate.value:.6g}"
    return Cell(str(estimate), value=value, title=f"{estimate.n} candidates; {estimate.method}")


def _number(value: float, told: str | None = None) -> Cell:
    return Cell(told or f"{value:,}", "number", f"{value:.8g}")


def _value(value: float | None) -> Cell:
    return Cell() if value is None else _number(value, f"{value:.5g}")
