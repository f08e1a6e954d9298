"""Candidates trained from scratch and scored on held-out real images: one JSON row per evaluation.

A row is the record of one training, whatever it was on: a synthetic set, a random real subset, all real images.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from distill.examples import Examples
from distill.randomness import generator, seeded
from distill.recipe import TrainingRecipe
from distill.training import accuracy, fit
from ftdnas.executors import Failure, LocalProcesses
from ftdnas.materials import Label, Shelf
from ftdnas.rows import RowFile
from search_spaces.base import parse_architecture

LATE = 0.1  # the late loss is the mean training loss of this last part of the epochs
TIMED_FLOPS = 2e10  # about the work of a timed step, so that timing a large network stays short


@dataclass(frozen=True)
class Training:
    """One training to be done: an architecture's canonical name, what it learns from, what scores it, and how.

    `recipe.lr` is a number. Weights and batches are drawn from `seed`, the architecture and what it is trained on.
    """

    architecture: str
    trained_on: Label
    scored_on: Label
    recipe: TrainingRecipe
    seed: int

    @property
    def key(self) -> str:
        """Hex digest of all that the score depends on, but for device and versions."""
        identity = [
            self.architecture,
            self.trained_on.fingerprint,
            self.scored_on.fingerprint,
            asdict(self.recipe),
            self.seed,
        ]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]

    def __call__(self, shelf: Shelf) -> Score:
        """Do it, in a process that holds the materials. Errors of the network are the caller's to record."""
        begun = time.perf_counter()
        material, held_out = shelf[self.trained_on.fingerprint], shelf[self.scored_on.fingerprint]
        image_shape, num_classes = material.examples.image_shape, self.trained_on.classes
        device = material.examples.device
        path = ("candidate", self.architecture, self.trained_on.fingerprint)
        with seeded(self.seed, *path, "weights"):
            network = parse_architecture(self.architecture).build(image_shape, num_classes).to(device)
        assert self.recipe.lr is not None
        draws = generator(self.seed, *path, "batches")
        losses = fit(network, material.examples, self.recipe, lr=self.recipe.lr, generator=draws)
        error = None
        if not math.isfinite(losses[-1]):
            error = f"the training loss was not finite in epoch {len(losses)} of {self.recipe.epochs}"
        elif not all(torch.isfinite(weights).all() for weights in network.parameters()):
            error = f"weights were not finite after {self.recipe.epochs} epochs"
        score = None if error else accuracy(network, held_out.examples)
        return self._record(
            score=score,
            error=error,
            losses=tuple(_tenths(losses)),
            late_loss=None if error else late_loss(losses),
            seconds=time.perf_counter() - begun,
            device=_device_name(device),
        )

    def failed(self, failure: Failure) -> Score:
        """The row of a training without a result."""
        return self._record(error=failure.error, crashed=failure.crashed)

    def _record(self, **outcome: Any) -> Score:
        return Score(
            key=self.key,
            architecture=self.architecture,
            trained_on=self.trained_on,
            scored_on=self.scored_on,
            recipe=self.recipe,
            seed=self.seed,
            torch=torch.__version__,
            **outcome,
        )


