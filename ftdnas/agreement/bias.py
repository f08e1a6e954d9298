"""Which kind of candidate a proxy flatters, and which candidates no other beats in everything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ftdnas.agreement.comparison import Choice
from ftdnas.agreement.estimates import Values

MOST_VALUES = 8  # of a choice; a number with more is cut into three parts
FEWEST = 3  # candidates of a value that a mean is taken of


@dataclass(frozen=True)
class Bias:
    """Mean of (percentile by proxy - percentile by truth) over the `n` candidates that chose `value`, in points of 100.

    Above 0 the proxy flatters them. [low, high]: 95 % by Student's t; None where all differences are equal.
    """

    choice: str
    value: str
    mean: float
    low: float | None
    high: float | None
    n: int


def biases(choices: Sequence[Mapping[str, Choice]], scores: Values, truth: Values) -> list[Bias]:
    """For each value of each choice that the candidates with a truth differ in; a failed score is a last place."""
    rows = [row for row, value in enumerate(truth) if value is not None]
    if len(rows) < FEWEST or not choices:
        return []
    gap = percentiles([scores[row] for row in rows]) - percentiles([truth[row] for row in rows])
    flattered = []
    for key in dict.fromkeys(key for row in rows for key in choices[row]):
        each, kinds = _labels([choices[row].get(key) for row in rows])
        for label in kinds:
            chosen = gap[[own == label for own in each]]
            if len(kinds) > 1 and len(chosen) >= FEWEST:
                flattered.append(_bias(key, label, chosen))
    return flattered


def percentiles(values: Values) -> NDArray[np.float64]:
    """0 for the worst, 100 for the best, ties averaged; what failed shares the last place."""
    ranks = stats.rankdata([-np.inf if value is None or math.isnan(value) else value for value in values])
    result: NDArray[np.float64] = 100 * (ranks - 1) / max(1, len(values) - 1)
    return result


def pareto(costs: Sequence[float | None], values: Values) -> list[int]:
    """The rows that no other beats in cost (smaller) without being worse in value, by ascending cost."""
    known = [
        (cost, -value, row)
        for row, (cost, value) in enumerate(zip(costs, values, strict=True))
        if cost is not None and value is not None
    ]
    front: list[int] = []
    best = -math.inf
    for _, loss, row in sorted(known):
        if -loss > best:
            best = -loss
            front.append(row)
    return front


def _labels(values: Sequence[Choice | None]) -> tuple[list[str], list[str]]:
    """(the label of each value, the labels that there are)."""
    distinct = sorted({value for value in values if value is not None}, key=lambda value: (str(type(value)), value))
    if len(distinct) <= MOST_VALUES:
        each = ["-" if value is None else str(value) for value in values]
        return each, [str(value) for value in distinct]
    if any(isinstance(value, str) for value in distinct):
        return [], []
    numbers = [float(value) for value in values if value is not None]
    low, high = (float(edge) for edge in np.quantile(numbers, [1 / 3, 2 / 3]))
    kinds = [f"up to {low:.4g}", f"{low:.4g} to {high:.4g}", f"above {high:.4g}"]
    each = ["-" if v is None else kinds[(float(v) > low) + (float(v) > high)] for v in values]
    return each, kinds


def _bias(choice: str, value: str, gap: NDArray[np.float64]) -> Bias:
    mean, deviation = float(gap.mean()), float(gap.std(ddof=1))
    if not deviation:
        return Bias(choice, value, mean, None, None, len(gap))
    reach = float(stats.t.ppf(0.975, len(gap) - 1)) * deviation / math.sqrt(len(gap))
    return Bias(choice, value, mean, mean - reach, mean + reach, len(gap))
