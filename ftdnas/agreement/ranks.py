"""Rank statistics of many resamples at once; numpy only.

A resample of n architectures is the row of its multinomial counts: how often each was drawn. Below, `counts` is
(R, n), whole numbers in float64 or float32 (exact for sums below 2^24); a row of ones is the sample itself, and a zero
leaves an architecture out. Every statistic maps counts to (R,) values, NaN where it is undefined. Copies of one
architecture are tied with each other, as they would be in the resample written out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Floats = NDArray[np.floating[Any]]
Statistic = Callable[[Floats], Floats]
SIGN_BLOCK = 1_000  # rows of the n x n sign matrix held at once


class Order:
    """The values (n,) of one variable, sorted once; equal values form a group, groups ascend."""

    def __init__(self, values: Floats) -> None:
        self.values = values
        self.sorting = np.argsort(values, kind="stable")
        _, self.group, sizes = np.unique(values, return_inverse=True, return_counts=True)
        self.ends = np.cumsum(sizes) - 1  # the last of each group in the sorting

    def groups(self, counts: Floats) -> tuple[Floats, Floats]:
        """How many of the resample have each group's value or a smaller one, and how many that value: (R, groups)."""
        upto: Floats = np.cumsum(counts[:, self.sorting], axis=1)
        if len(self.ends) < len(self.sorting):
            upto = upto[:, self.ends]
        sizes = upto.copy()
        sizes[:, 1:] -= upto[:, :-1]
        return upto, sizes

    def centred_midranks(self, counts: Floats) -> Floats:
        """Ranks in the resample, ties averaged, minus their mean: (R, n)."""
        upto, sizes = self.groups(counts)
        centred: Floats = upto - (sizes + upto[:, -1:]) / 2
        return centred[:, self.group]

    def above(self, counts: Floats) -> tuple[Floats, Floats]:
        """Of each item, how many of the resample have a larger value, and how many an equal one: (R, n) each."""
        upto, sizes = self.groups(counts)
        larger = upto[:, -1:] - upto
        return larger[:, self.group], sizes[:, self.group]

    def tied_pairs(self, counts: Floats) -> Floats:
        _, sizes = self.groups(counts)
        pairs: Floats = (sizes * (sizes - 1)).sum(axis=1, dtype=np.float64) / 2
        return pairs

    def best(self, counts: Floats, k: Floats | int) -> Floats:
        """The counts of those with fewer than `k` larger values in the resample, a number or (R, 1); zero elsewhere.

        Values tied with the k-th best come along.
        """
        chosen: Floats = counts * (self.above(counts)[0] < k)
        return chosen


class Pair:
    """Two variables over the same n items: `x` is the score, `y` the truth; larger is better in both."""

    def __init__(self, x: Floats, y: Floats) -> None:
        self.x = Order(x)
        self.y = Order(y)

    def among(self, rows: NDArray[np.intp]) -> Pair:
        """The same over some of the items."""
        return Pair(self.x.values[rows], self.y.values[rows])

    def spearman(self, counts: Floats) -> Floats:
        return _weighted_cosine(counts, self.x.centred_midranks(counts), self.y.centred_midranks(counts))

    def kendall(self, counts: Floats) -> Floats:
        """tau-b: concordant minus discordant pairs are the quadratic form c' S c / 2, S = sign(x) * sign(y)."""
        items = counts.shape[1]
        single = counts.astype(np.float32, copy=False)
        difference = np.zeros(len(counts))
        for start in range(0, items, SIGN_BLOCK):
            rows = slice(start, start + SIGN_BLOCK)
            signs = self._all_signs if items <= SIGN_BLOCK else self._signs(rows)
            products = single @ signs.T
            difference += np.einsum("rn,rn->r", products, counts[:, rows], dtype=np.float64) / 2
        total = counts.sum(axis=1, dtype=np.float64)
        pairs = total * (total - 1) / 2
        untied = (pairs - self.x.tied_pairs(counts)) * (pairs - self.y.tied_pairs(counts))
        return _ratio(difference, np.sqrt(untied))

    def precision(self, counts: Floats, k: int) -> Floats:
        """The share of the k best by x whose y is at least the k-th best y; among tied x the mean over all choices."""
        better, equal = self.x.above(counts)
        chosen = np.clip(_ratio(k - better, equal), 0, 1) * counts  # copies taken; a group at the edge in part
        belongs = self.y.above(counts)[0] < k
        share: Floats = (np.where(counts > 0, chosen, 0) * belongs).sum(axis=1) / k
        return share

    def regret(self, counts: Floats, k: int) -> Floats:
        """The best y minus the best y among the k best by x; among tied x the mean over all choices."""
        descending = self.y.sorting[::-1]
        truth = self.y.values[descending]
        better, equal = (table[:, descending] for table in self.x.above(counts))
        drawn = counts[:, descending]
        present = drawn > 0
        best = np.where(present, truth, -np.inf).max(axis=1)
        sure = np.where(present & (better + equal <= k), truth, -np.inf).max(axis=1)
        # At the edge, m of the G copies in one group are taken. None of the s best is among them in
        # C(G - s, m) / C(G, m) of the cases: the difference of two such terms is the chance that an item is the best.
        edge = present & (better < k) & (better + equal > k)
        group = np.where(edge, equal, 0).max(axis=1, keepdims=True)
        taken = np.where(edge, k - better, 0).max(axis=1, keepdims=True)
        passed = np.cumsum(np.where(edge, drawn, 0), axis=1)
        missed = _missed(group, taken, passed)
        chance = np.concatenate([np.ones((len(counts), 1)), missed[:, :-1]], axis=1) - missed
        reached = np.where(edge, chance * np.maximum(truth, sure[:, None]), 0).sum(axis=1)
        lost: Floats = best - np.where(edge.any(axis=1), reached, sure)
        return lost

    @cached_property
    def _dense(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        return self.x.group.astype(np.int32), self.y.group.astype(np.int32)

    @cached_property
    def _all_signs(self) -> NDArray[np.float32]:
        return self._signs(slice(None))

    def _signs(self, rows: slice) -> NDArray[np.float32]:
        x, y = self._dense
        signs: NDArray[np.float32] = (np.sign(x[rows, None] - x) * np.sign(y[rows, None] - y)).astype(np.float32)
        return signs


def partial(xy: Floats, xz: Floats, yz: Floats) -> Floats:
    """The correlation of x and y given z; NaN where z determines one of them."""
    rest = (1 - xz**2) * (1 - yz**2)
    return _ratio(xy - xz * yz, np.sqrt(np.where(rest > 1e-12, rest, 0)))


def _weighted_cosine(weights: Floats, a: Floats, b: Floats) -> Floats:
    weighted_a, weighted_b = weights * a, weights * b
    product, own_a, own_b = (
        np.einsum("rn,rn->r", p, q).astype(np.float64) for p, q in ((weighted_a, b), (weighted_a, a), (weighted_b, b))
    )
    return _ratio(product, np.sqrt(own_a * own_b)).clip(-1, 1)


def _missed(group: Floats, taken: Floats, passed: Floats) -> Floats:
    """C(group - passed, taken) / C(group, taken), 0 where too few are left."""
    left = group - passed
    enough = left >= taken
    left = np.where(enough, left, taken)
    logs = gammaln(left + 1) - gammaln(left - taken + 1) - gammaln(group + 1) + gammaln(group - taken + 1)
    return np.where(enough, np.exp(logs), 0.0)


def _ratio(above: Floats, below: Floats) -> Floats:
    result: Floats = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return result
