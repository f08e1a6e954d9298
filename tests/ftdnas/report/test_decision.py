"""A report on one screen, whatever it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ftdnas.agreement.comparison import EQUAL_COST, PROXY, REFERENCE, Column, Table, compare
from ftdnas.agreement.winner import Readings, smallest_not_worse
from ftdnas.ranking.request import BASELINES
from ftdnas.report import words
from ftdnas.report.decision import answer, paragraph
from ftdnas.report.study import Written

N, IMAGES = 24, 500
rng = np.random.default_rng(0)
TRUTH = tuple(map(float, np.round(np.sort(rng.uniform(0.5, 0.95, N)) * IMAGES) / IMAGES))
NAMES = ("set.late_loss+params", *BASELINES)
MOBILE: dict[str, str | int | float] = {
    **{"width": "0.5", "stem": "half", "se": 0, "depth1": 2, "depth2": 3, "depth3": 1},
    **{f"kernel{number}": 5 for number in range(1, 4)},
    **{f"expansion{number}": 6 for number in range(1, 4)},
}


def column(name: str, number: int) -> Column:
    values = tuple((np.array(TRUTH) + np.random.default_rng(number).normal(0, 0.1, N)).tolist())
    role = PROXY if not number else REFERENCE if name.startswith("set") else EQUAL_COST
    title = f"a long title of {name} that nobody wants to read in a terminal of eighty columns"
    return Column(name, title, values, seconds=10.0 * number, role=role, short=words.plain(name, title))


TABLE = Table(
    space="convnet",
    candidates=tuple(f"mobilenet:{row}" for row in range(N)),
    parameters=tuple(10_000_000 + 1000 * row for row in range(N)),
    choices=tuple({**MOBILE, "width": "0.5" if row < 12 else "1.0"} for row in range(N)),
    num_classes=10,
    truth_name="ten epochs",
    truth=TRUTH,
    truth_images=IMAGES,
    columns=tuple(column(name, number) for number, name in enumerate(NAMES)),
)


def written(table: Table, study: str = "demo") -> Written:
    readings = {
        name: Readings((value,)) for name, value in zip(table.candidates, table.truth, strict=True) if value is not None
    }
    take = smallest_not_worse(readings, dict(zip(table.candidates, table.parameters, strict=True)), table.truth_images)
    return Written(study, Path("report.html"), table, compare(table, 0, 300), take, ())


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        replace(TABLE, columns=TABLE.columns[:1]),
        replace(TABLE, choices=tuple({"norm": "batch"} for _ in range(N))),
        replace(TABLE, truth_images=None),
        replace(TABLE, columns=(replace(TABLE.columns[0], values=TRUTH, overhead_s=1e6), *TABLE.columns[1:])),
        replace(TABLE, columns=(replace(TABLE.columns[0], values=(None,) * N), *TABLE.columns[1:])),
        replace(TABLE, columns=(replace(TABLE.columns[0], values=tuple(-one for one in TRUTH)), *TABLE.columns[1:])),
    ],
)
def test_it_is_at_most_20_lines_of_80_columns(table: Table) -> None:
    lines = answer(written(table))
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("Take         width") if table.choices[0] == MOBILE else lines[0].startswith("Take")
    assert any("weights" in line for line in lines[:3])
    assert lines[-1].startswith("  points lost against the best")
    assert any("(used)" in line for line in lines)
    assert any(line.strip().startswith("picked blindly") for line in lines)


def test_it_says_what_the_figures_say() -> None:
    # The proxy's favourite is the third best, and its first five miss the best.
    values = [float(row) for row in range(N)]
    values[N - 3] = 100.0
    values[N - 1] = values[N - 2] = 0.5
    proxy = replace(TABLE.columns[0], values=tuple(values), overhead_s=40.0)
    twin = next(one for one in TABLE.columns if one.name == "random1.late_loss+params")
    short = tuple({"width": row} for row in range(N))
    table = replace(TABLE, choices=short, columns=(proxy, replace(twin, values=TRUTH)))
    told = " ".join(" ".join(answer(written(table))).split())
    lost = f"{100 * (TRUTH[-1] - TRUTH[-3]):.1f}"
    assert f"Its favourite came 3rd of 24, {lost} points behind." in told
    assert f"Training its first five loses {lost} points, picking five blindly" in told
    assert "random images 1 + size 0.0 0.0 0.0 1.00" in told
    assert f"The best of 24, 10,023,000 weights, read {100 * TRUTH[-1]:.1f} %" in told
    compared = compare(table, 0, 300)
    assert compared.verdict.against == ("random images 1 + size",)
    assert words.set_told(compared)[0].startswith(
        ("Not worth its cost (40 s)", "Not shown to be worth its cost (40 s)")
    )
    assert words.set_told(compare(replace(table, columns=(proxy,)), 0, 300))[0].startswith("Worth its cost (40 s)?")
    better = replace(table, columns=(replace(proxy, values=TRUTH), replace(twin, values=tuple(values[::-1]))))
    assert words.set_told(compare(better, 0, 300))[0].startswith("It ranks better than as many random")
    unset = replace(table, columns=(replace(proxy, name="az_nas"), twin))
    assert words.set_told(compare(unset, 0, 300)) == []


def test_what_is_over_and_underrated_is_named_where_it_is_shown() -> None:
    choices = tuple({"depth": 1 if row % 2 else 3} for row in range(N))
    scores = tuple(value - 0.2 * (row % 2) for row, value in enumerate(TRUTH))
    (told,) = words.beware_told(replace(TABLE, choices=choices, columns=(replace(TABLE.columns[0], values=scores),)))
    assert told.startswith("It underrates depth 1 by ")
    assert ", overrates depth 3 by " in told
    assert words.beware_told(replace(TABLE, choices=choices, columns=(replace(TABLE.columns[0], values=TRUTH),))) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("set.late_loss+params", "the set + size"),
        ("random2.accuracy", "random images 2 by accuracy"),
        ("early:0.5.late_loss", "0.5 real epochs"),
        ("early.late_loss", "a few real steps"),
        ("promote(az_nas,race)", "az_nas, then race"),
        ("hybrid(set,az_nas)", "fit of the set, az_nas"),
        ("table:12 epochs", "its title"),
    ],
)
def test_proxies_have_plain_names(name: str, told: str) -> None:
    assert words.plain(name, "its title") == told


def test_a_paragraph_leaves_out_what_has_no_room() -> None:
    assert paragraph("Take", [], 2) == []
    lines = paragraph("Take", ["The first. " * 3, "Too long for it. " * 20, "Short."], 2)
    assert " ".join(" ".join(lines).split()) == "Take The first. The first. The first. Short."
    assert len(paragraph("Take", ["Long. " * 100], 3)) == 3
