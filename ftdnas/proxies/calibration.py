"""Columns of scores combined by a ridge regression that is fitted on a few architectures really trained.

Ranks stand in for values on both sides, so that a column's scale does not matter; the penalty is chosen by leaving one
out. What is predicted for an architecture that was trained comes from a fit without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]

PENALTIES = tuple(10.0**power for power in np.arange(-2, 2.01, 0.5))  # for each trained architecture


@dataclass(frozen=True)
class Calibration:
    """What was fitted.

    `scores`: one for each candidate, larger is better, None where a column has none. `weights`: of each column's ranks,
    which all have variance 1. `trained`: how many architectures it was fitted on.
    """

    scores: tuple[float | None, ...]
    weights: tuple[float, ...]
    penalty: float
    trained: int


def calibrate(columns: Sequence[Sequence[float | None]], truth: Sequence[float | None]) -> Calibration:
    """Fit `columns`, scores of the same candidates, to `truth`, which most of them lack.

    Raises ValueError where fewer than `fewest(len(columns))` candidates have everything.
    """
    whole = np.array([None not in values for values in zip(*columns, strict=True)])
    table = np.column_stack(
        [_ranks([value for value, kept in zip(column, whole, strict=True) if kept]) for column in columns]
    )
    target = np.array([math.nan if value is None else value for value in truth], dtype=float)[whole]
    rows = np.flatnonzero(np.isfinite(target))
    if len(rows) < fewest(len(columns)):
        raise ValueError(
            f"{len(rows)} trained architectures with a score in every column are too few for {len(columns)} weights: "
            f"calibrate on at least {fewest(len(columns))}"
        )
    penalty, weights = _fit(table[rows], target[rows])
    predicted = table @ weights
    for row in rows:
        others = rows[rows != row]
        predicted[row] = table[row] @ _fit(table[others], target[others])[1]
    scores: list[float | None] = [None] * len(whole)
    for place, score in zip(np.flatnonzero(whole), predicted, strict=True):
        scores[place] = float(score)
    return Calibration(tuple(scores), tuple(float(weight) for weight in weights), penalty, len(rows))


def fewest(columns: int) -> int:
    """How many trained architectures a fit of so many columns needs: three for each, and not below eight."""
    return max(8, 3 * columns)


def _fit(table: Floats, truth: Floats) -> tuple[float, Floats]:
    """The penalty whose leave-one-out error is least, and the weights (V,) at it. `table` (n, V)."""
    from sklearn.linear_model import RidgeCV  # late, for it takes a second

    fitted = RidgeCV(np.array(PENALTIES) * len(truth), fit_intercept=False).fit(table, _ranks(truth))
    return min(PENALTIES, key=lambda penalty: abs(penalty * len(truth) - fitted.alpha_)), fitted.coef_


def _ranks(values: Sequence[float | None] | Floats) -> Floats:
    """Ranks, ties averaged, of mean 0 and variance 1; zeros where all are equal."""
    ranks = rankdata(np.asarray(values, dtype=float))
    centred = ranks - ranks.mean() if len(ranks) else ranks
    spread = centred.std() if len(ranks) else 0.0
    return centred / spread if spread > 0 else centred
