"""Finalists trained for equally many epochs on a part of the images, read on the rest; the rate and the teacher too.

Early accuracy and final accuracy differ. For equal times a small network is ahead of a large one, which overtakes it;
so all have the same epochs, and none is so large that it could not have enough of them in the end. A searched network
replaces the default one only where it is better by more than the images read may be wrong, twice that where it is
smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distill.recipe import TrainingRecipe
from ftdnas.candidates.materials import Label
from ftdnas.candidates.training import Training
from ftdnas.finishing.finalist import FinalistTraining
from ftdnas.runtime.rows import Row
from search_spaces.base import parse_architecture

RATE = 0.05  # of SGD with momentum 0.9 and 32 images a step
RATES = (0.02, 0.15)  # the two others that the best are tried with
LONG = 2  # times as many epochs as in the first round has a training of the second
LATE = 1.5  # times what it was timed at a training may take
BEST = 2  # finalists that reach the second round
SHOWN = 2.0  # standard errors by which one accuracy is shown to differ from another
FEWEST = 10  # epochs of a training that says something of a rate
RECIPE = TrainingRecipe(
    epochs=200, lr=RATE, batch_size=32, schedule="cosine", augment="crop+flip+cutout", warmup=0.05, label_smoothing=0.1
)
CarryOut = Callable[[Sequence[FinalistTraining]], Mapping[str, Row]]


@dataclass(frozen=True)
class Entry:
    """A network as it was trained in a contest, and what fraction of the `images` held out it got right."""

    architecture: str
    lr: float
    taught: bool
    seconds: float
    accuracy: float | None
    error: str | None
    images: int

    @property
    def uncertainty(self) -> float:
        """Standard error of the accuracy, of so many images."""
        reached = min(max(self.accuracy or 0.0, 0.5 / self.images), 1 - 0.5 / self.images)
        return math.sqrt(reached * (1 - reached) / self.images)


@dataclass(frozen=True)
class Contest:
    """`default`: the network to beat; `others`: further default networks; `searched`: those of a search.

    `own`, `taught`: what finalists learn from, with their labels and with a teacher's (None: there is none). `epoch_s`:
    what an epoch of a network costs; `seconds`: of all of it, in `jobs` processes.
    """

    default: str | None
    others: tuple[str, ...]
    searched: tuple[str, ...]
    own: Label
    taught: Label | None
    held_out: Label
    epoch_s: Mapping[str, float]
    seconds: float
    jobs: int
    seed: int
    folder: Path

    @property
    def finalists(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*([self.default] if self.default else []), *self.others, *self.searched)))

    @property
    def epochs(self) -> int:
        """Of a training of the first round."""
        return max(1, int(self._epochs(BEST * (1 + len(self.rates)))))

    @property
    def rates(self) -> tuple[float, ...]:
        """Tried beside the usual one: none where their trainings would end before they say anything."""
        return RATES if LONG * self._epochs(BEST * (1 + len(RATES))) >= FEWEST else ()

    def _epochs(self, second: int) -> float:
        """With so many trainings in the second round, each as dear as the dearest that can reach it."""
        every = [self.epoch_s[name] for name in self.finalists]
        first = max(max(every), sum(every) / self.jobs)
        reach = (self.default, *self.searched) if self.default else self.finalists
        dearest = max(self.epoch_s[name] for name in reach)
        long = math.ceil(second / self.jobs) + (self.taught is not None)
        return self.seconds / (first + LONG * long * dearest)

    def held(self, carry_out: CarryOut) -> list[Entry]:
        """All entries, those of the second round first, the winner first of all. Raises ValueError where none lives."""
        first = self._round([(name, RATE, False) for name in self.finalists], self.epochs, carry_out)
        through = [entry.architecture for entry in self._promoted(first)]
        asked = [(name, rate, False) for name in through for rate in (RATE, *self.rates)]  # as many chances for each
        second = self._round(asked, LONG * self.epochs, carry_out)
        best = self._best(second)
        if self.taught is not None:
            second += self._round([(best.architecture, best.lr, True)], LONG * self.epochs, carry_out)
            taught = second[-1]
            if taught.accuracy is not None and best.accuracy is not None and taught.accuracy > best.accuracy:
                best = taught
        others = sorted((one for one in second if one is not best), key=_order)
        return [best, *others, *sorted(first, key=_order)]

    def _promoted(self, entries: Sequence[Entry]) -> list[Entry]:
        """The default network where it lives, and the best of the rest; the better one first."""
        living = _living(entries)
        default = [one for one in living if one.architecture == self.default]
        rest = [one for one in living if one not in default and (not default or one.architecture in self.searched)]
        return _living([*default, *rest[: BEST - len(default)]])

    def _best(self, entries: Sequence[Entry]) -> Entry:
        """The best of the second round, or the default one where nothing is better by more than may be chance."""
        living = _living(entries)
        default = next((one for one in living if one.architecture == self.default), None)
        for one in living:
            if default is None or one.architecture == self.default:
                return one
            smaller = self.epoch_s[one.architecture] < self.epoch_s[default.architecture]
            margin = (SHOWN if smaller else 1.0) * default.uncertainty
            if (one.accuracy or 0.0) > (default.accuracy or 0.0) + margin:
                return one
        return living[0]

    def _round(self, asked: Iterable[tuple[str, float, bool]], epochs: int, carry_out: CarryOut) -> list[Entry]:
        works = {one: self.training(*one, epochs) for one in asked}
        rows = carry_out(list(works.values()))
        done = [(one, rows[work.key]) for one, work in works.items()]
        return [Entry(*one, row["seconds"], row["score"], row["error"], self.held_out.images) for one, row in done]

    def training(self, name: str, lr: float, taught: bool, epochs: int) -> FinalistTraining:
        """One entry's, and what it learns from its labels; on a slower machine than it was timed it ends earlier."""
        learned = self.taught if taught and self.taught else self.own
        seconds = LATE * epochs * self.epoch_s[name]
        return timed(name, lr, learned, self.held_out, epochs, seconds, self.seed, self.folder)


def timed(
    name: str,
    lr: float,
    learned: Label,
    read: Label,
    epochs: int,
    seconds: float,
    seed: int,
    folder: Path,
    threads: int = 1,
) -> FinalistTraining:
    """A training of so many epochs by the finalists' recipe, in `seconds` at most."""
    smoothing = 0.0 if learned.name.endswith("taught") else RECIPE.label_smoothing  # a teacher's labels are soft
    recipe = replace(RECIPE, epochs=min(epochs, RECIPE.epochs), lr=lr, label_smoothing=smoothing)
    training = Training(name, learned, read, recipe, seed, code=parse_architecture(name).code)
    return FinalistTraining(training, folder / f"{training.key}.safetensors", threads, seconds)


def _living(entries: Sequence[Entry]) -> list[Entry]:
    """Those that have an accuracy, the best first. Raises ValueError where there is none."""
    living = sorted((entry for entry in entries if entry.accuracy is not None), key=_order)
    if not living:
        raise ValueError(f"no finalist could be trained: {entries[0].architecture}: {entries[0].error}")
    return living


def _order(entry: Entry) -> float:
    return 1.0 if entry.accuracy is None else -entry.accuracy
