"""Proxies that train every candidate: on a synthetic set, on as many real images, or on all of them but shortly."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from distill.randomness import derive_seed
from distill.recipe import TrainingRecipe
from ftdnas.candidates.materials import Label, Material, Shelf
from ftdnas.candidates.reading import is_dead, score_value
from ftdnas.candidates.screening import SCORES, describe_score, family_of
from ftdnas.candidates.training import Training
from ftdnas.proxies.base import Outcome, Proxy, Rows, ScoreColumn
from ftdnas.proxies.bench import Workbench
from ftdnas.runtime.rows import Row
from ftdnas.runtime.shared import Work

DIGITS = 2  # that count of a budget made of measured times, so that a hair does not make all trainings others


@dataclass(frozen=True, eq=False)
class Trainings(ABC):
    """Which trainings stand for a candidate."""

    bench: Workbench

    @property
    @abstractmethod
    def title(self) -> str:
        """Where it was trained, in words that follow a score: "on the set x"."""

    def before(self, candidates: Sequence[str], rows: Rows) -> Sequence[Work[Shelf]]:  # noqa: ARG002
        """What must be done before `of` can be asked; [] where it is."""
        return []

    @abstractmethod
    def of(self, candidates: Sequence[str], rows: Rows) -> list[list[Training]]:
        """Of each candidate one for each seed. Raises ValueError, with the reason, where there can be none."""


@dataclass(frozen=True, eq=False)
class Trained(Proxy):
    """The mean of one score over the trainings of a candidate; None where one of them failed.

    `written`: its name. `score`: of `ftdnas.candidates.screening.SCORES`. Architectures that compute the same are
    trained once.
    """

    written: str
    trainings: Trainings
    score: str
    bench: Workbench

    @property
    def name(self) -> str:
        return self.written

    @property
    def title(self) -> str:
        return f"{describe_score(self.score, self.bench.screening.window)} {self.trainings.title}"

    def works(self, candidates: Sequence[str], rows: Rows) -> Sequence[Work[Shelf]]:
        """None where there can be none, which `errors` explains."""
        first = self.trainings.before(candidates, rows)
        try:
            return first or [work for works in self.trainings.of(candidates, rows) for work in works]
        except ValueError:
            return []

    def outcomes(self, candidates: Sequence[str], rows: Rows) -> list[Outcome]:
        of_each = self._rows(candidates, rows)
        return [(None, known) if isinstance(known, str) else self._outcome(known) for known in of_each]

    def by_seed(self, candidates: Sequence[str], rows: Rows) -> list[ScoreColumn]:
        of_each = self._rows(candidates, rows)
        seeds = max((len(known) for known in of_each if not isinstance(known, str)), default=0)
        if seeds < 2:
            return []
        return [
            [None if isinstance(known, str) else self._score(known[seed : seed + 1]) for known in of_each]
            for seed in range(seeds)
        ]

    def _rows(self, candidates: Sequence[str], rows: Rows) -> list[list[Row] | str]:
        """The rows of each candidate's trainings, or why they are not there."""
        if self.trainings.before(candidates, rows):
            return ["what its training is measured by was not done"] * len(candidates)
        try:
            works = self.trainings.of(candidates, rows)
        except ValueError as error:
            return [str(error)] * len(candidates)
        return [
            [rows[work.key] for work in seeds] if all(work.key in rows for work in seeds) else "it was not trained"
            for seeds in works
        ]

    def _score(self, rows: Sequence[Row]) -> float | None:
        values = [score_value(row, self.score, self.bench.screening.window) for row in rows]
        return None if None in values else math.fsum(value for value in values if value is not None) / len(values)

    def _outcome(self, rows: Sequence[Row]) -> Outcome:
        failed = [row["error"] for row in rows if row["error"] is not None]
        if failed:
            return None, str(failed[0])
        score = self._score(rows)
        if score is None:
            return None, f"its {SCORES[self.score]} was not kept, or is not finite"
        if all(is_dead(row) for row in rows):
            return score, _dead(rows)
        return score, None


def _dead(rows: Sequence[Row]) -> str:
    if rows[0]["score"] is None:
        return f"dead: a late loss of {rows[0]['late_loss']:.3g}, where guessing has {rows[0]['guess_loss']:.3g}"
    accuracy = math.fsum(row["score"] for row in rows) / len(rows)
    return f"dead: {accuracy:.1%} of the held-out images are right, which is chance level"


@dataclass(frozen=True, eq=False)
class OnFew(Trainings):
    """Trainings on the set, or on a draw of real images of its size: the same recipe, the same seeds.

    `kind`: "set", "random", "herding" or "kmeans".
    """

    kind: str
    draw: int = 0

    @property
    def title(self) -> str:
        return f"on {self.bench.material(self.kind, self.draw).label.name}"

    def of(self, candidates: Sequence[str], rows: Rows) -> list[list[Training]]:  # noqa: ARG002
        return [self.trainings(candidate) for candidate in candidates]

    def trainings(self, candidate: str) -> list[Training]:
        bench = self.bench
        material, held_out = bench.material(self.kind, self.draw), bench.material("set score").label
        architecture, code = bench.trained(candidate)
        label = material.label
        family = family_of(architecture, material.image_shape, label.classes, code)
        recipe = bench.screening.recipe(label.images, bench.the_set(), family)
        seeds = range(bench.seed, bench.seed + bench.screening.seeds)
        return [_training(bench, (architecture, code), label, held_out, recipe, seed) for seed in seeds]


