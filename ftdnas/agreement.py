"""How far a proxy's ranking is from the truth, each figure with its interval; numpy and scipy only.

Scores are numbers of which larger is better, None (or NaN) where the proxy failed; truth likewise. A minus infinity is
a last place. Intervals are percentile intervals of a bootstrap over architectures: equal seeds and equal n resample
the same architectures. Below n = 20 correlations take the interval of Bonett and Wright (Psychometrika 65, 2000),
which supposes that some monotone transformations make the pairs normal. On such pairs the coverage of 95 % bootstrap
intervals of Spearman was measured as 94 to 98 % at n = 20 to 72 and correlations of 0 to 0.9.

A figure that does not exist (constant scores, constant truth, too few architectures) has the value None, never 0.
Failed architectures: correlations are over those that have every value; in precision and regret a failed score is a
last place, because a user does not train what failed. An architecture without truth is left out everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ftdnas.resampled_ranks import Floats, Order, Pair, partial

SMALL = 20  # architectures below which correlations take the interval of Bonett and Wright
CHUNK = 2_000_000  # counts held at once
MOST_UNDEFINED = 0.05  # of the resamples; with more there is no interval

Values = Sequence[float | None]


@dataclass(frozen=True)
class Estimate:
    """A figure over `n` architectures with its interval; each None where undefined, and `method` says why.

    `failed` architectures had no score or no truth.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    failed: int = 0

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        if self.low is None or self.high is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Agreement:
    """All figures of one proxy against one truth. `precision` and `regret` are keyed by k."""

    spearman: Estimate
    kendall: Estimate
    partial: Estimate | None
    precision: Mapping[int, Estimate]
    regret: Mapping[int, Estimate]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: `resamples` over architectures, of coverage `level`. Raises ValueError where unusable."""

    seed: int
    resamples: int = 10_000
    level: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level {self.level} is not between 0 and 1")
        if self.resamples < 100:
            raise ValueError(f"{self.resamples} resamples are too few for an interval: take at least 100")

    @property
    def quantile(self) -> float:
        """Of the normal distribution, 1.96 at 95 %."""
        return float(ndtri((1 + self.level) / 2))

    def replicates(self, statistic: Callable[[Floats], Floats], n: int) -> Floats:
        """The statistic of every resample: (resamples,)."""
        rng = np.random.default_rng(self.seed)
        parts = []
        for start in range(0, self.resamples, max(1, CHUNK // n)):
            size = min(max(1, CHUNK // n), self.resamples - start)
            drawn = rng.integers(0, n, (size, n)) + np.arange(size)[:, None] * n
            parts.append(statistic(np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(float)))
        return np.concatenate(parts)

    def interval(self, statistic: Callable[[Floats], Floats], n: int) -> tuple[float, float] | None:
        """Percentile interval; None where more than 5 % of the resamples leave the statistic undefined."""
        values = self.replicates(statistic, n)
        defined = values[~np.isnan(values)]
        if len(defined) < (1 - MOST_UNDEFINED) * len(values):
            return None
        low, high = np.quantile(defined, [(1 - self.level) / 2, (1 + self.level) / 2])
        return float(low), float(high)


def spearman(scores: Values, truth: Values, bootstrap: Bootstrap) -> Estimate:
    """Spearman's rank correlation, ties averaged."""
    (x, y), failed = _complete(scores, truth)
    pair = Pair(x, y)

    def normal(value: float) -> tuple[float, float] | None:
        return bonett_wright(value, len(x), bootstrap.level)

    return _correlation(pair.spearman, {"scores": pair.x, "truth": pair.y}, failed, bootstrap, normal)


def kendall(scores: Values, truth: Values, bootstrap: Bootstrap) -> Estimate:
    """Kendall's tau-b. Its resamples cost n^2 each: 10,000 of them take 2 s at n = 720 and minutes at n = 10,000."""
    (x, y), failed = _complete(scores, truth)
    pair = Pair(x, y)

    def normal(value: float) -> tuple[float, float] | None:
        # The variance of Fieller, Hartley and Pearson (Biometrika 44, 1957), as Bonett and Wright recommend for tau.
        return _fisher(value, 0.437, len(x) - 4, 4 / (len(x) * (len(x) - 1)), bootstrap)

    return _correlation(pair.kendall, {"scores": pair.x, "truth": pair.y}, failed, bootstrap, normal, "Fieller")


