"""A report on disk: report.html, report.csv, report.json and, where asked for, a PNG of every chart."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.files import whole_file
from ftdnas.agreement.comparison import Comparison, Table
from ftdnas.report import views
from ftdnas.report.page import Extras, page
from ftdnas.report.words import UNKNOWN
from ftdnas.runtime.records import to_json

PAGE = "report.html"
SCHEMA = 2  # of report.json; 1 had neither this field nor `take`


def write_report(
    folder: Path, table: Table, comparison: Comparison | None, extras: Extras, *, png: bool = False
) -> Path:
    """Write all files and return the page's. `comparison`: None where the table has no truth; `png`: the charts too.

    Raises FileNotFoundError for an image of `extras` that is not there.
    """
    charts = views.charts(table, comparison)
    _write(folder / PAGE, page(table, comparison, extras, charts))
    _write(folder / "report.csv", rows_of(table))
    _write(folder / "report.json", json.dumps(record(table, comparison, extras), indent=1, allow_nan=False) + "\n")
    if png:
        from ftdnas.report.plots import save

        for chart in itertools.chain(*charts.values()):
            save(chart, folder / f"{chart.name}.png")
    return folder / PAGE


def record(table: Table, comparison: Comparison | None, extras: Extras) -> dict[str, Any]:
    """Everything in the report as JSON; `runtime.records.from_json` reads its table and its comparison back."""
    told: dict[str, Any] = to_json(extras)
    del told["images"]
    verdict = comparison.verdict.sentence if comparison else UNKNOWN
    if extras.take is not None:
        row = table.candidates.index(extras.take.name)
        told["take"] |= {"parameters": table.parameters[row], "choices": to_json(table.choices[row : row + 1])}
    return {"schema": SCHEMA, "verdict": verdict, **told, "comparison": to_json(comparison), "table": to_json(table)}


def rows_of(table: Table) -> str:
    """One CSV row per candidate, best by the proxy first, with every column of the table and every seed."""
    by_proxy = views.ranks(table.columns[0].values)
    columns: dict[str, Sequence[Any]] = {"rank": by_proxy, "architecture": table.candidates}
    if table.truth:
        columns |= {"truth": table.truth, "real_rank": views.ranks(table.truth)}
        columns |= {f"truth_seed_{number}": values for number, values in enumerate(table.truth_by_seed, start=1)}
    columns["parameters"] = table.parameters
    columns |= {"flops": table.flops} if table.flops else {}
    columns |= {"latency_ms": table.latency_ms} if table.latency_ms else {}
    columns |= {"class": table.classes} if table.classes else {}
    for key in dict.fromkeys(key for choices in table.choices for key in choices):
        columns[f"choice_{key}"] = [choices.get(key) for choices in table.choices]
    for column in table.columns:
        columns[column.name] = column.values
        columns |= {f"{column.name}_seed_{number}": seed for number, seed in enumerate(column.by_seed, start=1)}
        if any(column.errors):
            columns[f"{column.name}_error"] = column.errors
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    order = sorted(range(len(table.candidates)), key=lambda row: (by_proxy[row], table.candidates[row]))
    writer.writerows([values[row] for values in columns.values()] for row in order)
    return text.getvalue()


def _write(path: Path, content: str) -> None:
    with whole_file(path) as beside:
        beside.write_text(content, encoding="utf-8")
