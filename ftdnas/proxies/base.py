"""What a proxy is, and how the work that proxies ask for is carried out, round after round."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from ftdnas.candidates.materials import Shelf
from ftdnas.runtime.rows import Row
from ftdnas.runtime.shared import Work

ScoreColumn = list[float | None]
Outcome = tuple[float | None, str | None]  # (score, error)
Rows = Mapping[str, Row]  # by Work.key
Asked = TypeVar("Asked", bound=Work[Shelf], covariant=True)


class ProxyOf(ABC, Generic[Asked]):
    """A way to rank candidates, which are canonical names of full architectures, by works that are done elsewhere.

    `Asked`: what works it asks for; where that does not matter it is a `Proxy`.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """As the user writes it."""

    @property
    @abstractmethod
    def title(self) -> str:
        """In words, for a report."""

    @abstractmethod
    def works(self, candidates: Sequence[str], rows: Rows) -> Sequence[Asked]:
        """What this ranking rests on, as far as these rows tell: a race asks rung after rung.

        All materials that any of it needs are on the workbench's shelf after the first call.
        """

    @abstractmethod
    def outcomes(self, candidates: Sequence[str], rows: Rows) -> list[Outcome]:
        """A score for each candidate; larger is better. It may be relative to the candidates scored together.

        The error says why there is none; beside a score, that the network is dead: it ended at chance level.
        """

    def todo(self, candidates: Sequence[str], rows: Rows) -> list[Asked]:
        """What has to be done next, given these rows; [] where all is there. Each work once."""
        missing = {work.key: work for work in self.works(candidates, rows) if work.key not in rows}
        return list(missing.values())

    def column(self, candidates: Sequence[str], rows: Rows) -> ScoreColumn:
        return [score for score, _ in self.outcomes(candidates, rows)]

    def errors(self, candidates: Sequence[str], rows: Rows) -> list[str | None]:
        return [error for _, error in self.outcomes(candidates, rows)]

    def seconds(self, candidates: Sequence[str], rows: Rows) -> float:
        """What this ranking cost beyond what is made once: the sum over the rows it used, each once, of one process."""
        keys = {work.key for work in self.works(candidates, rows)}
        return math.fsum(float(rows[key]["seconds"]) for key in keys if key in rows)

    def by_seed(self, candidates: Sequence[str], rows: Rows) -> list[ScoreColumn]:  # noqa: ARG002
        """The column of each seed of its trainings; [] where it has but one, or none."""
        return []


Proxy = ProxyOf[Work[Shelf]]
