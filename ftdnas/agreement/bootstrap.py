"""Intervals: the bootstrap over architectures and seeds, and what stands in for it in small samples."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ftdnas.agreement.ranks import Floats, Statistic

SMALL = 20  # architectures below which correlations take the interval of Bonett and Wright
CHUNK = 4_000_000  # counts held at once
SHORTEST, LONGEST = 100, 1_000  # resamples held at once; of matrices with fewer rows the product is slower
MOST_UNDEFINED = 0.05  # of the resamples; with more there is no interval
MOST_SCENARIOS = 30  # ways to draw the seeds that are enumerated; above, as many are drawn


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: `resamples` over architectures, of coverage `level`. Raises ValueError where unusable.

    `classes`: what each architecture is isomorphic to; those of one class are drawn together. () where all differ.
    `cautious`: ends that are at least as far out as a normal distribution of the resamples' deviation, which far in the
    tails, where few resamples are, is what keeps small samples from false alarms.
    """

    seed: int
    resamples: int = 10_000
    level: float = 0.95
    classes: tuple[Hashable, ...] = ()
    cautious: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level {self.level} is not between 0 and 1")
        if self.resamples < 100:
            raise ValueError(f"{self.resamples} resamples are too few for an interval: take at least 100")

    def describe(self) -> str:
        return f"bootstrap, {self.resamples} resamples"


