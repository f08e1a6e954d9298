"""What each way to a choice costs here, before anything is spent: estimated from a few timed steps on this device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distill.run import duration
from ftdnas.candidates.cost import CostModel

ETA = 3  # of a race one in so many goes on


@dataclass(frozen=True)
class Way:
    """One way to choose: seconds of one process, `once_s` whatever the number of candidates, and `each_s`."""

    name: str
    once_s: float
    each_s: float

    def total_s(self, candidates: int, jobs: int) -> float:
        """Of wall clock, distilling in one process."""
        return self.once_s + candidates * self.each_s / jobs


@dataclass(frozen=True)
class Advice:
    """`ways` for `candidates` on `jobs` processes; `pays_from`: candidates from which distilling
    beats the race, in wall clock as the totals are."""

    candidates: int
    jobs: int
    ways: tuple[Way, ...]
    pays_from: int | None

    def to_json(self) -> dict[str, Any]:
        totals = {way.name: way.total_s(self.candidates, self.jobs) for way in self.ways}
        return {**asdict(self), "total_s": totals}


def advise(
    candidates: int,
    screen_s: float,
    full_flops: Sequence[int],
    cost: CostModel,
    *,
    epoch_images: int,
    full_epochs: int,
    rungs: Sequence[float],
    distillation_s: float | None,
    jobs: int,
) -> Advice:
    """Compare the ways for candidates of these FLOPs at full size.

    `screen_s`: of one process, to screen one; `epoch_images`: of all real images, 0 where there are none.
    `distillation_s`: experts and matching, None where it is not known.
    """
    everything = _mean(cost, full_flops, full_epochs * epoch_images)
    raced = [epochs for epochs in rungs if epochs < full_epochs] or list(rungs[:1])
    race = math.fsum(_mean(cost, full_flops, epochs * epoch_images) / ETA**rung for rung, epochs in enumerate(raced))
    ways = [Way("screen with a set at hand", 0.0, screen_s)]
    if not epoch_images:  # a set alone
        return Advice(candidates, jobs, tuple(ways), None)
    if distillation_s is not None:
        ways.insert(0, Way("distil and screen", distillation_s, screen_s))
    ways += [Way("race on real data", 0.0, race), Way(f"train all for {full_epochs} epochs", 0.0, everything)]
    pays_from = None if distillation_s is None else break_even(distillation_s, screen_s / jobs, race / jobs)
    return Advice(candidates, jobs, tuple(ways), pays_from)


def break_even(once_s: float, candidate_s: float, alternative_s: float) -> int | None:
    """The smallest number of candidates n with once + candidate * n < alternative * n; None where there is none.

    `once_s`: experts and distillation; `candidate_s`: screening one candidate; `alternative_s`: one candidate the other
    way. Raises ValueError for a negative cost.
    """
    if min(once_s, candidate_s, alternative_s) < 0:
        raise ValueError(f"costs of {once_s}, {candidate_s} and {alternative_s} s: none can be negative")
    saved = alternative_s - candidate_s
    return math.floor(once_s / saved) + 1 if saved > 0 else None


def describe_advice(advice: Advice) -> list[str]:
    """One line for the ways and one for the break-even."""
    parts = [f"{way.name} {duration(way.total_s(advice.candidates, advice.jobs))}" for way in advice.ways]
    lines = [f"about, for {advice.candidates} candidates: {', '.join(parts)} (from a few timed steps)"]
    if advice.pays_from is not None:
        lines.append(
            f"distilling pays beside the race from {advice.pays_from:,} candidates on, if the set ranks as well"
        )
    elif advice.ways[0].once_s:
        lines.append("distilling never pays beside the race here: screening a candidate costs as much")
    return lines


def _mean(cost: CostModel, flops: Sequence[int], images: float) -> float:
    return math.fsum(cost.seconds(count, images) for count in flops) / len(flops)
