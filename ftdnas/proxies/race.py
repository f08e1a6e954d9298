"""A race on real images: successive halving (Jamieson & Talwalkar, AISTATS 2016, arXiv 1502.07943)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ftdnas.candidates.reading import is_dead
from ftdnas.candidates.training import Training
from ftdnas.proxies.base import Rows, ScoreColumn, spent
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.trained import real_recipe, real_seed, within

ETA = 3  # one in so many goes on to the next rung


@dataclass(frozen=True, eq=False)
class Race:
    """All candidates train for the epochs of the first of the bench's rungs, the best third for those of the next.

    It ends with the rungs, or when one is left. Every rung trains anew, with a seed of its own and the schedule
    compressed to its length, so that each is a whole training. The score is the rung that was reached (from 0) plus the
    accuracy there; equals in accuracy are told apart by their late loss. What fails in a rung has no score.
    """

    bench: Workbench
    name: str = "race"

    @property
    def title(self) -> str:
        return f"race on all real images ({', '.join(f'{epochs:g}' for epochs in self._rungs)} epochs, best third on)"

    def todo(self, candidates: Sequence[str], rows: Rows) -> list[Training]:
        missing: list[Training] = []
        for _, runners in self._rounds(candidates, rows):
            missing = [work for work in runners.values() if work.key not in rows]
        return missing

    def column(self, candidates: Sequence[str], rows: Rows) -> ScoreColumn:
        reached: dict[str, float | None] = {}
        for rung, runners in self._rounds(candidates, rows):
            for architecture, work in runners.items():
                row = rows.get(work.key)
                failed = row is None or row["score"] is None
                reached[architecture] = None if row is None or failed else rung + float(row["score"])
        return [reached.get(self.bench.trained(candidate)[0]) for candidate in candidates]

    def errors(self, candidates: Sequence[str], rows: Rows) -> list[str | None]:
        errors: dict[str, str | None] = {}
        for rung, runners in self._rounds(candidates, rows):
            for architecture, work in runners.items():
                row = rows.get(work.key)
                if row is None:
                    errors[architecture] = f"it was not trained for {self._rungs[rung]:g} epochs"
                elif row["error"] is None and is_dead(row):
                    errors[architecture] = f"dead: chance level after {self._rungs[rung]:g} epochs"
                else:
                    errors[architecture] = row["error"]
        return [errors[self.bench.trained(candidate)[0]] for candidate in candidates]

    def seconds(self, candidates: Sequence[str], rows: Rows) -> float:
        """Of all rungs."""
        works = [work for _, runners in self._rounds(candidates, rows) for work in runners.values()]
        return spent((work.key for work in works), rows)

    @property
    def _rungs(self) -> Sequence[float]:
        """None as long as the truth itself, which is no race any more."""
        truth = self.bench.truth
        short = [epochs for epochs in self.bench.rungs if truth is None or epochs < truth.epochs]
        return short or self.bench.rungs[:1]

    def _rounds(self, candidates: Sequence[str], rows: Rows) -> Iterator[tuple[int, dict[str, Training]]]:
        """(rung, trained architecture -> its training), up to the first rung that is not whole."""
        runners = dict.fromkeys(self.bench.trained(candidate) for candidate in candidates)
        running = list(runners)
        for rung in range(len(self._rungs)):
            works = {architecture: self._work(architecture, code, rung) for architecture, code in running}
            yield rung, works
            if any(work.key not in rows for work in works.values()):
                return
            going = [one for one in running if rows[works[one[0]].key]["score"] is not None]
            going.sort(key=lambda one: _place(one[0], works[one[0]], rows))
            running = going[: math.ceil(len(running) / ETA)]
            if len(running) < 2:
                return

    def _work(self, architecture: str, code: str, rung: int) -> Training:
        bench = self.bench
        images, held_out = bench.material("early").label, bench.material("early score").label
        epochs, part = within(self._rungs[rung] * images.images, images)
        recipe = replace(real_recipe(bench, architecture, code), epochs=epochs)
        return Training(architecture, images, held_out, recipe, real_seed(bench, "race", rung), code, part)


def _place(architecture: str, work: Training, rows: Rows) -> tuple[float, float, str]:
    row = rows[work.key]
    return -row["score"], row["late_loss"], architecture
