"""How far a proxy's ranking is from the truth, each figure with its interval; numpy and scipy only.

Scores are numbers of which larger is better, None (or NaN) where the proxy failed; truth likewise. A minus infinity is
a last place. Intervals are percentile intervals of a bootstrap over architectures, isomorphic ones drawn together, and
over the seeds of what was measured with several: equal seeds and equal n resample the same architectures. Below n = 20
correlations take the interval of Bonett and Wright (Psychometrika 65, 2000), which supposes that some monotone
transformations make the pairs normal. On such pairs the coverage of 95 % bootstrap intervals of Spearman was measured
as 94 to 98 % at n = 20 to 72 and correlations of 0 to 0.9 (benchmarks/verdict_simulation.py measures it anew).

A figure that does not exist (constant scores, constant truth, too few architectures) has the value None, never 0.
Failed architectures: correlations are over those that have every value; in precision and regret a failed score is a
last place, because a user does not train what failed. An architecture without truth is left out everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ftdnas.agreement.bootstrap import SMALL, Bootstrap, Draws, bonett_wright, fisher, zou
from ftdnas.agreement.ranks import Floats, Pair, Statistic, partial

PAIRS = 2e10  # of architectures, over all resamples, that tau-b may cost
Values = Sequence[float | None]
Interval = tuple[float, float]
Normal = Callable[[float, int, float], Interval | None]  # (value, n, level) -> its interval where n is small
Among = Callable[[Pair, Floats], Floats]  # counts -> the counts of those that a figure is about, chosen anew


@dataclass(frozen=True)
class Repeated:
    """A variable measured with several seeds: the mean `values`, and the column of each seed.

    Seeds are resampled beside the architectures; a seed that lacks an architecture takes its mean.
    """

    values: Values
    by_seed: Sequence[Values] = ()


Variable = Values | Repeated


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
            return _two(self.value)
        return f"{_two(self.value)} [{_two(self.low)}, {_two(self.high)}]"


def _two(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # no minus zero


def better_half(pair: Pair, counts: Floats) -> Floats:
    """The better half by truth, rounded up; what is tied at its edge comes along."""
    return pair.y.best(counts, np.ceil(counts.sum(axis=1, keepdims=True) / 2))


def top_by_truth(k: int) -> Among:
    """The k best by truth; what is tied with the last of them comes along."""
    return lambda pair, counts: pair.y.best(counts, k)


def top_by_scores(k: int) -> Among:
    """The k best by the proxy, ties as in `top_by_truth`."""
    return lambda pair, counts: pair.x.best(counts, k)


def spearman(scores: Variable, truth: Variable, bootstrap: Bootstrap, among: Among | None = None) -> Estimate:
    """Spearman's rank correlation, ties averaged; over those that `among` chooses, anew in each resample."""
    return _rank_correlation(Pair.spearman, bonett_wright, "Bonett-Wright", scores, truth, bootstrap, among)


def kendall(scores: Variable, truth: Variable, bootstrap: Bootstrap, among: Among | None = None) -> Estimate:
    """Kendall's tau-b. Its resamples cost n^2 each: above n = 1,400 there are fewer of them, as `method` says."""
    resamples = max(100, min(bootstrap.resamples, int(PAIRS / max(1, len(_repeated(truth).values)) ** 2)))
    affordable = replace(bootstrap, resamples=resamples)
    return _rank_correlation(Pair.kendall, _fieller, "Fieller", scores, truth, affordable, among)


def partial_spearman(scores: Variable, truth: Variable, given: Variable, bootstrap: Bootstrap) -> Estimate:
    """What the ranking by scores says about the truth beyond what `given` (the log-parameters) says already.

    The partial correlation of ranks, so a monotone transformation of `given` changes nothing. Undefined where `given`
    is constant or ranks as the scores (or the truth) do, forwards or backwards.
    """
    sample = _Sample({"scores": scores, "truth": truth, "given": given}, bootstrap)

    def statistic(table: Floats) -> Statistic:
        pairs = Pair(table[0], table[1]), Pair(table[0], table[2]), Pair(table[1], table[2])
        return lambda counts: partial(*(pair.spearman(counts) for pair in pairs))

    return sample.correlation(statistic, lambda value, n, level: bonett_wright(value, n - 1, level), "Bonett-Wright")


def precision_at(k: int, scores: Variable, truth: Variable, bootstrap: Bootstrap) -> Estimate:
    """The share of the proxy's k best whose truth is at least the k-th best truth, 0 .. 1.

    Where scores are tied at the edge, the mean over all ways to choose. Undefined unless k is below the number of
    architectures. In a resample both sets are chosen anew.
    """
    return _choice(k, scores, truth, bootstrap, lambda pair, counts: pair.precision(counts, k))


