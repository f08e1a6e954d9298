"""Figures against scipy's, by hand, and where they do not exist."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from ftdnas.agreement.bootstrap import Bootstrap
from ftdnas.agreement.estimates import (
    Estimate,
    Values,
    better_half,
    chance_regret,
    kendall,
    partial_spearman,
    precision_at,
    regret_at,
    spearman,
    spearman_difference,
)

QUICK = Bootstrap(seed=0, resamples=400)
Figure = Callable[[Values, Values, Bootstrap], Estimate]
FIGURES: dict[str, Figure] = {
    "spearman": spearman,
    "kendall": kendall,
    "partial": lambda scores, truth, bootstrap: partial_spearman(
        scores, truth, [math.sin(5 * i) for i in range(len(truth))], bootstrap
    ),
    "precision": lambda scores, truth, bootstrap: precision_at(3, scores, truth, bootstrap),
    "regret": lambda scores, truth, bootstrap: regret_at(3, scores, truth, bootstrap),
    "difference": lambda scores, truth, bootstrap: spearman_difference(
        scores, [math.sin(5 * i) for i in range(len(truth))], truth, bootstrap
    ),
}
every_figure = pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)


def drawn(n: int, levels: int | None, seed: int = 0) -> tuple[list[float], list[float]]:
    """Correlated scores and truths, rounded to that many values."""
    rng = np.random.default_rng(seed)
    scores, truth = rng.standard_normal(n), rng.standard_normal(n)
    truth += scores
    if levels is not None:
        scores, truth = (np.floor(stats.norm.cdf(values / values.std()) * levels) for values in (scores, truth))
    return scores.tolist(), truth.tolist()


def value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value


def interval(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


# ---- what every figure promises


@every_figure
@pytest.mark.parametrize(("n", "levels"), [(12, None), (12, 4), (40, None), (40, 5)])
def test_the_interval_holds_the_value_and_depends_on_the_seed_alone(figure: Figure, n: int, levels: int | None) -> None:
    scores, truth = drawn(n, levels)
    estimate = figure(scores, truth, QUICK)
    low, high = interval(estimate)
    assert low <= value(estimate) <= high
    assert low < high
    assert (estimate.n, estimate.failed) == (n, 0)
    assert figure(scores, truth, QUICK) == estimate
    if "bootstrap" in estimate.method:
        assert figure(scores, truth, Bootstrap(seed=1, resamples=101)).value == estimate.value
    else:
        assert n < 20


@every_figure
def test_only_the_order_of_the_scores_counts(figure: Figure) -> None:
    scores, truth = drawn(30, None)
    assert figure([math.exp(score) for score in scores], truth, QUICK) == figure(scores, truth, QUICK)


@every_figure
def test_constant_scores_or_truths_are_undefined(figure: Figure) -> None:
    varied, _ = drawn(25, None)
    for scores, truth, name in (([0.1] * 25, varied, "scores"), (varied, [0.1] * 25, "truth")):
        estimate = figure(scores, truth, QUICK)
        assert (estimate.value, estimate.low, estimate.high) == (None, None, None)
        assert estimate.method == f"undefined: constant {name}"
        assert str(estimate) == "undefined"


@every_figure
def test_too_few_architectures_are_undefined(figure: Figure) -> None:
    for n in (0, 1, 2):
        estimate = figure([0.1, 0.2][:n], [0.3, 0.4][:n], QUICK)
        assert estimate.value is None
        assert (estimate.n, estimate.method) == (n, f"undefined: {n} architectures")


@every_figure
def test_an_architecture_without_truth_is_left_out_and_counted(figure: Figure) -> None:
    scores, truth = drawn(30, None)
    missing: list[float | None] = [*truth[:10], None, *truth[11:20], math.nan, *truth[21:]]
    rest = [row for row in range(30) if row not in (10, 20)]
    estimate = figure(scores, missing, QUICK)
    assert (estimate.n, estimate.failed) == (28, 2)
    if figure not in (FIGURES["partial"], FIGURES["difference"]):  # theirs depends on the position
        expected = figure([scores[row] for row in rest], [truth[row] for row in rest], QUICK)
        assert (estimate.value, estimate.low, estimate.high) == (expected.value, expected.low, expected.high)


@every_figure
def test_columns_of_unequal_length_are_refused(figure: Figure) -> None:
    with pytest.raises(ValueError, match=r"columns of unequal length: .*5"):
        figure([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0], QUICK)


# ---- failed scores


def test_correlations_leave_failed_scores_out() -> None:
    scores, truth = drawn(30, None)
    failing: list[float | None] = [None, math.nan, *scores[2:]]
    for figure in (spearman, kendall):
        estimate = figure(failing, truth, QUICK)
        assert estimate.value == figure(scores[2:], truth[2:], QUICK).value
        assert (estimate.n, estimate.failed) == (28, 2)


def test_a_user_does_not_train_what_failed() -> None:
    truth = [0.9, 0.8, 0.7, 0.6, 0.5]
    scores: list[float | None] = [None, 4.0, 3.0, 2.0, 1.0]
    regret = regret_at(2, scores, truth, QUICK)
    assert regret.value == pytest.approx(0.1)  # the best failed, the second best is found
    assert (regret.n, regret.failed) == (5, 1)
    assert precision_at(2, scores, truth, QUICK).value == 0.5


def test_minus_infinity_is_a_last_place() -> None:
    scores = [-math.inf, 1.0, 2.0, 3.0, -math.inf]
    truth = [0.1, 0.3, 0.2, 0.4, 0.0]
    assert spearman(scores, truth, QUICK).value == spearman([0.0, 1.0, 2.0, 3.0, 0.0], truth, QUICK).value
    with pytest.raises(ValueError, match="infinite"):
        regret_at(2, truth, scores, QUICK)


# ---- values against scipy and by hand


@pytest.mark.parametrize("levels", [2, 3, 7, None])
@pytest.mark.parametrize("n", [5, 19, 60, 300])
def test_correlations_equal_scipys_with_and_without_ties(n: int, levels: int | None) -> None:
    scores, truth = drawn(n, levels, seed=2)
    assert value(spearman(scores, truth, QUICK)) == pytest.approx(stats.spearmanr(scores, truth)[0], abs=1e-12)
    assert value(kendall(scores, truth, QUICK)) == pytest.approx(stats.kendalltau(scores, truth)[0], abs=1e-12)


def test_kendall_in_blocks_equals_scipys() -> None:
    scores, truth = drawn(1100, 50)
    estimate = kendall(scores, truth, Bootstrap(0, resamples=100))
    assert value(estimate) == pytest.approx(stats.kendalltau(scores, truth)[0], abs=1e-12)


def test_partial_equals_the_correlation_of_what_the_ranks_leave() -> None:
    scores, truth = drawn(50, 6)
    given, _ = drawn(50, 9, seed=4)
    given = [a + b for a, b in zip(given, truth, strict=True)]
    x, y, z = (stats.rankdata(values) for values in (scores, truth, given))
    design = np.stack([np.ones(50), z], axis=1)
    left_x, left_y = (v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (x, y))
    expected = np.corrcoef(left_x, left_y)[0, 1]
    assert value(partial_spearman(scores, truth, given, QUICK)) == pytest.approx(expected, abs=1e-12)


def test_parameters_say_nothing_beyond_parameters() -> None:
    parameters, truth = drawn(40, None)
    estimate = partial_spearman([-p for p in parameters], truth, parameters, QUICK)
    assert estimate.value is None
    assert estimate.method == "undefined: one ranking determines another"


def test_the_best_two_of_six_by_hand() -> None:
    truth = [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert precision_at(2, truth, truth, QUICK).value == 1
    assert regret_at(2, truth, truth, QUICK).value == 0
    backwards = truth[::-1]
    assert precision_at(2, backwards, truth, QUICK).value == 0
    assert regret_at(2, backwards, truth, QUICK).value == pytest.approx(0.4)
    # 0.6 sure, then one of the three tied
    assert precision_at(2, [9, 5, 5, 5, 1, 1], truth, QUICK).value == pytest.approx((1 + 1 / 3) / 2)
    # two of the four tied: the best is 0.5, 0.4, 0.3 in 3, 2, 1 of the 6 ways
    assert regret_at(2, [1, 5, 5, 5, 5, 1], truth, QUICK).value == pytest.approx(0.6 - (3 * 0.5 + 2 * 0.4 + 0.3) / 6)
    # as good as the second best belongs to the best two
    assert precision_at(2, [1, 2, 3, 0, 0, 0], [0.5, 0.4, 0.4, 0.3, 0.2, 0.1], QUICK).value == 1


@pytest.mark.parametrize("k", [5, 6, 50])
def test_choosing_all_is_no_choice(k: int) -> None:
    scores, truth = drawn(5, None)
    for figure in (precision_at, regret_at):
        estimate = figure(k, scores, truth, QUICK)
        assert estimate.value is None
        assert estimate.method == f"undefined: k = {k} of 5 architectures is no choice"
    with pytest.raises(ValueError, match="k = 0"):
        precision_at(0, scores, truth, QUICK)


# ---- paired difference


def test_the_difference_is_that_of_the_two_correlations_over_what_all_share() -> None:
    scores, truth = drawn(40, None)
    baseline, _ = drawn(40, 8, seed=9)
    failing: list[float | None] = [None, *scores[1:]]
    estimate = spearman_difference(failing, baseline, truth, QUICK)
    parts = [value(spearman(column[1:], truth[1:], QUICK)) for column in (scores, baseline)]
    assert value(estimate) == pytest.approx(parts[0] - parts[1], abs=1e-12)
    assert (estimate.n, estimate.failed) == (39, 1)
    swapped = spearman_difference(baseline, failing, truth, QUICK)
    assert interval(swapped) == pytest.approx(tuple(-end for end in interval(estimate)[::-1]))


def test_pairing_narrows_the_interval_of_like_rankings() -> None:
    scores, truth = drawn(60, None)
    alike = [score + 0.05 * math.sin(7 * row) for row, score in enumerate(scores)]
    low, high = interval(spearman_difference(scores, alike, truth, QUICK))
    alone = interval(spearman(scores, truth, QUICK))
    assert high - low < (alone[1] - alone[0]) / 5
    unlike, _ = drawn(15, None, seed=21)
    widths = []
    for baseline in (alike[:15], unlike):
        estimate = spearman_difference(scores[:15], baseline, truth[:15], QUICK)
        assert estimate.method == "Zou"
        low, high = interval(estimate)
        widths.append(high - low)
    assert widths[0] < widths[1] / 2


def test_a_constant_baseline_leaves_no_difference() -> None:
    scores, truth = drawn(30, None)
    assert spearman_difference(scores, [1.0] * 30, truth, QUICK).method == "undefined: constant baseline"


def test_a_ranking_is_not_better_than_itself() -> None:
    scores, truth = drawn(30, None)
    for n in (12, 30):
        estimate = spearman_difference(scores[:n], scores[:n], truth[:n], QUICK)
        low, high = interval(estimate)
        assert (value(estimate), low) == pytest.approx((0, -high))
        assert high > 0


def test_the_difference_over_the_better_half() -> None:
    scores, truth = drawn(41, None)
    baseline, _ = drawn(41, 8, seed=9)
    rows = sorted(range(41), key=lambda row: -truth[row])[:21]
    estimate = spearman_difference(scores, baseline, truth, QUICK, better_half)
    parts = [stats.spearmanr([c[row] for row in rows], [truth[row] for row in rows])[0] for c in (scores, baseline)]
    assert value(estimate) == pytest.approx(parts[0] - parts[1], abs=1e-6)
    assert estimate.n == 21


# ---- blind choice


def test_the_regret_of_blind_choice_by_hand() -> None:
    # two of three: the best is found in 2 of 3 ways, else the second best
    assert chance_regret(2, [0.9, 0.6, None, 0.3]) == pytest.approx(0.3 / 3)
    assert chance_regret(3, [0.9, 0.6, 0.3]) is None