@dataclass(frozen=True, eq=False)
class Draws:
    """The resamples of some variables over n architectures.

    `table`: their values (V, n). `class_of` (n,): the number of each one's class, of `classes` in all. `scenarios`:
    ways to draw the seeds, each a probability and its table (V, n); `table` itself alone where there is one seed.
    """

    bootstrap: Bootstrap
    table: NDArray[np.float64]
    class_of: NDArray[np.int32]
    scenarios: tuple[tuple[float, NDArray[np.float64]], ...]

    @staticmethod
    def of(
        bootstrap: Bootstrap,
        table: NDArray[np.float64],
        by_seed: Sequence[NDArray[np.float64]],
        kept: NDArray[np.bool_],
    ) -> Draws:
        """Of the architectures `kept`; `by_seed`: (seeds, n) of each variable, no rows where it has no seeds."""
        names = bootstrap.classes or tuple(range(table.shape[1]))
        if len(names) != table.shape[1]:
            raise ValueError(f"{len(names)} classes of {table.shape[1]} architectures: one of each is wanted")
        numbers: dict[Hashable, int] = {}
        class_of = [numbers.setdefault(name, len(numbers)) for name, keep in zip(names, kept, strict=True) if keep]
        chosen = table[:, kept]
        scenarios = tuple(_scenarios(chosen, [seeds[:, kept] for seeds in by_seed], bootstrap.seed))
        return Draws(bootstrap, chosen, np.array(class_of, dtype=np.int32), scenarios)

    @property
    def classes(self) -> int:
        return int(self.class_of.max(initial=-1)) + 1

    def interval(
        self, statistic: Callable[[Floats], Statistic], value: float | None, bound: float
    ) -> tuple[float, float] | None:
        """Percentile interval; None where more than 5 % of the resamples leave the statistic undefined.

        A seed drawn twice is noisier than two seeds, so resampled seeds lower a correlation in the mean. Where `value`
        is given, that part is put right: the resamples are shifted by what the mean over all ways to draw the seeds
        lacks, and cut at +- `bound`.
        """
        replicates = self.replicates(statistic)
        defined = replicates[~np.isnan(replicates)]
        if len(defined) < (1 - MOST_UNDEFINED) * len(replicates):
            return None
        if value is not None and len(self.scenarios) > 1:
            ones = np.ones((1, self.table.shape[1]))
            centres = [(share, float(statistic(table)(ones)[0])) for share, table in self.scenarios]
            known = [(share, centre) for share, centre in centres if not math.isnan(centre)]
            mean = sum(share * centre for share, centre in known) / max(sum(share for share, _ in known), 1e-12)
            defined = np.clip(defined + value - mean, -bound, bound)
        level = self.bootstrap.level
        low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
        if self.bootstrap.cautious and value is not None:
            reach = float(ndtri((1 + level) / 2)) * defined.std()
            low, high = max(-bound, min(low, value - reach)), min(bound, max(high, value + reach))
        return float(low), float(high)

    def replicates(self, statistic: Callable[[Floats], Statistic]) -> NDArray[np.float64]:
        """The statistic of every resample: (resamples,)."""
        parts: list[NDArray[np.float64]] = []
        done = 0
        for share, table in self._shares():
            counted = statistic(table)
            parts += [counted(counts).astype(np.float64) for counts in self._counts(done, done + share)]
            done += share
        return np.concatenate(parts)

    def _shares(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """How many of the resamples each scenario takes."""
        total, past, given = self.bootstrap.resamples, 0.0, 0
        for probability, table in self.scenarios:
            past += probability
            share = round(past * total) - given
            given += share
            if share:
                yield share, table

    def _counts(self, start: int, stop: int) -> Iterator[Floats]:
        """The resamples from `start` to before `stop`, some (R, n) at a time."""
        size = max(SHORTEST, min(LONGEST, CHUNK // max(1, len(self.class_of))))
        for number in range(start // size, (stop - 1) // size + 1):
            drawn = _drawn(self.bootstrap.seed, number, size, self.classes)
            part = drawn[max(0, start - number * size) : stop - number * size]
            # Where every class has one member, as nearly always, the gather would only copy.
            yield part if self.classes == len(self.class_of) else part[:, self.class_of]


@functools.lru_cache(maxsize=12)
def _drawn(seed: int, number: int, size: int, classes: int) -> NDArray[np.float32]:
    """Chunk `number` of the resamples: how often each class is drawn, (size, classes). Every figure asks for them."""
    rng = np.random.default_rng([seed, number])
    rows = rng.integers(0, classes, (size, classes)) + np.arange(size)[:, None] * classes
    counts = np.bincount(rows.ravel(), minlength=size * classes).reshape(size, classes).astype(np.float32)
    counts.flags.writeable = False
    return counts


def _scenarios(
    table: NDArray[np.float64], by_seed: Sequence[NDArray[np.float64]], seed: int
) -> Iterator[tuple[float, NDArray[np.float64]]]:
    seeds = [len(columns) for columns in by_seed]
    everything = math.prod(math.comb(2 * s - 1, s) if s else 1 for s in seeds)
    for share, picked in _all_ways(seeds) if everything <= MOST_SCENARIOS else _some_ways(seeds, seed):
        rows = [_mean(*variable) for variable in zip(table, by_seed, picked, strict=True)]
        yield share, np.stack(rows)


def _all_ways(seeds: Sequence[int]) -> Iterator[tuple[float, tuple[tuple[int, ...], ...]]]:
    """Every way to draw as many seeds of each variable as it has, with its probability."""
    for picked in itertools.product(*(itertools.combinations_with_replacement(range(s), s) for s in seeds)):
        orders = [math.factorial(len(p)) / math.prod(math.factorial(p.count(s)) for s in set(p)) for p in picked]
        yield math.prod(orders) / math.prod(max(1, s) ** s for s in seeds), picked


def _some_ways(seeds: Sequence[int], seed: int) -> Iterator[tuple[float, tuple[tuple[int, ...], ...]]]:
    rng = np.random.default_rng([seed, 1])
    for _ in range(MOST_SCENARIOS):
        yield 1 / MOST_SCENARIOS, tuple(tuple(rng.integers(0, s, s).tolist()) if s else () for s in seeds)


def _mean(values: NDArray[np.float64], seeds: NDArray[np.float64], picked: Sequence[int]) -> NDArray[np.float64]:
    if not len(seeds) or len(set(picked)) == len(picked):
        return values
    taken = seeds[list(picked)]
    known = ~np.isnan(taken)
    total = np.where(known, taken, 0).sum(axis=0)
    mean: NDArray[Any] = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), values)
    return np.where(np.isinf(values), values, mean)


def bonett_wright(value: float, n: int, level: float = 0.95) -> tuple[float, float] | None:
    """Their interval for Spearman's correlation: Fisher's z with variance (1 + value^2 / 2) / (n - 3).

    A perfect correlation is taken half a step of the coefficient lower, else its interval would be a point. None where
    n is below 4.
    """
    return fisher(value, 1 + value**2 / 2, n - 3, 6 / (n * (n**2 - 1)) if n > 1 else 0.0, level)


def fisher(value: float, factor: float, freedom: int, half_step: float, level: float) -> tuple[float, float] | None:
    """tanh of atanh(value) +- quantile * sqrt(factor / freedom); None without freedom."""
    if freedom < 1:
        return None
    centre = np.arctanh(np.clip(value, half_step - 1, 1 - half_step))
    width = float(ndtri((1 + level) / 2)) * np.sqrt(factor / freedom)
    low, high = np.tanh([centre - width, centre + width])
    return min(float(low), value), max(float(high), value)


def zou(r1: float, r2: float, shared: float, n: int, level: float) -> tuple[float, float] | None:
    """Zou's interval of r1 - r2, two correlations with one variable in common; `shared` is that of the two others."""
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