def regret_at(k: int, scores: Variable, truth: Variable, bootstrap: Bootstrap) -> Estimate:
    """The best truth minus the best truth among the proxy's k best, in the units of the truth; 0 is perfect.

    What a user pays who really trains the k best and keeps the best of them. Ties and k as in `precision_at`. A
    bootstrapped maximum is rough: the interval is narrower than it should be where few architectures are near the best.
    """
    return _choice(k, scores, truth, bootstrap, lambda pair, counts: pair.regret(counts, k))


def chance_regret(k: int, truth: Values) -> float | None:
    """What `regret` gives in the mean when the k are drawn blindly."""
    return regret(k, [0.0] * len(truth), truth)


def regret(k: int, scores: Values, truth: Values) -> float | None:
    """The value of `regret_at` alone; None unless k is below the number with truth."""
    known = [row for row, value in enumerate(truth) if value is not None and not np.isnan(value)]
    if not 0 < k < len(known):
        return None
    own = [-np.inf if (value := scores[row]) is None or np.isnan(value) else value for row in known]
    pair = Pair(np.array(own, dtype=float), np.array([truth[row] for row in known], dtype=float))
    return float(pair.regret(np.ones((1, len(known))), k)[0])


def spearman_difference(
    scores: Variable, baseline: Variable, truth: Variable, bootstrap: Bootstrap, among: Among | None = None
) -> Estimate:
    """Spearman of the scores minus Spearman of a baseline, over the architectures that have all three values.

    Paired: both are taken in the same resamples. Below n = 20 the interval is Zou's for two correlations with a
    variable in common (Psychological Methods 12, 2007), from those of Bonett and Wright: its measured coverage is 95 to
    97 %, and 99 % where the two rank almost alike.
    """
    sample = _Sample({"scores": scores, "baseline": baseline, "truth": truth}, bootstrap)
    if among:
        sample.restrict(lambda table, counts: among(Pair(table[0], table[2]), counts))

    def statistic(table: Floats) -> Statistic:
        first, second = Pair(table[0], table[2]), Pair(table[1], table[2])

        def difference(counts: Floats) -> Floats:
            chosen = among(first, counts) if among else counts
            result: Floats = first.spearman(chosen) - second.spearman(chosen)
            return result

        return difference

    def normal(_: float, n: int, level: float) -> Interval | None:
        own, other, true = sample.chosen
        ones = np.ones((1, len(own)))
        pairs = Pair(own, true), Pair(other, true), Pair(own, other)
        r1, r2, shared = (float(pair.spearman(ones)[0]) for pair in pairs)
        return zou(r1, r2, shared, n, level)

    return sample.correlation(statistic, normal, "Zou", bound=2.0)


def seed_agreement(by_seed: Sequence[Values], bootstrap: Bootstrap) -> Estimate:
    """The noise ceiling: Spearman of one seed's truth against another's, the mean over all pairs of seeds.

    Undefined with fewer than two seeds: a table of means has no ceiling.
    """
    if len(by_seed) < 2:
        why = "undefined: the truth has one seed (ftdnas truth --seeds 2)" if by_seed else "undefined: a table of means"
        return Estimate(None, None, None, 0, why)
    sample = _Sample({f"seed {number + 1}": column for number, column in enumerate(by_seed)}, bootstrap)

    def statistic(table: Floats) -> Statistic:
        pairs = [Pair(table[a], table[b]) for a in range(len(table)) for b in range(a)]
        return lambda counts: np.mean([pair.spearman(counts) for pair in pairs], axis=0)

    return sample.correlation(statistic, bonett_wright, "Bonett-Wright")


def _fieller(value: float, n: int, level: float) -> Interval | None:
    # The variance of Fieller, Hartley and Pearson (Biometrika 44, 1957), as Bonett and Wright recommend for tau.
    return fisher(value, 0.437, n - 4, 4 / (n * (n - 1)) if n > 1 else 0.0, level)


def _rank_correlation(
    figure: Callable[[Pair, Floats], Floats],
    normal: Normal,
    normal_method: str,
    scores: Variable,
    truth: Variable,
    bootstrap: Bootstrap,
    among: Among | None,
) -> Estimate:
    sample = _Sample({"scores": scores, "truth": truth}, bootstrap)
    if among:
        sample.restrict(lambda table, counts: among(Pair(table[0], table[1]), counts))

    def statistic(table: Floats) -> Statistic:
        pair = Pair(table[0], table[1])

        def correlation(counts: Floats) -> Floats:
            if among is None:
                return figure(pair, counts)
            chosen = among(pair, counts)
            rows = np.flatnonzero(chosen.any(axis=0))  # a small choice is a small matrix
            return figure(pair.among(rows), chosen[:, rows])

        return correlation

    return sample.correlation(statistic, normal, normal_method)


