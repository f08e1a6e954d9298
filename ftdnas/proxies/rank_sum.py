"""Rank sums: several proxies heard with equal voices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ftdnas.candidates.materials import Shelf
from ftdnas.proxies.base import Proxy, Rows, ScoreColumn
from ftdnas.proxies.trained import Trained
from ftdnas.runtime.shared import Work


@dataclass(frozen=True, eq=False)
class RankSum:
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

    def todo(self, candidates: Sequence[str], rows: Rows) -> list[Work[Shelf]]:
        asked = {work.key: work for part in self.parts for work in part.todo(candidates, rows)}
        return list(asked.values())

    def column(self, candidates: Sequence[str], rows: Rows) -> ScoreColumn:
        return mean_ranks([part.column(candidates, rows) for part in self.parts])

    def by_seed(self, candidates: Sequence[str], rows: Rows) -> list[ScoreColumn]:
        """The column of each seed, parts without seeds the same in each; [] where there is one."""
        several = [by_seed(part, candidates, rows) for part in self.parts]
        seeds = max(map(len, several))
        if any(columns and len(columns) != seeds for columns in several):
            return []
        whole = [part.column(candidates, rows) for part in self.parts]
        return [
            mean_ranks([columns[seed] if columns else own for columns, own in zip(several, whole, strict=True)])
            for seed in range(seeds)
        ]

    def errors(self, candidates: Sequence[str], rows: Rows) -> list[str | None]:
        """Of a part that has no score, else of one whose network is dead; named."""
        failed: list[str | None] = [None] * len(candidates)
        dead = list(failed)
        for part in reversed(self.parts):
            errors, column = part.errors(candidates, rows), part.column(candidates, rows)
            for place, (error, score) in enumerate(zip(errors, column, strict=True)):
                if error is not None:
                    said = f"{part.name}: {error}"
                    failed[place] = said if score is None else failed[place]
                    dead[place] = said
        return [first or second for first, second in zip(failed, dead, strict=True)]

    def seconds(self, candidates: Sequence[str], rows: Rows) -> float:
        """Of all parts; a row that several use counts once."""
        total, counted = [], set[str]()
        for part in self.parts:
            left = {key: {**row, "seconds": 0.0} if key in counted else row for key, row in rows.items()}
            total.append(part.seconds(candidates, left))
            counted |= {work.key for work in part.todo(candidates, {})}
        return math.fsum(total)


def mean_ranks(columns: Sequence[Sequence[float | None]]) -> ScoreColumn:
    """Of columns over the same candidates: 1 the worst, ties averaged, among those with a score in all; else None."""
    whole = [place for place, values in enumerate(zip(*columns, strict=True)) if None not in values]
    ranks = [rankdata([float(column[place] or 0.0) for place in whole]) for column in columns]
    result: ScoreColumn = [None] * len(columns[0])
    for place, rank in zip(whole, np.mean(ranks, axis=0), strict=True):
        result[place] = float(rank)
    return result


def by_seed(proxy: Proxy, candidates: Sequence[str], rows: Rows) -> list[ScoreColumn]:
    """The column of each seed of a proxy's trainings; [] where it has but one, or none."""
    return proxy.by_seed(candidates, rows) if isinstance(proxy, Trained | RankSum) else []


def guide_of(proxy: Proxy) -> Proxy:
    """What of a proxy every candidate has a value of: itself, or its first part or stage."""
    parts: Sequence[Proxy] = getattr(proxy, "parts", ()) or getattr(proxy, "stages", ())
    return guide_of(parts[0]) if parts else proxy
