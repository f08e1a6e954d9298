"""The verdict: what speaks against the set is said first, and nothing is claimed that the intervals do not carry."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ftdnas.comparison import compare


def _noisy(truth: list[float], noise: float, seed: int) -> list[float]:
    return list(np.array(truth) + np.random.default_rng(seed).normal(0, noise, len(truth)))


TRUTH = [float(value) for value in np.random.default_rng(0).uniform(0.2, 0.9, 80)]


def test_a_set_that_is_worse_beyond_doubt_is_told_so_first() -> None:
    result = compare(_noisy(TRUTH, 2.0, 1), {"parameters": _noisy(TRUTH, 0.05, 2)}, ["parameters"], TRUTH, 0)
    assert result.decision == "do not use it"
    assert result.verdict.startswith("The set does not rank better than parameters (0.9")
    assert "beyond doubt" in result.verdict


def test_a_set_that_is_better_than_every_baseline_may_be_used() -> None:
    columns = {"parameters": _noisy(TRUTH, 2.0, 1), "random": _noisy(TRUTH, 1.0, 2)}
    result = compare(_noisy(TRUTH, 0.02, 3), columns, list(columns), TRUTH, 0)
    assert result.decision == "use it"
    assert "parameters" in result.verdict
    assert "random" in result.verdict


def test_one_baseline_that_is_not_beaten_is_enough_to_say_so() -> None:
    columns = {"parameters": _noisy(TRUTH, 2.0, 1), "random": _noisy(TRUTH, 0.05, 2)}
    result = compare(_noisy(TRUTH, 0.06, 3), columns, list(columns), TRUTH, 0)
    assert result.decision == "undecided"
    assert result.verdict.startswith("The set does not rank better than random (")


def test_an_unclear_lead_is_undecided_and_says_how_many_would_decide() -> None:
    few = TRUTH[:24]
    result = compare(_noisy(few, 0.20, 5), {"parameters": _noisy(few, 0.25, 7)}, ["parameters"], few, 0)
    ahead = result.lines[1].ahead
    assert ahead is not None
    assert ahead.value is not None
    assert ahead.low is not None
    assert ahead.low < 0 < ahead.value
    assert result.decision == "undecided"
    assert "candidates would decide" in result.verdict


def test_constant_scores_rank_nothing() -> None:
    result = compare([0.5] * 80, {"parameters": _noisy(TRUTH, 1.0, 1)}, ["parameters"], TRUTH, 0)
    assert result.decision == "undecided"
    assert "cannot be judged on these candidates, Spearman is undefined: constant scores" in result.verdict


def test_only_candidates_that_every_way_could_score_are_compared() -> None:
    score: list[float | None] = list(TRUTH)
    score[3] = None
    random: list[float | None] = list(_noisy(TRUTH, 0.1, 1))
    random[3] = random[4] = None
    truth: list[float | None] = list(TRUTH)
    truth[5] = None
    result = compare(score, {"random": random}, ["random"], truth, 0)
    assert (result.candidates, result.left_out) == (77, 3)
    assert [line.spearman.n for line in result.lines] == [77, 77]
    assert [line.spearman.failed for line in result.lines] == [0, 0]
    assert result.lines[0].spearman.value == pytest.approx(1.0)
    json.dumps(result.to_json(), allow_nan=False)