class _Sample:
    """The architectures that have every value, and their resamples."""

    def __init__(self, variables: dict[str, Variable], bootstrap: Bootstrap) -> None:
        repeated = [_repeated(variable) for variable in variables.values()]
        table = _table([variable.values for variable in repeated])
        kept = np.logical_not(np.isnan(table).any(axis=0))
        self.names = list(variables)
        self.bootstrap = bootstrap
        self.failed = int((~kept).sum())
        self.draws = Draws.of(bootstrap, table, [_by_seed(variable) for variable in repeated], kept)
        self.chosen = self.draws.table
        self.effective = self.draws.classes

    def restrict(self, among: Callable[[Floats, Floats], Floats]) -> None:
        """Say what the figure is about in the sample itself: its n and whether it is constant."""
        if self.chosen.shape[1]:
            rows = among(self.draws.table, np.ones((1, self.chosen.shape[1])))[0] > 0
            self.chosen = self.draws.table[:, rows]
            self.effective = len(np.unique(self.draws.class_of[rows]))

    @property
    def n(self) -> int:
        return int(self.chosen.shape[1])

    @property
    def undefined(self) -> str:
        if self.n < 3:
            return f"undefined: {self.n} architectures"
        for name, values in zip(self.names, self.chosen, strict=True):
            if (values == values[0]).all():
                return f"undefined: constant {name}"
        return ""

    def correlation(
        self, statistic: Callable[[Floats], Statistic], normal: Normal, normal_method: str, bound: float = 1.0
    ) -> Estimate:
        if self.undefined:
            return Estimate(None, None, None, self.n, self.undefined, self.failed)
        value = self.value(statistic)
        if np.isnan(value):
            return Estimate(None, None, None, self.n, "undefined: one ranking determines another", self.failed)
        interval, method = None, self.bootstrap.describe()
        if self.effective >= SMALL:
            interval = self.draws.interval(statistic, value, bound)
        if self.effective < SMALL or (interval is not None and interval[0] == interval[1]):
            # A bootstrap that never moves (perfect agreement) knows nothing of what was not drawn.
            interval, method = normal(value, self.effective, self.bootstrap.level), normal_method
        return self.with_interval(value, interval, method)

    def value(self, statistic: Callable[[Floats], Statistic]) -> float:
        return float(statistic(self.draws.table)(np.ones((1, self.draws.table.shape[1])))[0])

    def with_interval(self, value: float, interval: Interval | None, method: str) -> Estimate:
        if interval is None:
            why = f"no interval: {method} undefined at n = {self.n}"
            return Estimate(value, None, None, self.n, why, self.failed)
        return Estimate(value, *interval, self.n, method, self.failed)


def _choice(
    k: int, scores: Variable, truth: Variable, bootstrap: Bootstrap, figure: Callable[[Pair, Floats], Floats]
) -> Estimate:
    if k < 1:
        raise ValueError(f"k = {k}: choose at least 1 architecture")
    x, y = _table([_repeated(scores).values, _repeated(truth).values])
    if np.isinf(y).any():
        raise ValueError("the truth holds an infinite value: an accuracy is finite, a failed training is None")
    last = Repeated([-np.inf if np.isnan(value) else float(value) for value in x], _repeated(scores).by_seed)
    sample = _Sample({"scores": last, "truth": truth}, bootstrap)
    sample.failed = int((np.isnan(x) | np.isnan(y)).sum())
    undefined = sample.undefined
    if not undefined and k >= sample.n:
        undefined = f"undefined: k = {k} of {sample.n} architectures is no choice"
    if undefined:
        return Estimate(None, None, None, sample.n, undefined, sample.failed)

    def statistic(table: Floats) -> Statistic:
        pair = Pair(table[0], table[1])
        return lambda counts: figure(pair, counts)

    interval = sample.draws.interval(statistic, None, np.inf)
    return sample.with_interval(sample.value(statistic), interval, bootstrap.describe())


def _repeated(variable: Variable) -> Repeated:
    return variable if isinstance(variable, Repeated) else Repeated(variable)


def _by_seed(variable: Repeated) -> NDArray[np.float64]:
    """(seeds, n); no rows where there is one seed."""
    table = _table([variable.values, *variable.by_seed])[1:]
    return table if len(table) > 1 else table[:0]


def _table(columns: Sequence[Values]) -> NDArray[np.float64]:
    lengths = {len(column) for column in columns}
    if len(lengths) != 1:
        raise ValueError(f"columns of unequal length: {', '.join(str(len(column)) for column in columns)}")
    return np.array([[np.nan if value is None else float(value) for value in column] for column in columns])
