"""A race that promotes: what costs nothing looks at all, what costs most at the few that came so far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ftdnas.candidates.materials import Shelf
from ftdnas.proxies.base import Outcome, Proxy, Rows
from ftdnas.runtime.shared import Work

STAGES = (2, 3)  # so many
LAST = 1 / 10  # of all candidates reach the last stage
MIDDLE = 1 / 3  # and the one before it, where there are three


@dataclass(frozen=True, eq=False)
class Promotion(Proxy):
    """`stages` are proxies, the cheapest first: all candidates go through the first, the best third of them through the
    second where there are three, the best tenth of all through the last.

    So the whole costs a tenth of what the last stage would cost for all, and the other stages. The score is the stage
    that was reached (from 0) plus the place in it, in (0, 1). What fails in a stage has no score.
    """

    stages: Sequence[Proxy]

    @property
    def name(self) -> str:
        return f"promote({','.join(stage.name for stage in self.stages)})"

    @property
    def title(self) -> str:
        whom = ["all", *(f"the best {share:.0%}" for share in self.shares[1:])]
        parts = [f"{who} by {stage.title}" for who, stage in zip(whom, self.stages, strict=True)]
        return "; ".join(parts)

    @property
    def shares(self) -> tuple[float, ...]:
        """Of all candidates, in each stage."""
        return (1.0, *((MIDDLE,) if len(self.stages) == max(STAGES) else ()), LAST)

    def works(self, candidates: Sequence[str], rows: Rows) -> list[Work[Shelf]]:
        for stage in self.stages:
            stage.works(candidates[:1], {})  # so that all materials are on the shelf
        return [work for stage, runners in self._rounds(candidates, rows) for work in stage.works(runners, rows)]

    def outcomes(self, candidates: Sequence[str], rows: Rows) -> list[Outcome]:
        reached: dict[str, Outcome] = {}
        for number, (stage, runners) in enumerate(self._rounds(candidates, rows)):
            outcomes = stage.outcomes(runners, rows)
            scored = sorted({score for score, _ in outcomes if score is not None})
            place = {score: number + (rank + 1) / (len(scored) + 1) for rank, score in enumerate(scored)}
            for name, (score, error) in zip(runners, outcomes, strict=True):
                reached[name] = None if score is None else place[score], error
        return [reached[candidate] for candidate in candidates]

    def _rounds(self, candidates: Sequence[str], rows: Rows) -> Iterator[tuple[Proxy, list[str]]]:
        """Each stage with its runners, up to the first that is not whole."""
        running = list(dict.fromkeys(candidates))
        for number, stage in enumerate(self.stages):
            yield stage, running
            if number + 1 == len(self.stages) or stage.todo(running, rows):
                return
            values = dict(zip(running, stage.column(running, rows), strict=True))
            going = sorted(
                (name for name in running if values[name] is not None), key=lambda name: (-(values[name] or 0.0), name)
            )
            running = going[: max(1, math.ceil(self.shares[number + 1] * len(candidates)))]
            if not running:
                return


def asked_of(proxy: Proxy, candidate: str) -> list[tuple[float, Work[Shelf]]]:
    """What a proxy asks for of one candidate, were it promoted to the end: (share of all that get so far, work)."""
    if not isinstance(proxy, Promotion):
        return [(1.0, work) for work in proxy.todo([candidate], {})]
    stages = zip(proxy.shares, proxy.stages, strict=True)
    return [(share, work) for share, stage in stages for work in stage.todo([candidate], {})]
