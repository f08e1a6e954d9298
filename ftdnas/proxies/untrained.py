"""Proxies that train nothing: measures of untrained networks, and the counts of weights and operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ftdnas.proxies.base import Outcome, ProxyOf, Rows
from ftdnas.proxies.bench import Workbench, computed
from ftdnas.proxies.measures import MEASURES, Measurement
from search_spaces.base import Architecture, ImageShape, flops, parameter_count, parse_architecture
from search_spaces.messages import FOREIGN, one_line

Count = Callable[[Architecture, ImageShape, int], int]

COUNTS: dict[str, tuple[str, Count]] = {"params": ("parameters", parameter_count), "flops": ("FLOPs", flops)}
SHRUNK = ".shrunk"  # ends the name of a measure of the smaller network


@dataclass(frozen=True, eq=False)
class Measured(ProxyOf[Measurement]):
    """One measure of every candidate: of architectures that compute the same functions once, at full size.

    `shrunk`: of the smaller network that screening trains, where the space has one: about five times cheaper. On 144
    architectures of NAS-Bench-201 at 16 pixels, Spearman at full size and shrunk: AZ-NAS 0.88 and 0.84, synflow 0.76
    and 0.76, NASWOT 0.83 and 0.84, jacob_cov 0.73 and 0.73, beside 0.73 of the parameters; so the whole network is the
    default. Real images are random training images; where there are none, the set's stand for them.
    """

    measure: str
    bench: Workbench
    shrunk: bool = False

    @property
    def name(self) -> str:
        return self.measure + (SHRUNK if self.shrunk else "")

    @property
    def title(self) -> str:
        return MEASURES[self.measure].title + (" of the shrunk network" if self.shrunk else "")

    def works(self, candidates: Sequence[str], rows: Rows) -> list[Measurement]:  # noqa: ARG002
        return [self._work(candidate) for candidate in candidates]

    def outcomes(self, candidates: Sequence[str], rows: Rows) -> list[Outcome]:
        """The measure's figure; AZ-NAS: the sum of ln(rank / m) of four, relative to the m candidates measured.

        Candidates whose figure is not a number share the place below all others.
        """
        measured = [rows.get(self._work(candidate).key) for candidate in candidates]
        places = [place for place, row in enumerate(measured) if row is not None and row["error"] is None]
        values = [rows[self._work(candidates[place]).key]["values"] for place in places]
        figures = {name: [of[name] for of in values] for name in (values[0] if values else ())}
        if self.measure == "az_nas":
            shape, classes = self.bench.data.image_shape, self.bench.data.num_classes
            figures["flops"] = [flops(parse_architecture(candidates[place]), shape, classes) for place in places]
            ranked = rank_product(list(figures.values()))
        else:
            ranked = _lowest_for_none(next(iter(figures.values()), []))
        scores = dict(zip(places, ranked, strict=True))
        return [
            (scores.get(place), "it was not measured" if row is None else row["error"])
            for place, row in enumerate(measured)
        ]

    def _work(self, candidate: str) -> Measurement:
        architecture, data = computed(candidate, self.shrunk), self.bench.data
        return Measurement(
            self.measure,
            architecture.name,
            architecture.code,
            data.image_shape,
            data.num_classes,
            self.bench.material("pictures").label if MEASURES[self.measure].real else None,
            self.bench.seed,
            self.bench.device,
        )


@dataclass(frozen=True, eq=False)
class Counted(ProxyOf[Measurement]):
    """The size of every candidate itself, in weights or operations: the larger the better. It costs nothing."""

    count: str
    bench: Workbench

    @property
    def name(self) -> str:
        return self.count

    @property
    def title(self) -> str:
        return COUNTS[self.count][0]

    def works(self, candidates: Sequence[str], rows: Rows) -> list[Measurement]:  # noqa: ARG002
        return []

    def outcomes(self, candidates: Sequence[str], rows: Rows) -> list[Outcome]:  # noqa: ARG002
        return [self._outcome(candidate) for candidate in candidates]

    def _outcome(self, candidate: str) -> Outcome:
        data, count = self.bench.data, COUNTS[self.count][1]
        try:
            return float(count(parse_architecture(candidate), data.image_shape, data.num_classes)), None
        except FOREIGN as error:  # a network of the user's own may raise anything
            return None, one_line(error)


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
