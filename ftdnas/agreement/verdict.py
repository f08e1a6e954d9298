"""Whether a proxy is worth using: one decision and one plain sentence, from estimates alone.

The rule. *Use it*: the paired difference to every equal-cost baseline has its lower bound above 0. *Do not use it*: to
some baseline the upper bound, Bonferroni-adjusted for their number, is below 0. *Use it only to drop the worst X %*:
the largest X at which a Gaussian-copula model of the two rankings, at the lower bound of Spearman's interval, loses a
true top-5 % architecture with probability at most 5 %. Otherwise *undecided*, with the number of candidates that would
decide. In simulations of ten baselines the first two are wrong in less than 5 % of cases
(benchmarks/verdict_simulation.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from ftdnas.agreement.estimates import Estimate

USE, AVOID, DROP, UNDECIDED = "use it", "do not use it", "use it only to drop the worst", "undecided"
TOP, RISK = 0.05, 0.05  # the share of architectures that must not be lost, and how often one of them may be
LEAST_DROP = 0.10  # blind dropping loses as often what it drops: RISK itself says nothing
MANY = 100_000  # candidates; more decide nothing that anybody would train


@dataclass(frozen=True)
class Rival:
    """A baseline of equal cost. `ahead`: Spearman of the proxy minus its own, paired; `adjusted`: the same with an
    interval that is Bonferroni-adjusted for the number of baselines.
    """

    title: str
    spearman: Estimate
    ahead: Estimate
    adjusted: Estimate


@dataclass(frozen=True)
class Verdict:
    """`decision`: USE, AVOID, DROP or UNDECIDED. `sentence`: the same for people, what speaks against the proxy first.

    `drop`: the share that may be dropped, a model's figure; None where below 10 %. `against`: titles of the baselines
    that are beyond doubt better (AVOID), else of those that are not beaten. `needed`: how many candidates would decide
    if the differences stayed what they are; None where decided or where no number would.
    """

    decision: str
    sentence: str
    drop: float | None
    against: tuple[str, ...]
    needed: int | None


def verdict_of(title: str, own: Estimate, rivals: Sequence[Rival]) -> Verdict:
    """The verdict on a proxy whose Spearman over the candidates above chance is `own`.

    A baseline that ranks nothing, because it is constant, is no rival.
    """
    if own.value is None:
        return Verdict(UNDECIDED, f"Undecided: {title} cannot be judged, its Spearman is {own.method}.", None, (), None)
    compared = [rival for rival in rivals if rival.ahead.value is not None]
    worse = [rival for rival in compared if rival.adjusted.high is not None and rival.adjusted.high < 0]
    unbeaten = [rival for rival in compared if rival.ahead.low is None or rival.ahead.low <= 0]
    drop = None if own.low is None else droppable(own.low)
    drop = drop if drop is not None and drop >= LEAST_DROP else None
    mine = f"its own Spearman is {own} over {own.n} candidates" + (f" ({own.failed} more failed)" if own.failed else "")
    if worse:
        names = tuple(rival.title for rival in worse)
        text = f"Do not use it: {_each(worse)} rank{'s' * (len(worse) == 1)} better beyond doubt than {title}; {mine}."
        return Verdict(AVOID, text, drop, names, None)
    if compared and not unbeaten:
        nearest = _each([min(compared, key=lambda rival: rival.ahead.low or 0.0)])
        beaten = "the only baseline" if len(compared) == 1 else f"all {len(compared)} baselines"
        text = f"Use it: {title} ranks better than {beaten} of equal cost, the nearest being {nearest}; {mine}."
        return Verdict(USE, text, drop, (), None)
    needed = needed_candidates(compared)
    names = tuple(rival.title for rival in unbeaten)
    doubt = f"{title} is not shown to rank better than {_each(unbeaten)}" if compared else "no baseline was compared"
    more = _more(compared, needed)
    if drop is None:
        return Verdict(UNDECIDED, f"Undecided: {doubt}; {mine}{more}.", None, names, needed)
    text = (
        f"Use it only to drop the worst {_percent(drop)}: {doubt}; {mine}. That share is the figure of a model, "
        f"a Gaussian copula at the lower bound {own.low:.2f}, by which a true top-{_percent(TOP)} candidate is lost "
        f"with probability {_percent(RISK)}{_cheaper(compared, drop)}{more}."
    )
    return Verdict(DROP, text, drop, names, needed)


def droppable(spearman: float, top: float = TOP, risk: float = RISK) -> float:
    """The largest share of the worst by proxy that may be dropped in a Gaussian-copula model of that Spearman, 0 .. 1.

    A candidate of the true best `top` is then among the dropped with probability `risk`. At 0 it is `risk` itself.
    """
    pearson = 2 * math.sin(math.pi / 6 * min(max(spearman, -1.0), 1.0))  # of the normal pair with that Spearman
    if pearson > 1 - 1e-9:
        return 1 - top
    # The true best in equal parts of their probability: midpoints of 2,000 of them are exact to four digits.
    best = ndtri(1 - top + top * (np.arange(2_000) + 0.5) / 2_000)
    rest = math.sqrt(1 - pearson**2) or 1e-9

    def lost_too_often(edge: float) -> float:
        return float(ndtr((edge - pearson * best) / rest).mean()) - risk

    return float(ndtr(brentq(lost_too_often, -12, 12)))


def needed_candidates(rivals: Sequence[Rival]) -> int | None:
    """How many candidates would decide if every difference stayed what it is: intervals shrink with the root of n.

    Where the proxy is ahead of all in the mean, as many as show it against each; where it is behind one, as many as
    show that. None where no number would.
    """
    if not rivals:
        return None
    behind = [rival for rival in rivals if rival.ahead.value is not None and rival.ahead.value <= 0]
    if behind:
        decided = [_n_for(rival.adjusted, rival.adjusted.high) for rival in behind]
        return min((n for n in decided if n is not None), default=None)
    shown = [_n_for(rival.ahead, rival.ahead.low) for rival in rivals]
    return None if None in shown else max(n for n in shown if n is not None)


def _n_for(difference: Estimate, bound: float | None) -> int | None:
    if not difference.value or bound is None:
        return None
    wanted = difference.n * ((difference.value - bound) / difference.value) ** 2
    return math.ceil(wanted - 1e-9) if wanted < 1e12 else None


def _more(rivals: Sequence[Rival], needed: int | None) -> str:
    if not rivals:
        return ""
    if needed is None:
        return "; no number of candidates would decide"
    number = f"more than {MANY:,}" if needed > MANY else f"about {needed:,}"
    return f"; {number} candidates would decide if the differences stayed what they are"


def _cheaper(rivals: Sequence[Rival], drop: float) -> str:
    """The baselines that allow to drop as much: a proxy that costs something must not be praised beside them."""
    able = [(droppable(rival.spearman.low), rival.title) for rival in rivals if rival.spearman.low is not None]
    share, title = max(able, default=(0.0, ""))
    return f"; {title} allows {_percent(share)} by the same model" if share >= drop else ""


def _each(rivals: Sequence[Rival]) -> str:
    shown = sorted(rivals, key=lambda rival: rival.ahead.value or 0.0)[:3]
    parts = [f"{rival.title} ({_of(rival.spearman)}; difference {rival.ahead})" for rival in shown]
    if len(rivals) > len(shown):
        return f"{', '.join(parts)} and {len(rivals) - len(shown)} more"
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _of(estimate: Estimate) -> str:
    return "undefined" if estimate.value is None else f"{estimate.value:.2f}"


def _percent(share: float) -> str:
    return f"{math.floor(100 * share + 1e-9)} %"
