"""Rank sums: several proxies heard with equal voices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ftdnas.candidates.materials import Shelf
from ftdnas.proxies.base import Outcome, Proxy, Rows, ScoreColumn
from ftdnas.runtime.shared import Work


@dataclass(frozen=True, eq=False)
class RankSum(Proxy):
    """The mean rank, 1 the worst, ties averaged, of those candidates that have a score in every part; None for others.

    It is relative to the candidates scored together.
    """

    parts: Sequence[Proxy]

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    @property
    def title(self) -> str:
        return " + ".join(part.title for part in self.parts)

    def works(self, candidates: Sequence[str], rows: Rows) -> list[Work[Shelf]]:
        return [work for part in self.parts for work in part.works(candidates, rows)]

    def outcomes(self, candidates: Sequence[str], rows: Rows) -> list[Outcome]:
        of_parts = [part.outcomes(candidates, rows) for part in self.parts]
        scores = mean_ranks([[score for score, _ in outcomes] for outcomes in of_parts])
        return list(zip(scores, map(self._error, zip(*of_parts, strict=True)), strict=True))

    def by_seed(self, candidates: Sequence[str], rows: Rows) -> list[ScoreColumn]:
        """The column of each seed, parts without seeds the same in each; [] where there is one."""
        several = [part.by_seed(candidates, rows) for part in self.parts]
        seeds = max(map(len, several))
        if any(columns and len(columns) != seeds for columns in several):
            return []
        whole = [part.column(candidates, rows) for part in self.parts]
        return [
            mean_ranks([columns[seed] if columns else own for columns, own in zip(several, whole, strict=True)])
            for seed in range(seeds)
        ]

    def _error(self, outcomes: Sequence[Outcome]) -> str | None:
        """Of a part that has no score, else of one whose network is dead; named."""
        told = [
            (score is not None, f"{part.name}: {error}")
            for part, (score, error) in zip(self.parts, outcomes, strict=True)
            if error is not None
        ]
        return min(told, key=lambda dead_and_error: dead_and_error[0])[1] if told else None


def mean_ranks(columns: Sequence[Sequence[float | None]]) -> ScoreColumn:
    """Of columns over the same candidates: 1 the worst, ties averaged, among those with a score in all; else None."""
    whole = [place for place, values in enumerate(zip(*columns, strict=True)) if None not in values]
    ranks = [rankdata([float(column[place] or 0.0) for place in whole]) for column in columns]
    result: ScoreColumn = [None] * len(columns[0])
    for place, rank in zip(whole, np.mean(ranks, axis=0), strict=True):
        result[place] = float(rank)
    return result


def guide_of(proxy: Proxy) -> Proxy:
    """What of a proxy every candidate has a value of: itself, or its first part or stage."""
    parts: Sequence[Proxy] = getattr(proxy, "parts", ()) or getattr(proxy, "stages", ())
    return guide_of(parts[0]) if parts else proxy
