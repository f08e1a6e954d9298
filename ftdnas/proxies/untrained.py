"""Proxies that train nothing: measures of untrained networks, and the counts of weights and operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.stats import rankdata

from distill.images.datasets import ImageDataset
from ftdnas.candidates.materials import Material
from ftdnas.proxies.base import Rows, ScoreColumn
from ftdnas.proxies.measures import MEASURES, Measurement
from search_spaces.base import Architecture, ImageShape, flops, parameter_count, parse_architecture
from search_spaces.messages import one_line

Count = Callable[[Architecture, ImageShape, int], int]

COUNTS: dict[str, tuple[str, Count]] = {"params": ("parameters", parameter_count), "flops": ("FLOPs", flops)}
SHRUNK = ".shrunk"  # ends the name of a measure of the smaller network


class Bench(Protocol):
    """What these draw on of a `ftdnas.proxies.base.Workbench`."""

    @property
    def data(self) -> ImageDataset: ...

    @property
    def seed(self) -> int: ...

    @property
    def device(self) -> str: ...

    def material(self, kind: str) -> Material: ...


@dataclass(frozen=True, eq=False)
class Measured:
    """One measure of every candidate: of architectures that compute the same functions once, at full size.

    `shrunk`: of the smaller network that screening trains, where the space has one: about five times cheaper. On 144
    architectures of NAS-Bench-201 at 16 pixels, Spearman at full size and shrunk: AZ-NAS 0.88 and 0.84, synflow 0.76
    and 0.76, NASWOT 0.83 and 0.84, jacob_cov 0.73 and 0.73, beside 0.73 of the parameters; so the whole network is the
    default. Real images are random training images.
    """

    measure: str
    bench: Bench
    shrunk: bool = False

    @property
    def name(self) -> str:
        return self.measure + (SHRUNK if self.shrunk else "")

    @property
    def title(self) -> str:
        return MEASURES[self.measure].title + (" of the shrunk network" if self.shrunk else "")

    def todo(self, candidates: Sequence[str], rows: Rows) -> list[Measurement]:
        works = {work.key: work for work in map(self._work, candidates)}
        return [work for key, work in works.items() if key not in rows]

    def column(self, candidates: Sequence[str], rows: Rows) -> ScoreColumn:
        """The measure's figure; AZ-NAS: the sum of ln(rank / m) of four, relative to the m candidates measured.

        Candidates whose figure is not a number share the place below all others.
        """
        found = [rows.get(self._work(candidate).key) for candidate in candidates]
        values = {place: row["values"] for place, row in enumerate(found) if row is not None and row["error"] is None}
        figures = {name: [of[name] for of in values.values()] for name in next(iter(values.values()), {})}
        if self.measure == "az_nas":
            shape, classes = self.bench.data.image_shape, self.bench.data.num_classes
            figures["flops"] = [flops(parse_architecture(candidates[place]), shape, classes) for place in values]
            scores = rank_product(list(figures.values()))
        else:
            scores = _lowest_for_none(next(iter(figures.values()), []))
        column: ScoreColumn = [None] * len(candidates)
        for place, score in zip(values, scores, strict=True):
            column[place] = score
        return column

    def errors(self, candidates: Sequence[str], rows: Rows) -> list[str | None]:
        found = [rows.get(self._work(candidate).key) for candidate in candidates]
        return ["it was not measured" if row is None else row["error"] for row in found]

    def seconds(self, candidates: Sequence[str], rows: Rows) -> float:
        keys = {self._work(candidate).key for candidate in candidates}
        return math.fsum(rows[key]["seconds"] for key in keys if key in rows)

    def _work(self, candidate: str) -> Measurement:
        architecture = parse_architecture(candidate).representative()
        if self.shrunk:
            architecture = architecture.shrunk() or architecture
        data = self.bench.data
        return Measurement(
            self.measure,
            architecture.name,
            architecture.code,
            data.image_shape,
            data.num_classes,
            self.bench.material("train").label if MEASURES[self.measure].real else None,
            self.bench.seed,
            self.bench.device,
        )


@dataclass(frozen=True, eq=False)
class Counted:
    """The size of every candidate itself, in weights or operations: the larger the better. It costs nothing."""

    name: str
    bench: Bench

    @property
    def title(self) -> str:
        return COUNTS[self.name][0]

    def todo(self, candidates: Sequence[str], rows: Rows) -> list[Measurement]:  # noqa: ARG002
        return []

    def column(self, candidates: Sequence[str], rows: Rows) -> ScoreColumn:  # noqa: ARG002
        counts = [self._count(candidate) for candidate in candidates]
        return [None if isinstance(count, str) else float(count) for count in counts]

    def errors(self, candidates: Sequence[str], rows: Rows) -> list[str | None]:  # noqa: ARG002
        counts = [self._count(candidate) for candidate in candidates]
        return [count if isinstance(count, str) else None for count in counts]

    def seconds(self, candidates: Sequence[str], rows: Rows) -> float:  # noqa: ARG002
        return 0.0

    def _count(self, candidate: str) -> int | str:
        """The number, or why there is none."""
        try:
            return COUNTS[self.name][1](
                parse_architecture(candidate), self.bench.data.image_shape, self.bench.data.num_classes
            )
        except Exception as error:  # a network of the user's own may raise anything
            return one_line(error)


def rank_product(figures: Sequence[Sequence[float | None]]) -> list[float]:
    """For each of m candidates the sum over the figures of ln(rank / m): 1 is the worst, ties are averaged, None last.

    At most 0. One bad figure weighs more than a good one.
    """
    m = len(figures[0])
    ranks = [rankdata([-math.inf if value is None else value for value in figure]) for figure in figures]
    return [float(total) for total in np.log(np.array(ranks) / m).sum(0)] if m else []


def _lowest_for_none(figure: Sequence[float | None]) -> list[float]:
    lowest = min((value for value in figure if value is not None), default=1.0) - 1
    return [lowest if value is None else value for value in figure]
