"""Intervals: resamples as counts, over architectures and seeds, and how often they hold what is true."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from ftdnas.agreement.bootstrap import Bootstrap, Draws, _drawn, bonett_wright
from ftdnas.agreement.estimates import (
    Estimate,
    Repeated,
    Values,
    better_half,
    kendall,
    partial_spearman,
    seed_agreement,
    spearman,
    spearman_difference,
    top_by_scores,
    top_by_truth,
)
from ftdnas.agreement.ranks import Pair

QUICK = Bootstrap(seed=0, resamples=400)


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


# ---- resamples as counts equal resamples written out


def rows_and_counts(n: int, resamples: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rows = np.random.default_rng(seed).integers(0, n, (resamples, n))
    return rows, np.array([np.bincount(row, minlength=n) for row in rows], dtype=float)


@pytest.mark.parametrize("levels", [3, 8, None])
def test_counted_correlations_equal_those_of_the_resample_written_out(levels: int | None) -> None:
    scores, truth = (np.array(values) for values in drawn(24, levels, seed=5))
    rows, counts = rows_and_counts(24, 60, seed=6)
    pair = Pair(scores, truth)
    for statistic, reference in ((pair.spearman, stats.spearmanr), (pair.kendall, stats.kendalltau)):
        expected = [reference(scores[row], truth[row])[0] for row in rows]
        np.testing.assert_allclose(statistic(counts), expected, atol=1e-12)


def best_choices(scores: list[float], k: int) -> list[tuple[int, ...]]:
    """All ways to take the k best, by trying every set."""
    ordered = sorted(scores, reverse=True)
    return [
        rows
        for rows in itertools.combinations(range(len(scores)), k)
        if sorted((scores[row] for row in rows), reverse=True) == ordered[:k]
    ]


@pytest.mark.parametrize("levels", [2, 4, None])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_counted_choices_equal_the_mean_over_all_ways_to_choose(levels: int | None, k: int) -> None:
    n = 8
    scores, truth = (np.array(values) for values in drawn(n, levels, seed=7))
    rows, counts = rows_and_counts(n, 25, seed=8)
    pair = Pair(scores, truth)
    precisions, regrets = [], []
    for row in rows:
        own = truth[row]
        choices = best_choices(scores[row].tolist(), k)
        bar = np.sort(own)[-k]
        precisions.append(np.mean([np.mean(own[list(choice)] >= bar) for choice in choices]))
        regrets.append(np.mean([own.max() - own[list(choice)].max() for choice in choices]))
    np.testing.assert_allclose(pair.precision(counts, k), precisions, atol=1e-12)
    np.testing.assert_allclose(pair.regret(counts, k), regrets, atol=1e-9)


# ---- intervals


@pytest.mark.parametrize(
    ("correlation", "n", "low", "high"),
    [
        (0.87, 5, -0.29, 0.99),
        (0.68, 10, 0.01, 0.93),
        (0.54, 20, 0.10, 0.81),
        (0.41, 5, -0.76, 0.95),
        (0.36, 10, -0.37, 0.81),
        (-0.04, 20, -0.47, 0.41),
    ],
)
def test_bonett_wright_intervals_of_the_published_correlations(
    correlation: float, n: int, low: float, high: float
) -> None:
    found = bonett_wright(correlation, n)
    assert found is not None
    assert [round(end, 2) for end in found] == [low, high]


def test_small_samples_take_bonett_wright_and_larger_ones_the_bootstrap() -> None:
    scores, truth = drawn(20, None)
    small = spearman(scores[:19], truth[:19], QUICK)
    assert small.method == "Bonett-Wright"
    assert interval(small) == bonett_wright(value(small), 19)
    assert spearman(scores, truth, QUICK).method == "bootstrap, 400 resamples"
    wider = spearman(scores[:19], truth[:19], Bootstrap(0, resamples=400, level=0.99))
    assert interval(wider)[0] < interval(small)[0]


@pytest.mark.parametrize("n", [6, 19, 40])
def test_perfect_agreement_is_not_certainty(n: int) -> None:
    scores, _ = drawn(n, None)
    for figure in (spearman, kendall):
        low, high = interval(figure(scores, scores, QUICK))
        assert 0 < low < high == 1
        low, high = interval(figure(scores, [-score for score in scores], QUICK))
        assert -1 == low < high < 0


def test_three_architectures_have_a_value_but_no_interval() -> None:
    estimate = spearman([1, 2, 3], [1, 3, 2], QUICK)
    assert estimate == Estimate(0.5, None, None, 3, "no interval: Bonett-Wright undefined at n = 3")
    assert str(estimate) == "0.50"


def test_resamples_that_lose_the_only_difference_leave_no_interval() -> None:
    scores = [0.0] * 24 + [1.0]  # absent from 36 % of the resamples
    estimate = spearman(scores, drawn(25, None)[1], QUICK)
    assert estimate.value is not None
    assert (estimate.low, estimate.high) == (None, None)
    assert estimate.method.startswith("no interval: bootstrap")


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_an_unusable_bootstrap_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match=r"level .* is not between 0 and 1"):
        Bootstrap(0, level=level)
    with pytest.raises(ValueError, match="10 resamples are too few"):
        Bootstrap(0, resamples=10)


COVARIANCE = np.array([[1, 0.8, 2 * math.sin(math.pi / 12)], [0.8, 1, 0.3], [2 * math.sin(math.pi / 12), 0.3, 1]])
TRUE = 6 / math.pi * np.arcsin(COVARIANCE / 2)  # Spearman's correlation of normal variables; scores and truth: 0.5


COVERED: dict[str, Callable[[Values, Values, Values, Bootstrap], Estimate]] = {
    "spearman": lambda scores, _, truth, bootstrap: spearman(scores, truth, bootstrap),
    "kendall": lambda scores, _, truth, bootstrap: kendall(scores, truth, bootstrap),
    "partial": lambda scores, other, truth, bootstrap: partial_spearman(scores, truth, other, bootstrap),
    "difference": spearman_difference,
}


@pytest.mark.parametrize(
    ("n", "names"), [(12, ["spearman", "kendall", "partial", "difference"]), (36, ["spearman", "difference"])]
)
def test_intervals_cover_the_true_correlation_as_often_as_they_say(n: int, names: list[str]) -> None:
    rng = np.random.default_rng(11)
    factor = np.linalg.cholesky(COVARIANCE)
    xy, xz, zy = TRUE[0, 2], TRUE[0, 1], TRUE[1, 2]
    true = {
        "spearman": xy,
        "kendall": 2 / math.pi * math.asin(COVARIANCE[0, 2]),
        "partial": (xy - xz * zy) / math.sqrt((1 - xz**2) * (1 - zy**2)),
        "difference": xy - zy,
    }
    hits = dict.fromkeys(names, 0)
    for repetition in range(300):
        scores, other, truth = (factor @ rng.standard_normal((3, n))).tolist()
        bootstrap = Bootstrap(repetition, resamples=400)
        for name in names:
            low, high = interval(COVERED[name](scores, other, truth, bootstrap))
            hits[name] += low <= true[name] <= high
    assert all(0.92 <= count / 300 <= 0.98 for count in hits.values()), hits


# ---- over some of the architectures


@pytest.mark.parametrize("levels", [4, None])
@pytest.mark.parametrize("figure", [spearman, kendall])
def test_choices_are_made_anew_in_each_resample(figure: Callable[..., Estimate], levels: int | None) -> None:
    """The interval equals that of resamples written out, of which scipy correlates the chosen."""
    n, k = 40, 25
    scores, truth = (np.array(column) for column in drawn(n, levels, seed=12))
    reference: Any = {spearman: stats.spearmanr, kendall: stats.kendalltau}[figure]
    bootstrap = Bootstrap(5, resamples=100)
    table = np.stack([scores, truth])
    draws = Draws.of(bootstrap, table, [np.empty((0, n))] * 2, np.ones(n, dtype=bool))
    (counts,) = draws._counts(0, 100)
    for among, key, size in ((better_half, truth, n // 2), (top_by_truth(k), truth, k), (top_by_scores(k), scores, k)):
        replicates = []
        for count in counts.astype(int):
            drawn_rows = np.repeat(np.arange(n), count)
            bar = np.sort(key[drawn_rows])[-size]
            chosen = drawn_rows[key[drawn_rows] >= bar]
            replicates.append(reference(scores[chosen], truth[chosen])[0])
        estimate = figure(scores, truth, bootstrap, among)
        bar = np.sort(key)[-size]
        assert value(estimate) == pytest.approx(reference(scores[key >= bar], truth[key >= bar])[0], abs=1e-6)
        if estimate.n >= 20:
            assert interval(estimate) == pytest.approx(tuple(np.quantile(replicates, [0.025, 0.975])), abs=1e-5)


def test_the_top_by_truth_and_by_proxy_differ_and_ties_come_along() -> None:
    truth = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]
    scores = [1.0, 3.0, 2.0, 9.0, 9.0, 9.0, 4.0]
    by_truth = spearman(scores, truth, QUICK, top_by_truth(3))
    assert (by_truth.n, by_truth.method) == (3, "no interval: Bonett-Wright undefined at n = 3")
    assert value(by_truth) == pytest.approx(-0.5)  # 1, 3, 2 against 3, 2, 1
    by_proxy = spearman(scores, truth, QUICK, top_by_scores(3))
    assert (by_proxy.n, by_proxy.method) == (3, "undefined: constant scores")
    assert spearman(scores, truth, QUICK, top_by_scores(2)).n == 3
    assert spearman(scores, truth, QUICK, top_by_truth(2)).method == "undefined: 2 architectures"


def test_a_small_choice_takes_bonett_wright() -> None:
    scores, truth = drawn(60, None)
    estimate = spearman(scores, truth, QUICK, top_by_truth(10))
    assert interval(estimate) == bonett_wright(value(estimate), 10)


# ---- isomorphism classes


def test_architectures_of_a_class_are_drawn_together() -> None:
    scores, truth = drawn(30, None, seed=3)
    twice = Bootstrap(0, resamples=400, classes=tuple(row // 2 for row in range(60)))
    doubled = [[value for value in column for _ in range(2)] for column in (scores, truth)]
    for figure in (spearman, kendall):
        estimate = figure(doubled[0], doubled[1], twice)
        single = figure(scores, truth, QUICK)
        assert estimate.n == 60
        if figure is spearman:  # copies change nothing; in tau-b they are pairs tied in both
            assert estimate.value == pytest.approx(value(single))
            assert interval(estimate) == pytest.approx(interval(single), abs=1e-6)
        naive = figure(doubled[0], doubled[1], QUICK)
        assert interval(naive)[1] - interval(naive)[0] < 0.85 * (interval(estimate)[1] - interval(estimate)[0])
    few = spearman(doubled[0][:30], doubled[1][:30], Bootstrap(0, classes=twice.classes[:30]))
    assert few.method == "Bonett-Wright"
    assert interval(few) == bonett_wright(value(few), 15)
    with pytest.raises(ValueError, match="2 classes of 30 architectures"):
        spearman(scores, truth, Bootstrap(0, classes=(1, 2)))


# ---- several seeds


def seeds_of(truth: list[float], seeds: int, noise: float, seed: int) -> Repeated:
    rng = np.random.default_rng(seed)
    columns = np.array(truth) + noise * rng.standard_normal((seeds, len(truth)))
    return Repeated(columns.mean(axis=0).tolist(), columns.tolist())


@pytest.mark.parametrize(("first", "second"), [(2, 1), (2, 2), (3, 2), (7, 3)])
def test_seeds_widen_the_interval_and_leave_its_middle(first: int, second: int) -> None:
    _, truth = drawn(60, None)
    scores, true = seeds_of(truth, first, 0.8, 1), seeds_of(truth, second, 0.8, 2)
    alone = spearman(scores.values, true.values, Bootstrap(0, resamples=4000))
    both = spearman(scores, true, Bootstrap(0, resamples=4000))
    assert both.value == alone.value
    (low, high), (least, most) = interval(both), interval(alone)
    assert high - low > most - least
    assert abs((low + high) / 2 - (least + most) / 2) < 0.04


def test_the_ways_to_draw_two_seeds_share_the_resamples() -> None:
    table = np.array([[1.0, 2.0, 3.0]])
    seeds = np.array([[0.0, 2.0, 4.0], [2.0, 2.0, 2.0]])
    draws = Draws.of(Bootstrap(0), table, [seeds], np.ones(3, dtype=bool))
    assert [(share, one[0].tolist()) for share, one in draws.scenarios] == [
        (0.25, [0, 2, 4]),
        (0.5, [1, 2, 3]),
        (0.25, [2, 2, 2]),
    ]
    many = Draws.of(Bootstrap(0), table, [np.tile(table, (9, 1))], np.ones(3, dtype=bool))
    assert sum(share for share, _ in many.scenarios) == pytest.approx(1)


def test_a_seed_that_lacks_an_architecture_takes_the_other() -> None:
    _, truth = drawn(40, None)
    true = seeds_of(truth, 2, 0.3, 1)
    holed = Repeated(true.values, [[None, *true.by_seed[0][1:]], true.by_seed[1]])
    estimate = spearman(truth, holed, QUICK)
    assert (estimate.n, estimate.failed) == (40, 0)
    assert estimate.value == spearman(truth, true, QUICK).value


def test_the_noise_ceiling_is_one_seed_against_another() -> None:
    _, truth = drawn(40, None)
    true = seeds_of(truth, 3, 0.5, 1)
    ceiling = seed_agreement(true.by_seed, QUICK)
    pairs = [
        stats.spearmanr(np.array(true.by_seed[a]), np.array(true.by_seed[b]))[0] for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert value(ceiling) == pytest.approx(np.mean(pairs))
    low, high = interval(ceiling)
    assert low < value(ceiling) < high
    assert seed_agreement((), QUICK).method == "undefined: a table of means"
    assert seed_agreement(true.by_seed[:1], QUICK).value is None


def test_every_figure_takes_the_same_resamples_which_are_drawn_once() -> None:
    scores, truth = drawn(300, 96)
    _drawn.cache_clear()
    for figure in (spearman, kendall):
        assert figure(scores, truth, Bootstrap(77)).method == "bootstrap, 10000 resamples"
    assert _drawn.cache_info()[:2] == (10, 10)  # hits and misses, of chunks of a thousand
