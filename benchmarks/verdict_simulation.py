"""How often the verdict is wrong and the intervals cover, in simulations whose correlations are known.

    python benchmarks/verdict_simulation.py [--cases 400] [--resamples 2000]

A case draws n architectures: a truth, a proxy and ten baselines, normal with the given correlations with the truth, and
beyond it sharing a part of their errors. "Use it" is wrong unless the proxy is truly better than every baseline, "do
not use it" unless some baseline that it names is truly better.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftdnas.agreement.bootstrap import Bootstrap
from ftdnas.agreement.comparison import decide
from ftdnas.agreement.estimates import Repeated, Variable, spearman, spearman_difference
from ftdnas.agreement.verdict import AVOID, USE, Verdict

BASELINES = 10


@dataclass(frozen=True)
class Scenario:
    """Spearman correlations with the truth. `shared`: the part of the columns' errors that is the same error.
    `levels`: values that columns are rounded to (ties); `noise`: deviation of each of two seeds of the measured truth.
    """

    name: str
    proxy: float
    baselines: tuple[float, ...]
    shared: float = 0.0
    levels: int | None = None
    noise: float = 0.0


SCENARIOS = (
    Scenario("all equal at 0.3", 0.3, (0.3,) * BASELINES),
    Scenario("all equal at 0.7", 0.7, (0.7,) * BASELINES),
    Scenario("all equal at 0.9", 0.9, (0.9,) * BASELINES),
    Scenario("all equal at 0.7, errors half shared", 0.7, (0.7,) * BASELINES, shared=0.5),
    Scenario("all equal at 0.7, errors nearly the same", 0.7, (0.7,) * BASELINES, shared=0.98),
    Scenario("all equal at 0.7, eight values", 0.7, (0.7,) * BASELINES, levels=8),
    Scenario("all equal at 0.7, truth of two noisy seeds", 0.7, (0.7,) * BASELINES, noise=0.5),
    Scenario("equal to the best of them", 0.8, (0.8, *[0.3] * (BASELINES - 1))),
    Scenario("better than all", 0.9, (0.3,) * BASELINES),
    Scenario("a little better than all", 0.75, (0.7,) * BASELINES, shared=0.5),
    Scenario("worse than one", 0.3, (0.9, *[0.3] * (BASELINES - 1))),
    Scenario("a little worse than all", 0.65, (0.7,) * BASELINES, shared=0.5),
    Scenario("worse than all", 0.2, (0.8,) * BASELINES),
)


def pearson(spearman_: float) -> float:
    return 2 * math.sin(math.pi / 6 * spearman_)


def draw(scenario: Scenario, n: int, rng: np.random.Generator) -> tuple[Variable, dict[str, Variable], Variable]:
    """Proxy, baselines and truth over n architectures."""
    truth, common = rng.standard_normal((2, n))

    def column(correlation: float) -> list[float]:
        r = pearson(correlation)
        error = math.sqrt(scenario.shared) * common + math.sqrt(1 - scenario.shared) * rng.standard_normal(n)
        values = r * truth + math.sqrt(1 - r**2) * error
        return list(values if scenario.levels is None else np.round(values * scenario.levels / 5))

    proxy = column(scenario.proxy)
    baselines: dict[str, Variable] = {f"baseline {i}": column(value) for i, value in enumerate(scenario.baselines)}
    if not scenario.noise:
        return proxy, baselines, truth.tolist()
    seeds = truth + scenario.noise * rng.standard_normal((2, n))
    return proxy, baselines, Repeated(seeds.mean(axis=0).tolist(), seeds.tolist())


def wrong(verdict: Verdict, scenario: Scenario) -> bool:
    """Against the correlations that the case was drawn with."""
    if verdict.decision == USE:
        return scenario.proxy <= max(scenario.baselines)
    if verdict.decision == AVOID:
        return not any(scenario.baselines[int(name.split()[1])] > scenario.proxy for name in verdict.against)
    return False


def verdicts(scenario: Scenario, n: int, cases: int, resamples: int) -> Iterator[Verdict]:
    rng = np.random.default_rng([n, SCENARIOS.index(scenario)])
    for case in range(cases):
        proxy, baselines, truth = draw(scenario, n, rng)
        yield decide(proxy, baselines, truth, Bootstrap(case, resamples))


def coverage(correlation: float, other: float, n: int, cases: int, resamples: int) -> tuple[float, float]:
    """How often the intervals of Spearman, and of a paired difference, hold the true value."""
    rng = np.random.default_rng([n, int(100 * correlation)])
    scenario = Scenario("", correlation, (other,), shared=0.3)
    hits = np.zeros(2)
    for case in range(cases):
        proxy, baselines, truth = draw(scenario, n, rng)
        bootstrap = Bootstrap(case, resamples)
        estimates = (
            spearman(proxy, truth, bootstrap),
            spearman_difference(proxy, baselines["baseline 0"], truth, bootstrap),
        )
        for place, (estimate, true) in enumerate(zip(estimates, (correlation, correlation - other), strict=True)):
            hits[place] += (estimate.low or 0.0) <= true <= (estimate.high or 0.0)
    shares: NDArray[np.float64] = hits / cases
    return float(shares[0]), float(shares[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=2000)
    asked = parser.parse_args()
    start = time.perf_counter()
    print("n    correlation  Spearman covers  difference covers   (of 95 % intervals)")
    for n in (36, 48, 72):
        for correlation, other in ((0.0, 0.0), (0.5, 0.3), (0.8, 0.7), (0.9, 0.9)):
            single, paired = coverage(correlation, other, n, 5 * asked.cases, asked.resamples)
            shares = f"{100 * single:.1f} %           {100 * paired:.1f} %"
            print(f"{n:<4} {correlation:<4} {other:<7}  {shares}", flush=True)
    print("\nn    wrong    verdicts                                      scenario")
    for n in (24, 36, 40):
        for scenario in SCENARIOS:
            found = list(verdicts(scenario, n, asked.cases, asked.resamples))
            share = sum(wrong(verdict, scenario) for verdict in found) / len(found)
            told = ", ".join(f"{name} {count}" for name, count in Counter(v.decision for v in found).most_common())
            print(f"{n:<4} {100 * share:4.1f} %   {told}  <- {scenario.name}", flush=True)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