@dataclass(frozen=True)
class Score:
    """The row of one training.

    `score`: accuracy, a fraction, on what `scored_on` names; None with an `error` where there is none. `late_loss`:
    mean training loss of the last tenth of the epochs; `losses`: means of up to ten equal parts of training, None where
    not finite. `seconds`: of one thread (or of `device`). `crashed`: the process ended, so another attempt may succeed.
    """

    key: str
    architecture: str
    trained_on: Label
    scored_on: Label
    recipe: TrainingRecipe
    seed: int
    score: float | None = None
    error: str | None = None
    crashed: bool = False
    late_loss: float | None = None
    losses: tuple[float | None, ...] = ()
    seconds: float = 0.0
    device: str = ""
    torch: str = ""

    def to_row(self) -> dict[str, Any]:
        """A JSON object."""
        return {**asdict(self), "losses": list(self.losses)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Score:
        """The inverse of `to_row`; members that are not ours are left out."""
        known = {field.name: row[field.name] for field in fields(cls) if field.name in row}
        return cls(
            **{
                **known,
                "trained_on": Label(**row["trained_on"]),
                "scored_on": Label(**row["scored_on"]),
                "recipe": TrainingRecipe(**row["recipe"]),
                "losses": tuple(row["losses"]),
            }
        )


def known_scores(trainings: Iterable[Training], file: RowFile) -> dict[str, Score]:
    """Key -> score of those trainings whose row is in the file; one that crashed is to be tried again."""
    rows = file.read()
    found = (rows[training.key] for training in trainings if training.key in rows)
    return {row["key"]: Score.from_row(row) for row in found if not row["crashed"]}


def train_candidates(
    trainings: Sequence[tuple[Training, RowFile]],
    processes: LocalProcesses[Shelf],
    report: Callable[[Score], None],
) -> dict[str, Score]:
    """Key -> score of every training, started in the order given; its row is in its file before it is reported."""
    scores: dict[str, Score] = {}
    for index, outcome in processes.map([training for training, _ in trainings]):
        training, file = trainings[index]
        score = training.failed(outcome) if isinstance(outcome, Failure) else outcome
        file.append(score.to_row())
        scores[score.key] = score
        report(score)
    return scores


@dataclass(frozen=True)
class TimedStep:
    """A few training steps of one architecture: seconds for each image of a batch."""

    architecture: str
    material: str  # fingerprint
    flops: int
    recipe: TrainingRecipe

    def __call__(self, shelf: Shelf) -> float:
        material = shelf[self.material]
        examples, recipe = material.examples, self.recipe
        size = int(max(2, min(len(examples), recipe.batch_size, TIMED_FLOPS / (3 * max(self.flops, 1)))))
        images, labels = examples.take(torch.arange(size))
        with seeded(0, "timing"):
            network = parse_architecture(self.architecture).build(examples.image_shape, material.label.classes)
        ends = [time.perf_counter()]
        fit(
            network.to(examples.device),
            Examples(images, labels),
            replace(recipe, epochs=4),
            lr=1e-6,  # small enough to stay finite
            generator=generator(0, "timing"),
            report=lambda progress: ends.append(time.perf_counter()),  # noqa: ARG005
        )
        return float(np.diff(ends)[1:].mean()) / size  # the first step warms up


@dataclass(frozen=True)
class CostModel:
    """Seconds of one process for a training: fixed + (image + flop * FLOPs) for every image seen."""

    fixed: float
    image: float
    flop: float

    def seconds(self, flops: float, images_seen: float) -> float:
        return self.fixed + (self.image + self.flop * flops) * images_seen


def fit_cost(timed: Sequence[tuple[int, float]]) -> CostModel:
    """The cost model nearest to (FLOPs, seconds per image) in relative error, no part of it negative."""
    from scipy.optimize import nnls

    table = np.array([[1.0, count] for count, _ in timed])
    seconds = np.array([second for _, second in timed])
    scale = np.array([1.0, max(1.0, float(table[:, 1].max()))])  # both unknowns of one magnitude
    parts = nnls(table / scale / seconds[:, None], np.ones(len(timed)))[0] / scale
    return CostModel(0.1, float(parts[0]), float(parts[1]))


def images_seen(training: Training) -> float:
    """How many images a training looks at; reading one for the score costs a third of training on one."""
    return training.trained_on.images * training.recipe.epochs + training.scored_on.images / 3


def late_loss(losses: Sequence[float]) -> float:
    """Mean of the last tenth of the losses, of one at least."""
    return float(np.mean(losses[-max(1, round(len(losses) * LATE)) :]))


def _tenths(losses: Sequence[float]) -> list[float | None]:
    parts = np.array_split(np.array(losses), min(10, len(losses)))
    means = [float(part.mean()) for part in parts]
    return [round(mean, 6) if math.isfinite(mean) else None for mean in means]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "CPU, 1 thread"
