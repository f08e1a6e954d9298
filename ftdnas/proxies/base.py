"""What a proxy is, and how the work that proxies ask for is carried out, round after round."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from ftdnas.candidates.materials import (
    Shelf,
)
from ftdnas.runtime.rows import Row
from ftdnas.runtime.shared import Work

ScoreColumn = list[float | None]
Rows = Mapping[str, Row]  # by Work.key


class Proxy(Protocol):
    """A way to rank candidates, which are canonical names of full architectures, by works that are done elsewhere.

    `name`: as the user writes it. `title`: in words, for a report.
    """

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    def todo(self, candidates: Sequence[str], rows: Rows) -> Sequence[Work[Shelf]]:
        """What has to be done next, given these rows; [] where all is there. Each work once.

        More may follow when it is done: a race asks rung after rung. All materials that any of it needs are on the
        workbench's shelf after the first call.
        """
        ...

    def column(self, candidates: Sequence[str], rows: Rows) -> ScoreColumn:
        """A score for each candidate; larger is better. It may be relative to the candidates scored together."""
        ...

    def errors(self, candidates: Sequence[str], rows: Rows) -> list[str | None]:
        """Why a candidate has no score; beside a score, that its network is dead: it ended at chance level."""
        ...

    def seconds(self, candidates: Sequence[str], rows: Rows) -> float:
        """What this ranking cost beyond what is made once: the sum over the rows it used, of one process."""
        ...


def settle(
    proxies: Sequence[Proxy],
    candidates: Sequence[str],
    rows: dict[str, Row],
    carry_out: Callable[[Mapping[str, Work[Shelf]]], Mapping[str, Row]],
) -> None:
    """Round after round until no proxy asks for more; `rows` gains what `carry_out` makes of each round's works."""
    while todo := {work.key: work for proxy in proxies for work in proxy.todo(candidates, rows)}:
        rows |= carry_out(todo)


def spent(keys: Iterable[str], rows: Rows) -> float:
    """Seconds of the rows of these works, each counted once."""
    return math.fsum(float(rows[key]["seconds"]) for key in set(keys) if key in rows)