@dataclass(frozen=True, eq=False)
class Early(Trainings):
    """Early stopping: trainings on all real images that end after a budget of images seen, the schedule compressed.

    Fewer images than an epoch are one pass over so many random ones; more are whole epochs. `epochs`: asked for,
    fractions allowed; None takes as many images as a training on the set sees (equal marginal cost, for the networks
    are the same), and with `total` as many more as the set's own experts and distillation would have paid for, shared
    among the candidates (equal total cost). Trained as the truth is, or else as the screening; never with its seed.
    `full_size`: the candidate itself on images as they are, whatever the screening shrinks.
    """

    epochs: float | None = None
    total: bool = False
    full_size: bool = False

    @property
    def title(self) -> str:
        if self.epochs is not None:
            whole = ", networks and images at their full size" if self.full_size else ""
            return f"after {self.epochs:g} epoch{'s' * (self.epochs != 1)} of all real images{whole}"
        cost = "as training on the set costs with its distillation" if self.total else "as training on the set sees"
        return f"after as many real images {cost}"

    def before(self, candidates: Sequence[str], rows: Rows) -> Sequence[Work[Shelf]]:
        if not self.total or self.epochs is not None:
            return []
        for kind in ("early", "early score"):
            self.bench.material(kind)  # for what follows: on the shelf from the start
        return Trained("", self._of_set, "late_loss", self.bench).todo(candidates, rows)

    def of(self, candidates: Sequence[str], rows: Rows) -> list[list[Training]]:
        everything = self._material("early").label.images
        if self.epochs is not None:
            return [self._trainings(candidate, self.epochs * everything) for candidate in candidates]
        of_set = {candidate: self._of_set.trainings(candidate) for candidate in candidates}
        extra = self._extra({work.key: work for works in of_set.values() for work in works}, rows) if self.total else 0
        # More than the truth itself has would not be early.
        most = math.inf if self.bench.truth is None else self.bench.truth.epochs * everything
        return [
            self._trainings(candidate, min(most, of_set[candidate][0].images_seen + extra)) for candidate in candidates
        ]

    def _trainings(self, candidate: str, budget: float) -> list[Training]:
        bench = self.bench
        images, held_out = self._material("early").label, self._material("early score").label
        architecture, code = bench.itself(candidate) if self.full_size else bench.trained(candidate)
        recipe = real_recipe(bench, architecture, code)
        if self.epochs is None:  # equal cost, so in what trainings on the set are computed in
            recipe = replace(recipe, precision=bench.screening.precision)
        epochs, part = within(budget, images)
        recipe = replace(recipe, epochs=epochs)
        seeds = [real_seed(bench, "early", number) for number in range(bench.screening.seeds)]
        return [_training(bench, (architecture, code), images, held_out, recipe, seed, part) for seed in seeds]

    def _material(self, kind: str) -> Material:
        return self.bench.material({"early": "train", "early score": "score"}[kind] if self.full_size else kind)

    @cached_property
    def _of_set(self) -> OnFew:
        return OnFew(self.bench, "set")

    def _extra(self, asked: Mapping[str, Training], rows: Rows) -> float:
        """Images that a training could see more, were the set's cost shared out, at what one took on the set."""
        done = [(rows[key]["seconds"], work.images_seen) for key, work in asked.items() if rows[key]["error"] is None]
        seconds, seen = map(math.fsum, zip(*done, strict=True)) if done else (0.0, 0.0)
        if seconds <= 0:
            raise ValueError("no training on the set succeeded, so what an image costs is not known")
        return _rounded(once_s(self.bench) / len(asked) / (seconds / seen))


def _training(
    bench: Workbench,
    network: tuple[str, str],
    images: Label,
    held_out: Label,
    recipe: TrainingRecipe,
    seed: int,
    part: int | None = None,
) -> Training:
    """`network`: (name, code) of the architecture. Read and shared as the screening says."""
    reads, shared = bench.screening.reads, bench.screening.shared
    return Training(network[0], images, held_out, recipe, seed, network[1], part, reads, shared)


def once_s(bench: Workbench) -> float:
    """Seconds that the set cost before any screening: experts, distillation and all. Raises ValueError if not known."""
    seconds = bench.the_set().provenance.get("seconds")
    if not isinstance(seconds, Mapping) or not seconds:
        raise ValueError("the set does not say what it cost, so there is no total to be equal to")
    return math.fsum(float(part) for part in seconds.values())


def known_once_s(bench: Workbench) -> float:
    """`once_s`, 0 where there is no set or it does not say."""
    try:
        return once_s(bench)
    except ValueError:
        return 0.0


def real_recipe(bench: Workbench, architecture: str, code: str) -> TrainingRecipe:
    """How a shortened training on real images goes, but for its epochs: as the truth, or else as the screening."""
    if bench.truth is not None:
        return bench.truth
    material = bench.material("early")
    family = family_of(architecture, material.image_shape, material.label.classes, code)
    return bench.screening.recipe(material.label.images, bench.synthetic, family)


def real_seed(bench: Workbench, purpose: str, number: int) -> int:
    """A seed that no truth has."""
    return derive_seed(bench.seed, "real images", purpose, number)


def within(budget: float, images: Label) -> tuple[int, int | None]:
    """(epochs, part) of a training on these images that sees so many: whole epochs over all, or one over a part."""
    if budget < images.images:
        return 1, max(1, round(budget))
    return round(budget / images.images), None


def _rounded(number: float) -> float:
    return 0.0 if number <= 0 else round(number, DIGITS - 1 - math.floor(math.log10(number)))
