"""A race on real images: successive halving (Jamieson & Talwalkar, AISTATS 2016, arXiv 1502.07943)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ftdnas.candidates.reading import is_dead
from ftdnas.candidates.training import Training
from ftdnas.proxies.base import Outcome, ProxyOf, Rows
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.trained import real_recipe, real_seed, within
from ftdnas.runtime.rows import Row

ETA = 3  # one in so many goes on to the next rung


@dataclass(frozen=True, eq=False)
class Race(ProxyOf[Training]):
    """All candidates train for the epochs of the first of the bench's rungs, the best third for those of the next.

    It ends with the rungs, or when one is left. Every rung trains anew, with a seed of its own and the schedule
    compressed to its length, so that each is a whole training. The score is the rung that was reached (from 0) plus the
    accuracy there; equals in accuracy are told apart by their late loss. What fails in a rung has no score.
    """

    bench: Workbench

    @property
    def name(self) -> str:
        return "race"

    @property
    def title(self) -> str:
        return f"race on all real images ({', '.join(f'{epochs:g}' for epochs in self._rungs)} epochs, best third on)"

    def works(self, candidates: Sequence[str], rows: Rows) -> list[Training]:
        return [work for _, runners in self._rounds(candidates, rows) for work in runners.values()]

    def outcomes(self, candidates: Sequence[str], rows: Rows) -> list[Outcome]:
        reached: dict[str, Outcome] = {}
        for rung, runners in self._rounds(candidates, rows):
            for architecture, work in runners.items():
                reached[architecture] = self._outcome(rung, rows.get(work.key))
        return [reached[self.bench.trained(candidate)[0]] for candidate in candidates]

    def _outcome(self, rung: int, row: Row | None) -> Outcome:
        if row is None:
            return None, f"it was not trained for {self._rungs[rung]:g} epochs"
        score = None if row["score"] is None else rung + float(row["score"])
        if row["error"] is None and is_dead(row):
            return score, f"dead: chance level after {self._rungs[rung]:g} epochs"
        return score, row["error"]

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
            reached = {named: rows[works[named[0]].key] for named in running}
            going = [named for named in running if reached[named]["score"] is not None]
            going.sort(key=lambda named: (-reached[named]["score"], reached[named]["late_loss"], named[0]))
            running = going[: math.ceil(len(running) / ETA)]
            if len(running) < 2:
                return

    def _work(self, architecture: str, code: str, rung: int) -> Training:
        bench = self.bench
        images, held_out = bench.material("early").label, bench.material("early score").label
        epochs, part = within(self._rungs[rung] * images.images, images)
        recipe = replace(real_recipe(bench, architecture, code), epochs=epochs)
        return Training(architecture, images, held_out, recipe, real_seed(bench, "race", rung), code, part)
