"""Every column against the truth, and what is left out where."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from ftdnas.agreement.bootstrap import Bootstrap
from ftdnas.agreement.comparison import PROXY, REFERENCE, Column, Comparison, Table, compare, decide
from ftdnas.agreement.estimates import Repeated, spearman, spearman_difference
from ftdnas.agreement.verdict import AVOID, USE
from ftdnas.report.terminal import everything
from ftdnas.runtime.records import from_json, to_json

N = 60
QUICK = 600  # resamples
rng = np.random.default_rng(0)
TRUTH = rng.uniform(0.3, 0.9, N)


def noisy(noise: float, seed: int) -> tuple[float, ...]:
    return tuple((TRUTH + np.random.default_rng(seed).normal(0, noise, N)).tolist())


def table(**changes: object) -> Table:
    settings: dict[str, object] = {
        "space": "convnet",
        "candidates": tuple(f"convnet:{row}" for row in range(N)),
        "classes": tuple(f"convnet:{row // 2 * 2 if row < 10 else row}" for row in range(N)),
        "parameters": tuple(int(10 ** (4 + 2 * value)) for value in noisy(0.2, 1)),
        "choices": tuple({"width": 32 if row % 3 else 64} for row in range(N)),
        "num_classes": 10,
        "truth_name": "two seeds of ten epochs",
        "truth": tuple(TRUTH.tolist()),
        "truth_by_seed": (noisy(0.02, 2), noisy(0.02, 3)),
        "columns": (
            Column("set.late_loss", "the set", noisy(0.05, 4), seconds=60.0, overhead_s=900.0, role=PROXY),
            Column("params", "parameters", noisy(0.5, 5)),
            Column("random.late_loss", "random images", noisy(0.3, 6), seconds=60.0),
            Column("table.12", "12 real epochs", noisy(0.01, 7), seconds=6e4, role=REFERENCE),
        ),
    }
    return Table(**{**settings, **changes})  # type: ignore[arg-type]


WHOLE = table()
COMPARED = compare(WHOLE, seed=0, resamples=QUICK)


def test_every_figure_is_that_of_the_statistics() -> None:
    bootstrap = Bootstrap(0, QUICK, classes=WHOLE.classes)
    truth = WHOLE.truth
    proxy, params = (column.values for column in WHOLE.columns[:2])
    line = COMPARED.lines[1]
    assert line.everything.spearman.value == spearman(params, truth, bootstrap).value
    assert line.headline == line.everything  # nobody is at chance
    assert line.ahead is not None
    assert line.ahead.value == spearman_difference(proxy, params, truth, bootstrap).value
    assert line.better_half.spearman.n == 30
    assert [top.k for top in line.tops] == [3, 5, 10, 20]
    assert COMPARED.percent_k == 3
    assert all(top.by_truth.spearman.n == top.k for top in line.tops)
    assert COMPARED.ceiling.value == spearman(WHOLE.truth_by_seed[0], WHOLE.truth_by_seed[1], bootstrap).value
    # A baseline of equal cost has a second interval, stricter for their number: two of them.
    adjusted = line.adjusted
    assert adjusted is not None
    assert None not in (adjusted.low, line.ahead.low)
    assert (adjusted.low or 0) < (line.ahead.low or 0)
    assert [one.adjusted is None for one in COMPARED.lines] == [True, False, False, True]
    assert COMPARED.proxy.ahead is None


def test_the_verdict_is_over_the_baselines_of_equal_cost_alone() -> None:
    assert COMPARED.verdict.decision == USE  # though twelve real epochs are better
    every = tuple(replace(column, role="equal cost") for column in WHOLE.columns[1:])
    judged = compare(table(columns=(WHOLE.columns[0], *every)), seed=0, resamples=QUICK)
    assert judged.verdict.decision == AVOID
    assert judged.verdict.against == ("12 real epochs",)


def test_decide_says_of_scores_alone_what_compare_says_of_the_table() -> None:
    proxy, *others = WHOLE.columns[:3]
    baselines = {column.title: Repeated(column.values, column.by_seed) for column in others}
    verdict = decide(
        Repeated(proxy.values, proxy.by_seed), baselines, WHOLE.truth, Bootstrap(0, QUICK, classes=WHOLE.classes)
    )
    assert verdict == compare(table(truth_by_seed=()), seed=0, resamples=QUICK).verdict


def test_candidates_at_chance_are_beside_the_headline_figure() -> None:
    truth = (*[0.1] * 20, *TRUTH[20:].tolist())
    compared = compare(table(truth=truth, truth_by_seed=()), seed=0, resamples=QUICK)
    assert (compared.at_chance, compared.with_truth) == (20, 60)
    assert compared.chance_bound == pytest.approx(0.105)
    proxy = compared.proxy
    assert (proxy.headline.spearman.n, proxy.everything.spearman.n) == (40, 60)
    expected = spearman(WHOLE.columns[0].values[20:], TRUTH[20:].tolist(), Bootstrap(0)).value
    assert proxy.headline.spearman.value == expected
    assert proxy.beyond_parameters.n == 40
    assert compared.ceiling.method == "undefined: a table of means"
    told = "\n".join(everything(compared))
    assert "40 candidates above chance; 20 more are at chance (at most 10.5 %)" in told
    assert "over all with those at chance" in told


@pytest.mark.parametrize(("images", "bound"), [(None, 0.105), (10_000, 0.109), (141, 0.1758)])
def test_chance_is_three_deviations_of_the_images_read(images: int | None, bound: float) -> None:
    assert table(truth_images=images).chance_bound == pytest.approx(bound, abs=1e-4)


def test_failed_candidates_are_named_and_last_in_the_choice() -> None:
    best = int(TRUTH.argmax())
    values = [*WHOLE.columns[0].values]
    values[best] = None
    errors: list[str | None] = [None] * N
    errors[best], errors[3] = "out of memory", "at chance after training"
    proxy = Column("set", "the set", tuple(values), tuple(errors), role=PROXY)
    compared = compare(table(columns=(proxy, *WHOLE.columns[1:])), seed=0, resamples=QUICK)
    line = compared.proxy
    assert (line.failed, line.dead) == (1, 1)
    assert line.headline.spearman.n == 59
    chosen = sorted((row for row in range(N) if row != best), key=lambda row: -WHOLE.columns[0].values[row])[:3]
    assert line.tops[0].regret.value == pytest.approx(TRUTH.max() - TRUTH[chosen].max())
    assert {(one.column, one.architecture, one.dead) for one in compared.failures} == {
        ("set", f"convnet:{best}", False),
        ("set", "convnet:3", True),
    }
    assert f"failed in set: convnet:{best}: out of memory" in everything(compared)


def test_a_truth_that_failed_is_left_out_and_counted() -> None:
    compared = compare(table(truth=(None, *TRUTH[1:].tolist()), truth_by_seed=()), seed=0, resamples=QUICK)
    assert (compared.with_truth, compared.candidates) == (59, 60)
    assert any("1 without a truth left out" in line for line in everything(compared))


def test_constant_scores_rank_nothing_and_are_no_rival() -> None:
    constant = Column("params", "parameters", (1.0,) * N)
    compared = compare(table(columns=(WHOLE.columns[0], constant, WHOLE.columns[2])), seed=0, resamples=QUICK)
    assert compared.lines[1].headline.spearman.method == "undefined: constant scores"
    assert compared.verdict.decision == USE
    judged = compare(table(columns=(constant, WHOLE.columns[0])), seed=0, resamples=QUICK)
    assert "cannot be judged, its Spearman is undefined: constant scores" in judged.verdict.sentence
    assert "undefined" in "\n".join(everything(judged))


def test_all_of_it_is_json_and_back() -> None:
    assert from_json(Comparison, json.loads(json.dumps(to_json(COMPARED), allow_nan=False))) == COMPARED
    record = json.loads(json.dumps(to_json(WHOLE), allow_nan=False))
    again = from_json(Table, record)
    assert to_json(again) == to_json(WHOLE)
    assert compare(again, seed=0, resamples=QUICK) == COMPARED
    odd = replace(WHOLE.columns[0], values=(-math.inf, math.nan, *WHOLE.columns[0].values[2:]))
    assert to_json(table(columns=(odd,)))["columns"][0]["values"][:2] == [None, None]


def test_a_table_must_hold_one_entry_per_candidate_and_a_truth() -> None:
    with pytest.raises(ValueError, match="truth has 3 entries for 60 candidates"):
        table(truth=(0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match="params has 1 entries"):
        table(columns=(Column("params", "parameters", (1.0,)),))
    with pytest.raises(ValueError, match="without columns"):
        table(columns=())
    with pytest.raises(ValueError, match="no truth"):
        compare(table(truth=(), truth_by_seed=()), seed=0, resamples=QUICK)


def test_what_a_terminal_shows_begins_with_the_verdict() -> None:
    told = everything(COMPARED)
    assert told[0] == COMPARED.verdict.sentence
    assert told[1].startswith("Over the better half by truth")
    row = next(line for line in told if line.strip().startswith("the set"))
    assert str(COMPARED.proxy.headline.spearman) in row
    assert "60 + 900" in row
    assert any(line.startswith("noise ceiling") for line in told)


def test_three_candidates_leave_most_undefined_and_break_nothing() -> None:
    few = Table(
        space="convnet",
        candidates=("a", "b", "c"),
        parameters=(1, 2, 3),
        num_classes=10,
        truth=(0.3, 0.5, 0.4),
        columns=(
            Column("set", "the set", (1.0, 3.0, 2.0), role=PROXY),
            Column("params", "parameters", (1.0, 2.0, 3.0)),
        ),
    )
    compared = compare(few, seed=0, resamples=QUICK)
    assert compared.verdict.decision == "undecided"
    assert everything(compared)
    json.dumps(to_json(compared), allow_nan=False)
