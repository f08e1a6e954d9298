"""The report as one HTML page that needs nothing else: no network, light and dark, wide and narrow."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from ftdnas.agreement.comparison import Comparison, Line, Table, failures
from ftdnas.agreement.estimates import Estimate
from ftdnas.report import views
from ftdnas.report.charts import Chart, number
from ftdnas.report.ledger import ONCE, Stage
from ftdnas.report.style import SCRIPT, STYLE, page_policy
from ftdnas.report.svg import draw
from ftdnas.report.terminal import beside, points, seconds_told, told_truth, undefined_or

MOST_CANDIDATES = 500  # rows on the page; the CSV has all
MOST_FAILURES = 200
UNKNOWN = "How far to trust this ranking is not known: no candidate was trained for real to compare it with."
TOP_HEADS = ["ranking", "k", "precision", "regret, points", "Spearman, best by truth", "tau-b, best by truth"]
TOP_HEADS += ["Spearman, best by ranking", "tau-b, best by ranking"]
MOST_LETTERS = 200  # of a value of the provenance


@dataclass(frozen=True)
class Extras:
    """What a report says beside the figures.

    `images`: PNG files of the synthetic images or of how they came to be, by what they show. `provenance`: what the
    figures were made of, by name. `ledger`: what each stage cost; `break_even`: sentences on it. `failures`: (stage,
    architecture, error) of what is not in the table.
    """

    title: str
    images: Mapping[str, Path] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    failures: Sequence[tuple[str, str, str]] = ()
    ledger: Sequence[Stage] = ()
    break_even: Sequence[str] = ()


def page(table: Table, comparison: Comparison | None, extras: Extras, charts: Mapping[str, Sequence[Chart]]) -> str:
    """The whole page. `comparison`: None where there is no truth; `charts`: those of `views.charts`."""
    sections = list(_sections(table, comparison, extras, charts))
    links = "".join(f'<a href="#{name}">{escape(heading)}</a>' for name, heading, _ in sections)
    body = "\n".join(f'<section id="{name}">\n<h2>{escape(h)}</h2>\n{text}\n</section>' for name, h, text in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{page_policy()}">
<title>{escape(extras.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(extras.title)}</h1>
{_first(comparison)}
</header>
<nav aria-label="Sections">{links}</nav>
<main>
{body}
</main>
<div class="tip" role="status" hidden></div>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _first(comparison: Comparison | None) -> str:
    if comparison is None:
        return f'<p class="verdict">{escape(UNKNOWN)}</p>'
    ceiling = undefined_or(comparison.ceiling)
    return (
        f'<p class="verdict">{escape(comparison.verdict.sentence)}</p>\n'
        f"<p>{escape(beside(comparison))}</p>\n"
        f'<p class="soft">Agreement with {escape(told_truth(comparison))}. '
        f"Noise ceiling, one seed of the truth against another: {escape(ceiling)}.</p>"
    )


def _sections(
    table: Table, comparison: Comparison | None, extras: Extras, charts: Mapping[str, Sequence[Chart]]
) -> Iterator[tuple[str, str, str]]:
    """Id, heading and content of each."""
    drawn = {
        section: f'<div class="pair">{"".join(map(_figure, several))}</div>'
        for section, several in charts.items()
        if several
    }
    if comparison is not None:
        yield "agreement", "Agreement", drawn["agreement"]
        yield "ways", "Every way to rank", _ways(comparison)
    for section, heading in (("cost", "Cost"), ("bias", "Bias"), ("front", "Pareto front")):
        if section in drawn:
            yield section, heading, drawn[section]
    if extras.ledger or extras.break_even:
        yield "ledger", "Cost ledger", _ledger(extras)
    yield "candidates", "Candidates", _candidates(table)
    yield "failures", "Failures", _failures(table, comparison, extras)
    if extras.images:
        yield "images", "Synthetic images", "".join(_image(told, path) for told, path in extras.images.items())
    yield "provenance", "Provenance and notes", _provenance(extras)


def _figure(chart: Chart) -> str:
    legend = "".join(f"<li>{escape(text.partition('  ')[2])}</li>" for text in chart.legend)
    return (
        f"<figure><h3>{escape(chart.heading)}</h3>\n{draw(chart)}\n<figcaption>{escape(chart.caption)}</figcaption>"
        "</figure>" + (f'<ol class="legend">{legend}</ol>' if legend else "")
    )


def _ways(comparison: Comparison) -> str:
    heads = ["ranking", "Spearman", "better half", "proxy ahead by", "ahead, Bonferroni", "ahead, better half"]
    heads += ["with those at chance", "tau-b with them"] if comparison.at_chance else []
    heads += ["tau-b", "better half, tau-b", "beyond parameters", "failed", "dead", "role"]
    rows = []
    for line in comparison.lines:
        estimates: list[Estimate | None] = [line.headline.spearman, line.better_half.spearman]
        estimates += [line.ahead, line.adjusted, line.ahead_better_half]
        estimates += [line.everything.spearman, line.everything.kendall] if comparison.at_chance else []
        estimates += [line.headline.kendall, line.better_half.kendall, line.beyond_parameters]
        cells = [_head(line), *map(_estimate, estimates)]
        cells += [_number(line.failed), _number(line.dead), f"<td>{escape(line.role)}</td>"]
        rows.append(cells)
    first = _table("Correlation with the truth", heads, rows, marked=0)
    note = (
        f"Larger is better; in brackets {100 * comparison.level:.0f} % intervals over architectures and seeds. "
        "Beyond parameters: the partial Spearman given log-parameters. Proxy ahead by: the paired difference of "
        "Spearman; the verdict takes the Bonferroni intervals for “do not use it”."
    )
    parts = [first, f'<p class="note">{escape(note)}</p>']
    parts.append("<h3>The best k</h3>")
    parts.append(_table("What the best k are worth", TOP_HEADS, list(_top_rows(comparison))))
    share = f"k = {comparison.percent_k} is 5 % of the candidates. "
    note = (
        f"{share}Precision: the share of the k best by that ranking that are among the k best in truth. Regret: points "
        "of accuracy lost by really training only those k. The correlations are within the k best by truth, and within "
        "the k best by that ranking; a handful of networks carries little, whatever the figure."
    )
    parts.append(f'<p class="note">{escape(note)}</p>')
    return "\n".join(parts)


def _top_rows(comparison: Comparison) -> Iterator[list[str]]:
    for line in comparison.lines:
        for top in line.tops:
            ranked = (top.by_truth.spearman, top.by_truth.kendall, top.by_proxy.spearman, top.by_proxy.kendall)
            lost = "" if top.regret.value is None else top.regret.value
            regret = f'<td data-v="{lost}" title="{escape(top.regret.method)}">{escape(points(top.regret))}</td>'
            yield [_head(line), _number(top.k), _estimate(top.precision), regret, *map(_estimate, ranked)]


def _ledger(extras: Extras) -> str:
    rows = [
        [
            f"<th scope=row>{escape(stage.name)}</th>",
            _number(stage.seconds, seconds_told(stage.seconds)),
            _number(stage.count),
            "<td></td>" if stage.each_s is None else _number(stage.each_s, seconds_told(stage.each_s)),
            f"<td>{escape(stage.paid)}</td>",
            f"<td>{escape(stage.device)}</td>",
            f'<td class="long">{escape(stage.note)}</td>',
        ]
        for stage in extras.ledger
    ]
    heads = ["stage", "seconds", "pieces", "seconds each", "paid", "device", "what"]
    once = sum(stage.seconds for stage in extras.ledger if stage.paid == ONCE)
    total = sum(stage.seconds for stage in extras.ledger)
    parts = [f"<p>{escape(text)}</p>" for text in extras.break_even]
    if rows:
        told = f"In all {seconds_told(total)} s of one process, of which {seconds_told(once)} s are paid once."
        parts = [_table("What each stage cost", heads, rows), f"<p>{escape(told)}</p>", *parts]
    return "\n".join(parts)


def _candidates(table: Table) -> str:
    proxy, others = table.columns[0], table.columns[1:]
    by_proxy = views.ranks(proxy.values)
    by_truth = views.ranks(table.truth) if table.truth else []
    order = sorted(range(len(table.candidates)), key=lambda row: (by_proxy[row], table.candidates[row]))
    heads = ["rank", "architecture", proxy.name, *(["truth, %", "real rank"] if table.truth else []), "parameters"]
    heads += ["FLOPs"] * bool(table.flops) + ["latency, ms"] * bool(table.latency_ms)
    heads += [column.name for column in others]
    rows = []
    for row in order[:MOST_CANDIDATES]:
        cells = [_number(by_proxy[row], f"{by_proxy[row]:g}"), f"<th scope=row>{escape(table.candidates[row])}</th>"]
        cells.append(_value(proxy.values[row]))
        if table.truth:
            true = table.truth[row]
            cells.append("<td>failed</td>" if true is None else _number(true, f"{100 * true:.2f}"))
            cells.append(_number(by_truth[row], f"{by_truth[row]:g}"))
        cells.append(_number(table.parameters[row], f"{table.parameters[row]:,}"))
        if table.flops:
            cells.append(_number(table.flops[row], number(table.flops[row])))
        if table.latency_ms:
            cells.append(_value(table.latency_ms[row]))
        cells += [_value(column.values[row]) for column in others]
        rows.append(cells)
    left = len(order) - len(rows)
    more = f'<p class="note">{left:,} more are in report.csv.</p>' if left > 0 else ""
    return _table("Candidates, best by the proxy first", heads, rows) + more


def _failures(table: Table, comparison: Comparison | None, extras: Extras) -> str:
    known = comparison.failures if comparison else failures(table)
    rows = [(lost.column, lost.architecture, ("dead: " if lost.dead else "") + lost.error) for lost in known]
    rows += list(extras.failures)
    if not rows:
        return "<p>None: every candidate has a score in every column.</p>"
    cells = [
        [f"<td>{escape(stage)}</td>", f"<th scope=row>{escape(name)}</th>", f'<td class="long">{escape(error)}</td>']
        for stage, name, error in rows[:MOST_FAILURES]
    ]
    left = len(rows) - MOST_FAILURES
    more = f'<p class="note">{left:,} more are in report.json.</p>' if left > 0 else ""
    return f"<p>{len(rows):,} in all.</p>" + _table("Failures", ["column", "architecture", "why"], cells) + more


def _image(told: str, path: Path) -> str:
    coded = base64.b64encode(path.read_bytes()).decode()
    image = f'<img class="images" alt="{escape(told)}" src="data:image/png;base64,{coded}">'
    return f'<p class="soft">{escape(told)}</p>\n{image}'


def _provenance(extras: Extras) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in extras.notes)
    rows = [
        [f"<th scope=row>{escape(str(key))}</th>", f'<td class="long">{escape(_short(value))}</td>']
        for key, value in extras.provenance.items()
    ]
    table = _table("What the figures were made of", ["", ""], rows, sortable=False) if rows else ""
    return (f"<ul>{notes}</ul>" if notes else "") + table


def _short(value: Any) -> str:
    told = ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, Mapping) else str(value)
    return told if len(told) <= MOST_LETTERS else told[:MOST_LETTERS] + "… (whole in report.json)"


def _table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], marked: int | None = None, sortable: bool = True
) -> str:
    head = "".join(f"<th scope=col>{escape(text)}</th>" for text in heads)
    body = "\n".join(
        f"<tr{' class=own' if number == marked else ''}>{''.join(cells)}</tr>" for number, cells in enumerate(rows)
    )
    label = escape(caption)
    kind = ' class="sortable"' if sortable else ""
    top = f"<thead><tr>{head}</tr></thead>" if any(heads) else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table{kind} aria-label="{label}">'
        f"{top}<tbody>\n{body}\n</tbody></table></div>"
    )


def _head(line: Line) -> str:
    return f"<th scope=row>{escape(line.title)}</th>"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "<td></td>"
    value = "" if estimate.value is None else f"{estimate.value:.6g}"
    told = f"{estimate.n} candidates; {estimate.method}"
    return f'<td data-v="{value}" title="{escape(told)}">{escape(str(estimate))}</td>'


def _number(value: float, told: str | None = None) -> str:
    return f'<td class="number" data-v="{value:.8g}">{escape(told or f"{value:,}")}</td>'


def _value(value: float | None) -> str:
    return "<td></td>" if value is None else _number(value, f"{value:.5g}")