def partial_spearman(scores: Values, truth: Values, given: Values, bootstrap: Bootstrap) -> Estimate:
    """What the ranking by scores says about the truth beyond what `given` (the log-parameters) says already.

    The partial correlation of ranks, so a monotone transformation of `given` changes nothing. Undefined where `given`
    is constant or ranks as the scores (or the truth) do, forwards or backwards.
    """
    (x, y, z), failed = _complete(scores, truth, given)
    pairs = Pair(x, y), Pair(x, z), Pair(y, z)

    def statistic(counts: Floats) -> Floats:
        xy, xz, yz = (pair.spearman(counts) for pair in pairs)
        return partial(xy, xz, yz)

    def normal(value: float) -> tuple[float, float] | None:
        return bonett_wright(value, len(x) - 1, bootstrap.level)

    orders = {"scores": pairs[0].x, "truth": pairs[0].y, "given": pairs[1].y}
    return _correlation(statistic, orders, failed, bootstrap, normal)


def precision_at(k: int, scores: Values, truth: Values, bootstrap: Bootstrap) -> Estimate:
    """The share of the proxy's k best whose truth is at least the k-th best truth, 0 .. 1.

    Where scores are tied at the edge, the mean over all ways to choose. Undefined unless k is below the number of
    architectures. In a resample both sets are chosen anew.
    """
    pair, failed = _choosable(k, scores, truth)
    return _choice(lambda counts: pair.precision(counts, k), k, pair, failed, bootstrap)


def regret_at(k: int, scores: Values, truth: Values, bootstrap: Bootstrap) -> Estimate:
    """The best truth minus the best truth among the proxy's k best, in the units of the truth; 0 is perfect.

    What a user pays who really trains the k best and keeps the best of them. Ties and k as in `precision_at`. A
    bootstrapped maximum is rough: the interval is narrower than it should be where few architectures are near the best.
    """
    pair, failed = _choosable(k, scores, truth)
    return _choice(lambda counts: pair.regret(counts, k), k, pair, failed, bootstrap)


def spearman_difference(scores: Values, baseline: Values, truth: Values, bootstrap: Bootstrap) -> Estimate:
    """Spearman of the scores minus Spearman of a baseline, over the architectures that have all three values.

    Paired: both are taken in the same resamples. Below n = 20 the interval is Zou's for two correlations with a
    variable in common (Psychological Methods 12, 2007), from those of Bonett and Wright: its measured coverage is 95 to
    97 %, and 99 % where the two rank almost alike.
    """
    (x, other, y), failed = _complete(scores, baseline, truth)
    first, second, between = Pair(x, y), Pair(other, y), Pair(x, other)
    n = len(x)

    def statistic(counts: Floats) -> Floats:
        return first.spearman(counts) - second.spearman(counts)

    def normal(_: float) -> tuple[float, float] | None:
        ones = np.ones((1, n))
        r1, r2, shared = (float(pair.spearman(ones)[0]) for pair in (first, second, between))
        return _zou(r1, r2, shared, n, bootstrap.level)

    orders = {"scores": first.x, "baseline": second.x, "truth": first.y}
    return _correlation(statistic, orders, failed, bootstrap, normal, "Zou")


def agreement(
    scores: Values,
    truth: Values,
    bootstrap: Bootstrap,
    *,
    given: Values | None = None,
    ks: Sequence[int] = (5, 10, 20),
) -> Agreement:
    """Every figure of one proxy; `given` (the log-parameters) adds the partial Spearman."""
    return Agreement(
        spearman=spearman(scores, truth, bootstrap),
        kendall=kendall(scores, truth, bootstrap),
        partial=None if given is None else partial_spearman(scores, truth, given, bootstrap),
        precision={k: precision_at(k, scores, truth, bootstrap) for k in ks},
        regret={k: regret_at(k, scores, truth, bootstrap) for k in ks},
    )


def bonett_wright(value: float, n: int, level: float = 0.95) -> tuple[float, float] | None:
    """Their interval for Spearman's correlation: Fisher's z with variance (1 + value^2 / 2) / (n - 3).

    A perfect correlation is taken half a step of the coefficient lower, else its interval would be a point. None where
    n is below 4.
    """
    return _fisher(value, 1 + value**2 / 2, n - 3, 6 / (n * (n**2 - 1)) if n > 1 else 0.0, Bootstrap(0, level=level))


