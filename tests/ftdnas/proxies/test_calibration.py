from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr
from sklearn.linear_model import Ridge

from ftdnas.proxies.calibration import PENALTIES, calibrate, fewest

Floats = NDArray[np.float64]


def drawn(seed: int, n: int = 300, noise: tuple[float, ...] = (0.5, 1.0, 3.0)) -> tuple[list[list[float]], Floats]:
    """Columns that are the truth and noise, and the truth."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=n)
    return [list(truth + level * draw.normal(size=n)) for level in noise], truth


def known(truth: Floats, n: int) -> list[float | None]:
    """The truth of the first n."""
    return [float(value) if place < n else None for place, value in enumerate(truth)]


def rho(first: Any, second: Any) -> float:
    return float(spearmanr(first, second).statistic)


def test_a_hybrid_beats_its_best_part_and_weighs_parts_by_their_worth() -> None:
    gains, weights = [], []
    for seed in range(10):
        columns, truth = drawn(seed, noise=(0.7, 0.9, 3.0))
        fitted = calibrate(columns, known(truth, 24))
        gains.append(rho(fitted.scores[24:], truth[24:]) - max(rho(column[24:], truth[24:]) for column in columns))
        weights.append(fitted.weights)
    assert np.mean(gains) > 0.02
    first, second, last = np.mean(weights, axis=0)
    assert first > second > last > 0


def test_a_column_that_ranks_the_wrong_way_round_is_turned() -> None:
    columns, truth = drawn(1, noise=(0.3,))
    fitted = calibrate([[-value for value in columns[0]]], known(truth, 24))
    assert fitted.weights[0] < 0
    assert rho(fitted.scores[24:], truth[24:]) > 0.9


def test_only_ranks_matter() -> None:
    columns, truth = drawn(2)
    other = [list(np.exp(columns[0])), list(5 + 100 * np.array(columns[1])), columns[2]]
    first, second = calibrate(columns, known(truth, 24)), calibrate(other, known(np.exp(truth), 24))
    assert first.scores == second.scores


def test_the_truth_of_one_does_not_reach_its_own_score() -> None:
    columns, truth = drawn(3)
    given = known(truth, 24)
    scores = calibrate(columns, given).scores
    for changed in (0, 7):
        other = list(given)
        other[changed] = -1e6
        again = calibrate(columns, other).scores
        assert again[changed] == scores[changed]
        assert again[30] != scores[30]


def test_columns_of_noise_do_not_look_useful() -> None:
    """The cross-validated figure has no bias upwards, whatever is fitted."""
    found = []
    for seed in range(40):
        draw = np.random.default_rng(seed)
        columns = [list(draw.normal(size=200)) for _ in range(3)]
        truth = draw.normal(size=200)
        found.append(rho(calibrate(columns, known(truth, 24)).scores[:24], truth[:24]))
    assert -0.3 < np.mean(found) < 0.05


def test_the_cross_validated_figure_is_that_of_new_architectures() -> None:
    estimates, real = [], []
    for seed in range(20):
        columns, truth = drawn(seed)
        fitted = calibrate(columns, known(truth, 24))
        estimates.append(rho(fitted.scores[:24], truth[:24]))
        real.append(rho(fitted.scores[24:], truth[24:]))
    assert np.mean(estimates) == pytest.approx(np.mean(real), abs=0.05)


def test_the_fit_is_scikit_learns_at_the_penalty_chosen_by_leaving_one_out() -> None:
    columns, truth = drawn(4, n=24)
    table = np.column_stack([_standard(column) for column in columns])
    target = _standard(list(truth))

    def left_out(penalty: float) -> float:
        errors = []
        for row in range(24):
            rest = np.arange(24) != row
            fit = Ridge(alpha=24 * penalty, fit_intercept=False).fit(table[rest], target[rest])
            errors.append((target[row] - fit.predict(table[[row]])[0]) ** 2)
        return float(np.mean(errors))

    best = min(PENALTIES, key=left_out)
    fitted = calibrate(columns, list(truth))
    assert fitted.penalty == best
    expected = Ridge(alpha=24 * best, fit_intercept=False).fit(table, target).coef_
    assert fitted.weights == pytest.approx(tuple(expected))


def _standard(values: list[float]) -> Floats:
    ranks = rankdata(values) - (len(values) + 1) / 2
    return np.asarray(ranks / ranks.std())


def test_candidates_without_a_score_have_none_and_trainings_without_a_result_do_not_count() -> None:
    columns, truth = drawn(5)
    holes: list[list[float | None]] = [list(column) for column in columns]
    holes[1][3] = holes[2][100] = None
    given = known(truth, 24)
    given[5] = None
    fitted = calibrate(holes, given)
    assert [place for place, score in enumerate(fitted.scores) if score is None] == [3, 100]
    assert fitted.trained == 22


def test_too_few_are_refused() -> None:
    columns, truth = drawn(6)
    assert fewest(3) == 9
    with pytest.raises(ValueError, match="8 trained architectures with a score in every column are too few"):
        calibrate(columns, known(truth, 8))


def test_constant_columns_do_no_harm() -> None:
    truth = list(np.arange(20.0))
    flat = calibrate([[1.0] * 20], truth)
    assert set(flat.scores) == {0.0}
    beside = calibrate([[1.0] * 20, truth], truth)
    assert rho(beside.scores, truth) == pytest.approx(1)
