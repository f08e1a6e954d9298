"""Ranks of several proxies combined by a small regression that is fitted on a few candidates really trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from distill.randomness import derive_seed
from ftdnas.candidates.materials import Shelf
from ftdnas.proxies.base import Outcome, Proxy, Rows
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.calibration import Calibration, calibrate, fewest
from ftdnas.proxies.untrained import Counted
from ftdnas.runtime.shared import Work
from search_spaces.base import parse_architecture


@dataclass(frozen=True, eq=False)
class Hybrid(Proxy):
    """`parts` are proxies; `trained(candidate)` the real trainings whose mean score is a candidate's truth.

    `calibration` candidates, spread over the parameter counts, are trained; the score of each of them comes from a fit
    without it. Raises ValueError for fewer than two parts, or too few candidates to fit them.
    """

    parts: Sequence[Proxy]
    bench: Workbench
    trained: Callable[[str], Sequence[Work[Shelf]]]
    calibration: int = 24

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise ValueError("a hybrid of one proxy is that proxy: name at least two, as in hybrid(az_nas,params)")
        if self.calibration < fewest(len(self.parts)):
            raise ValueError(
                f"{self.name} cannot be fitted on {self.calibration} trained candidates: "
                f"calibrate on at least {fewest(len(self.parts))}"
            )

    @property
    def name(self) -> str:
        return f"hybrid({','.join(part.name for part in self.parts)})"

    @property
    def title(self) -> str:
        parts = ", ".join(part.title for part in self.parts)
        return f"ranks of {parts}, weighted by {self.calibration} real trainings"

    def works(self, candidates: Sequence[str], rows: Rows) -> list[Work[Shelf]]:
        """Those of the parts, and the trainings that it is fitted on."""
        of_parts = [work for part in self.parts for work in part.works(candidates, rows)]
        return of_parts + [work for candidate in self._chosen(candidates) for work in self.trained(candidate)]

    def outcomes(self, candidates: Sequence[str], rows: Rows) -> list[Outcome]:
        try:
            scores = self.fit(candidates, rows).scores
        except ValueError as error:
            return [(None, str(error))] * len(candidates)
        of_parts = [part.errors(candidates, rows) for part in self.parts]
        named = (zip((part.name for part in self.parts), errors, strict=True) for errors in zip(*of_parts, strict=True))
        errors = [next((f"{name}: {error}" for name, error in of if error), None) for of in named]
        return list(zip(scores, errors, strict=True))

    def fit(self, candidates: Sequence[str], rows: Rows) -> Calibration:
        """Weights, penalty and cross-validated Spearman. Raises ValueError where too few trainings have a result."""
        chosen = set(self._chosen(candidates))
        columns = [part.column(candidates, rows) for part in self.parts]
        return calibrate(columns, [self._truth(name, rows) if name in chosen else None for name in candidates])

    def _truth(self, candidate: str, rows: Rows) -> float | None:
        """Mean score over the seeds; None where one is missing."""
        found = [rows.get(work.key) for work in self.trained(candidate)]
        scores = [float(row["score"]) for row in found if row is not None and row["score"] is not None]
        return math.fsum(scores) / len(scores) if scores and len(scores) == len(found) else None

    def _chosen(self, candidates: Sequence[str]) -> list[str]:
        """One from each of as many equal parts of those that differ and can be built, sorted by parameters."""
        classes = {parse_architecture(name).representative().name: name for name in reversed(candidates)}
        names = list(classes.values())
        counts = Counted("params", self.bench).column(names, {})
        size = {name: count for name, count in zip(names, counts, strict=True) if count is not None}
        ascending = sorted(size, key=lambda name: (size[name], name))
        draw = np.random.default_rng(derive_seed(self.bench.seed, "calibration"))
        parts = np.array_split(np.arange(len(ascending)), min(self.calibration, len(ascending)))
        return [ascending[draw.choice(part)] for part in parts]
