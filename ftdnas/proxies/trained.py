"""Proxies that train every candidate: on a synthetic set, on as many real images, or on all of them but shortly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from distill.randomness import derive_seed
from distill.recipe import TrainingRecipe
from ftdnas.candidates.materials import Label, Material
from ftdnas.candidates.reading import is_dead, score_value
from ftdnas.candidates.screening import SCORES, describe_score, family_of
from ftdnas.candidates.training import Training
from ftdnas.proxies.base import Rows, ScoreColumn, spent
from ftdnas.proxies.bench import Workbench
from ftdnas.runtime.rows import Row

DIGITS = 2  # that count of a budget made of measured times, so that a hair does not make all trainings others


class Trainings(Protocol):
    """Which trainings stand for a candidate."""

    @property
    def title(self) -> str:
        """Where it was trained, in words that follow a score: "on the set x"."""
        ...

    def before(self, candidates: Sequence[str], rows: Rows) -> list[Training]:
        """What must be done before `of` can be asked; [] where it is."""
        ...

    def of(self, candidates: Sequence[str], rows: Rows) -> list[list[Training]]:
        """Of each candidate one for each seed. Raises ValueError, with the reason, where there can be none."""
        ...


@dataclass(frozen=True, eq=False)
class Trained:
    """The mean of one score over the trainings of a candidate; None where one of them failed.

    `score`: of `ftdnas.candidates.screening.SCORES`. Architectures that compute the same are trained once.
    """

    name: str
    trainings: Trainings
    score: str
    bench: Workbench

    @property
    def title(self) -> str:
        return f"{describe_score(self.score, self.bench.screening.window)} {self.trainings.title}"

    def todo(self, candidates: Sequence[str], rows: Rows) -> list[Training]:
        first = self.trainings.before(candidates, rows)
        works = {work.key: work for work in first or self._works(candidates, rows)}
        return [work for key, work in works.items() if key not in rows]

    def column(self, candidates: Sequence[str], rows: Rows) -> ScoreColumn:
        found = self._found(candidates, rows)
        return [None if isinstance(several, str) else self._score(several) for several in found]

    def errors(self, candidates: Sequence[str], rows: Rows) -> list[str | None]:
        return [self._error(several) for several in self._found(candidates, rows)]

    def seconds(self, candidates: Sequence[str], rows: Rows) -> float:
        if self.trainings.before(candidates, rows):
            return 0.0
        return spent((work.key for work in self._works(candidates, rows)), rows)

    def by_seed(self, candidates: Sequence[str], rows: Rows) -> list[ScoreColumn]:
        """The column of each seed; [] where there is one."""
        found = self._found(candidates, rows)
        seeds = max((len(several) for several in found if not isinstance(several, str)), default=0)
        if seeds < 2:
            return []
        return [
            [None if isinstance(several, str) else self._score(several[seed : seed + 1]) for several in found]
            for seed in range(seeds)
        ]

    def _works(self, candidates: Sequence[str], rows: Rows) -> list[Training]:
        """None where there can be none, which `errors` explains."""
        try:
            return [work for works in self.trainings.of(candidates, rows) for work in works]
        except ValueError:
            return []

    def _found(self, candidates: Sequence[str], rows: Rows) -> list[list[Row] | str]:
        """The rows of each candidate's trainings, or why they are not there."""
        if self.trainings.before(candidates, rows):
            return ["what its training is measured by was not done"] * len(candidates)
        try:
            works = self.trainings.of(candidates, rows)
        except ValueError as error:
            return [str(error)] * len(candidates)
        found = [[rows.get(work.key) for work in several] for several in works]
        return [
            "it was not trained" if None in several else [row for row in several if row is not None]
            for several in found
        ]

    def _score(self, several: Sequence[Row]) -> float | None:
        values = [score_value(row, self.score, self.bench.screening.window) for row in several]
        return None if None in values else math.fsum(value for value in values if value is not None) / len(values)

    def _error(self, several: Sequence[Row] | str) -> str | None:
        if isinstance(several, str):
            return several
        failed = [row["error"] for row in several if row["error"] is not None]
        if failed:
            return str(failed[0])
        if self._score(several) is None:
            return f"its {SCORES[self.score]} was not kept, or is not finite"
        if all(is_dead(row) for row in several):
            accuracy = math.fsum(row["score"] for row in several) / len(several)
            return f"dead: {accuracy:.1%} of the held-out images are right, which is chance level"
        return None


@dataclass(frozen=True, eq=False)
class OnFew:
    """Trainings on the set, or on a draw of real images of its size: the same recipe, the same seeds.

    `kind`: "set", "random", "herding" or "kmeans".
    """

    bench: Workbench
    kind: str
    draw: int = 0

    @property
    def title(self) -> str:
        return f"on {self.bench.material(self.kind, self.draw).label.name}"

    def before(self, candidates: Sequence[str], rows: Rows) -> list[Training]:  # noqa: ARG002
        return []

    def of(self, candidates: Sequence[str], rows: Rows) -> list[list[Training]]:  # noqa: ARG002
        return [self.trainings(candidate) for candidate in candidates]

    def trainings(self, candidate: str) -> list[Training]:
        bench = self.bench
        material, held_out = bench.material(self.kind, self.draw), bench.material("set score").label
        architecture, code = bench.trained(candidate)
        shape, label = material.image_shape, material.label
        family = family_of(architecture, shape, label.classes, code)
        recipe = bench.screening.recipe(label.images, bench.the_set(), family)
        return [
            Training(
                architecture,
                label,
                held_out,
                recipe,
                bench.seed + number,
                code,
                reads=bench.screening.reads,
                shared=bench.screening.shared,
            )
            for number in range(bench.screening.seeds)
        ]


@dataclass(frozen=True, eq=False)
class Early:
    """Early stopping: trainings on all real images that end after a budget of images seen, the schedule compressed.

    Fewer images than an epoch are one pass over so many random ones; more are whole epochs. `epochs`: asked for,
    fractions allowed; None takes as many images as a training on the set sees (equal marginal cost, for the networks
    are the same), and with `total` as many more as the set's own experts and distillation would have paid for, shared
    among the candidates (equal total cost). Trained as the truth is, or else as the screening; never with its seed.
    `full_size`: the candidate itself on images as they are, whatever the screening shrinks.
    """

    bench: Workbench
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

    def before(self, candidates: Sequence[str], rows: Rows) -> list[Training]:
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
        return [
            Training(
                architecture,
                images,
                held_out,
                replace(recipe, epochs=epochs),
                real_seed(bench, "early", number),
                code,
                part,
                bench.screening.reads,
                bench.screening.shared,
            )
            for number in range(bench.screening.seeds)
        ]

    def _material(self, kind: str) -> Material:
        return self.bench.material({"early": "train", "early score": "score"}[kind] if self.full_size else kind)

    @cached_property
    def _of_set(self) -> OnFew:
        return OnFew(self.bench, "set")

    def _extra(self, asked: Mapping[str, Training], rows: Rows) -> float:
        """Images that a training could see more, were the set's cost shared out, at what one took on the set."""
        done = [(rows[key]["seconds"], work.images_seen) for key, work in asked.items() if rows[key]["error"] is None]
        seconds, seen = (math.fsum(one) for one in zip(*done, strict=True)) if done else (0.0, 0.0)
        if seconds <= 0:
            raise ValueError("no training on the set succeeded, so what an image costs is not known")
        return _rounded(once_s(self.bench) / len(asked) / (seconds / seen))


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
