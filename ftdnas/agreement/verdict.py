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
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from ftdnas.agreement.estimates import Estimate

USE, AVOID, DROP, UNDECIDED = "use it", "do not use it", "use it only to drop the worst", "undecided"
TOP, RISK = 0.05, 0.05  # the share of architectures that must not be lost, and how often one of them may be
LEAST_DROP = 0.10  # blind dropping loses as often what it drops: RISK itself says nothing
MOST_LETTERS = 40  # of a baseline's title in a sentence
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
    """`decision`: USE, AVOID, DROP or UNDECIDED. `sentence`: the same for people, in at most three lines of 72 letters.

    `drop`: the share that may be dropped, a model's figure; None where below 10 %. `against`: titles of the baselines
    that are beyond doubt better (AVOID), else of those that are not beaten. `needed`: how many candidates would decide
    if the differences stayed what they are; None where decided or where no number would.
    """

    decision: str
    sentence: str
    drop: float | None
    against: tuple[str, ...]
    needed: int | None


def verdict_of(own: Estimate, rivals: Sequence[Rival]) -> Verdict:
    """The verdict on a proxy whose Spearman over the candidates above chance is `own`.

    A baseline that ranks nothing, because it is constant, is no rival.
    """
    if own.value is None:
        return Verdict(UNDECIDED, f"Undecided: it cannot be judged, its Spearman is {own.method}.", None, (), None)
    compared = [rival for rival in rivals if rival.ahead.value is not None]
    worse = [rival for rival in compared if rival.adjusted.high is not None and rival.adjusted.high < 0]
    unbeaten = [rival for rival in compared if rival.ahead.low is None or rival.ahead.low <= 0]
    drop = None if own.low is None else droppable(own.low)
    drop = drop if drop is not None and drop >= LEAST_DROP else None
    if worse:
        text = f"Do not use it: {_named(worse)} rank{'s' * (len(worse) == 1)} networks better, beyond doubt."
        return Verdict(AVOID, text, drop, tuple(rival.title for rival in worse), None)
    if compared and not unbeaten:
        beaten = "the one other way" if len(compared) == 1 else f"all {len(compared)} other ways"
        return Verdict(USE, f"Use it: it ranks networks better than {beaten} of equal cost.", drop, (), None)
    needed = needed_candidates(compared)
    names = tuple(rival.title for rival in unbeaten)
    doubt = f"not shown to rank better than {_named(unbeaten)}" if compared else "nothing was compared with it"
    more = _more(compared, needed)
    if drop is None:
        return Verdict(UNDECIDED, f"Undecided: {doubt}{more}.", None, names, needed)
    text = f"Use it only to drop the worst {_percent(drop)}{_cheaper(compared, drop)}: {doubt}{more}."
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
        return "; no number of networks would tell"
    number = f"more than {MANY:,}" if needed > MANY else f"about {needed:,}"
    return f"; {number} networks would tell"


def _cheaper(rivals: Sequence[Rival], drop: float) -> str:
    """The baseline that allows to drop as much: a proxy that costs something must not be praised beside it."""
    able = [(droppable(rival.spearman.low), rival) for rival in rivals if rival.spearman.low is not None]
    share, rival = max(able, key=lambda one: one[0], default=(0.0, None))
    return f" ({_named([rival])}: {_percent(share)})" if rival is not None and share >= drop else ""


def _named(rivals: Sequence[Rival]) -> str:
    """The hardest of them, and how many more."""
    hardest = min(rivals, key=lambda rival: rival.ahead.value or 0.0)
    more = f" and {len(rivals) - 1} more" if len(rivals) > 1 else ""
    return textwrap.shorten(hardest.title, MOST_LETTERS, placeholder=" ...") + more


def _percent(share: float) -> str:
    return f"{math.floor(100 * share + 1e-9)} %"