def _fisher(
    value: float, factor: float, freedom: int, half_step: float, bootstrap: Bootstrap
) -> tuple[float, float] | None:
    if freedom < 1:
        return None
    centre = np.arctanh(np.clip(value, half_step - 1, 1 - half_step))
    width = bootstrap.quantile * np.sqrt(factor / freedom)
    low, high = np.tanh([centre - width, centre + width])
    return min(float(low), value), max(float(high), value)


def _zou(r1: float, r2: float, shared: float, n: int, level: float) -> tuple[float, float] | None:
    first, second = bonett_wright(r1, n, level), bonett_wright(r2, n, level)
    if first is None or second is None:
        return None
    (low1, high1), (low2, high2) = first, second
    rest = (1 - r1**2) * (1 - r2**2)
    common = (shared - r1 * r2 / 2) * (1 - r1**2 - r2**2 - shared**2) + shared**3
    correlation = float(np.clip(common / rest, -1, 1)) if rest > 1e-12 else 0.0

    def reach(a: float, b: float) -> float:
        return float(np.sqrt(max(a**2 + b**2 - 2 * correlation * a * b, 0)))

    difference = r1 - r2
    return difference - reach(r1 - low1, high2 - r2), difference + reach(high1 - r1, r2 - low2)


def _correlation(
    statistic: Callable[[Floats], Floats],
    orders: Mapping[str, Order],
    failed: int,
    bootstrap: Bootstrap,
    normal: Callable[[float], tuple[float, float] | None],
    normal_method: str = "Bonett-Wright",
) -> Estimate:
    n = len(next(iter(orders.values())).values)
    undefined = _undefined(orders, n)
    if undefined:
        return Estimate(None, None, None, n, undefined, failed)
    value = float(statistic(np.ones((1, n)))[0])
    if np.isnan(value):
        return Estimate(None, None, None, n, "undefined: one ranking determines another", failed)
    interval = bootstrap.interval(statistic, n) if n >= SMALL else None
    method = f"bootstrap, {bootstrap.resamples} resamples"
    if n < SMALL or (interval is not None and interval[0] == interval[1]):
        # A bootstrap that never moves (perfect agreement) knows nothing of what was not drawn.
        interval, method = normal(value), normal_method
    return _with_interval(value, interval, n, method, failed)


def _choice(statistic: Callable[[Floats], Floats], k: int, pair: Pair, failed: int, bootstrap: Bootstrap) -> Estimate:
    n = len(pair.x.values)
    undefined = _undefined({"scores": pair.x, "truth": pair.y}, n)
    if not undefined and k >= n:
        undefined = f"undefined: k = {k} of {n} architectures is no choice"
    if undefined:
        return Estimate(None, None, None, n, undefined, failed)
    value = float(statistic(np.ones((1, n)))[0])
    method = f"bootstrap, {bootstrap.resamples} resamples"
    return _with_interval(value, bootstrap.interval(statistic, n), n, method, failed)


def _with_interval(value: float, interval: tuple[float, float] | None, n: int, method: str, failed: int) -> Estimate:
    if interval is None:
        return Estimate(value, None, None, n, f"no interval: {method} undefined at n = {n}", failed)
    return Estimate(value, *interval, n, method, failed)


def _undefined(orders: Mapping[str, Order], n: int) -> str:
    if n < 3:
        return f"undefined: {n} architectures"
    constant = [name for name, order in orders.items() if order.constant]
    return f"undefined: constant {constant[0]}" if constant else ""


def _complete(*columns: Values) -> tuple[list[Floats], int]:
    """The rows that have every value, and how many have not."""
    table = _table(columns)
    kept = ~np.isnan(table).any(axis=0)
    return list(table[:, kept]), int((~kept).sum())


def _choosable(k: int, scores: Values, truth: Values) -> tuple[Pair, int]:
    """The rows that have a truth, failed scores at last place; and how many rows lack either."""
    if k < 1:
        raise ValueError(f"k = {k}: choose at least 1 architecture")
    x, y = _table((scores, truth))
    known = ~np.isnan(y)
    failed = int((np.isnan(x) | ~known).sum())
    if np.isinf(y[known]).any():
        raise ValueError("the truth holds an infinite value: an accuracy is finite, a failed training is None")
    return Pair(np.where(np.isnan(x), -np.inf, x)[known], y[known]), failed


def _table(columns: Sequence[Values]) -> NDArray[np.float64]:
    lengths = {len(column) for column in columns}
    if len(lengths) != 1:
        raise ValueError(f"columns of unequal length: {', '.join(str(len(column)) for column in columns)}")
    return np.array([[np.nan if value is None else float(value) for value in column] for column in columns])
