"""Candidates trained from scratch and scored on held-out real images: one JSON row per evaluation.

A row is the record of one training, whatever it was on: a synthetic set, a random real subset, all real images. `score`
does one training of anybody's network: what an Optuna objective, a Ray task or a notebook needs.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.files import digest
from distill.images.datasets import ACCURACY, Split
from distill.randomness import generator, seeded
from distill.recipe import TrainingRecipe
from distill.recipe import identity as recipe_identity
from distill.synthetic import SyntheticSet
from distill.training.clock import Limit
from distill.training.examples import Examples
from distill.training.loop import Fitted, Reading, Targets, balanced, fit
from ftdnas.candidates.materials import Label, Material, Shelf, Taught
from ftdnas.candidates.reading import LATE, guess_loss, is_dead, late_loss, score_value
from ftdnas.candidates.screening import Screening, norm_family
from ftdnas.runtime.device import device_name, one_thread
from ftdnas.runtime.processes import Failure
from ftdnas.runtime.records import from_json, to_json
from ftdnas.runtime.rows import Row
from search_spaces.base import parse_architecture
from search_spaces.messages import FOREIGN, one_line

PARTS = 200  # that a curve of training losses is kept in, at most


@dataclass(frozen=True)
class Training:
    """One training to be done: an architecture's canonical name, what it learns from, what scores it, and how.

    `recipe.lr` is a number. Weights and batches are drawn from `seed`, the architecture and what it is trained on.
    `code`: of a space from outside, see `Architecture`. `part`: so many images, drawn by the seed, of what it is
    trained on; None takes all. `reads`: of what scores it, the last at the end; no part of the identity. `shared`:
    batches and augmentation are the same for every architecture, which compares them more closely.
    """

    architecture: str
    trained_on: Label
    scored_on: Label
    recipe: TrainingRecipe
    seed: int
    code: str = ""
    part: int | None = None
    reads: int = 1
    shared: bool = False

    @property
    def key(self) -> str:
        """Hex digest of all that the score depends on, but for device and versions."""
        identity: list[Any] = [
            self.architecture,
            self.trained_on.fingerprint,
            self.scored_on.fingerprint,
            recipe_identity(self.recipe),
            self.seed,
        ]
        identity += [["code", self.code]] if self.code else []
        identity += [["part", self.part]] if self.part is not None else []
        identity += ["shared batches"] if self.shared else []
        return digest(identity, 32)

    @property
    def needs(self) -> tuple[str, ...]:
        """Fingerprints of the materials that must lie on the shelf."""
        return self.trained_on.fingerprint, self.scored_on.fingerprint

    @property
    def images_seen(self) -> int:
        """By the training itself, an image counted as often as it is seen."""
        return (self.part or self.trained_on.images) * self.recipe.epochs

    def __call__(self, shelf: Shelf) -> Row:
        """Do it, in a process that holds the materials. Errors of the network are the caller's to record.

        On one CPU thread, however many the process has: a score is the same in every process.
        """
        with one_thread():
            return self.trained(shelf)[0]

    def trained(self, shelf: Shelf, limit: Limit | None = None) -> tuple[Row, nn.Module]:
        """The row, and the network as it is after the training, on as many CPU threads as the process has.

        With a `limit` it ends in time, and goes on where it was killed; the row is of that training then.
        """
        begun = time.perf_counter()
        material, held_out = shelf[self.trained_on.fingerprint], shelf[self.scored_on.fingerprint]
        examples = self._examples(material)
        path = ("candidate", self.architecture, self.trained_on.fingerprint)
        architecture = parse_architecture(self.architecture)
        build = lambda: architecture.build(material.image_shape, self.trained_on.classes)  # noqa: E731
        network = _built(build, material.seen(examples.take(torch.arange(min(2, len(examples))))[0]), self.seed, path)
        batches = f"{recipe_identity(self.recipe)}/{self.seed}/{self.part}" if self.shared else None
        targets = None if material.teachers is None else material.teachers.targets(batches)
        draws = generator(self.seed, "shared batches") if self.shared else generator(self.seed, *path, "batches")
        outcome = _outcome(
            network,
            examples,
            held_out.examples if self.scored_on.images else None,
            self.recipe,
            self.reads,
            self.seed,
            path,
            draws,
            targets,
            material.seen,
            metric=self.scored_on.metric,
            limit=limit,
        )
        seconds, device = time.perf_counter() - begun, device_name(examples.device)
        return self._record(**outcome, seconds=seconds, device=device).to_row(), network

    def failed(self, failure: Failure) -> Row:
        """The row of a training without a result."""
        return self._record(error=failure.error, crashed=failure.crashed, seconds=failure.seconds).to_row()

    def _examples(self, material: Material) -> Examples:
        if self.part is None:
            return material.examples
        draws = generator(self.seed, "part", self.trained_on.fingerprint)  # the same images for every architecture
        return material.part(torch.randperm(len(material.examples), generator=draws)[: self.part].sort().values)

    def _record(self, **outcome: Any) -> Score:
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "reads"}
        return Score(key=self.key, torch=torch.__version__, **own, **outcome)


@dataclass(frozen=True)
class Score:
    """The row of one training.

    `score`: accuracy, a fraction, on what `scored_on` names; None with an `error` where there is none. `held_out_loss`:
    mean loss there. `held_out`: both whenever they were read, as (fraction of training done, accuracy, loss). `losses`:
    mean training loss of up to 200 equal parts of the steps, each taken before its update, None where not finite;
    `late_loss`: of the last tenth; `guess_loss`: of guessing, None in older rows. `seconds`: of one thread
    (or of `device`). `crashed`: the process ended, so another attempt may succeed. `right`: which images were right at
    the end, see `right_of`; "" in rows of older versions.
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
    held_out_loss: float | None = None
    held_out: tuple[tuple[float, float, float], ...] = ()
    seconds: float = 0.0
    device: str = ""
    torch: str = ""
    code: str = ""
    part: int | None = None
    shared: bool = False
    right: str = ""
    guess_loss: float | None = None

    def value(self, kind: str = "late_loss", window: float = LATE) -> float | None:
        """One of `ftdnas.candidates.screening.SCORES`; larger is better; None where it failed or was not read.

        `window`: the last part of the training whose mean loss is the late loss.
        """
        return score_value(self.to_row(), kind, window)

    @property
    def dead(self) -> bool:
        """Whether the network ended where guessing does: see `is_dead`."""
        return is_dead(self.to_row())

    def to_row(self) -> dict[str, Any]:
        """A JSON object."""
        row: dict[str, Any] = to_json(self)
        return row

    @classmethod
    def from_row(cls, row: Row) -> Score:
        """The inverse of `to_row`; members that are not ours are left out, those of an older row take their default."""
        score: Score = from_json(cls, row)
        return score


def score(
    build: Callable[[], nn.Module],
    synthetic_set: SyntheticSet,
    recipe: TrainingRecipe | Screening | None = None,
    seed: int = 0,
    *,
    held_out: Split | None = None,
    device: str = "cpu",
) -> Score:
    """Train what `build` makes, (N, C, H, W) -> (N, K), on the set, and say how well that went.

    The default recipe is that of `Screening()`; a `TrainingRecipe` without a learning rate takes the set's step size.
    `held_out` are real images (uint8), `data.score()` say, for the accuracy; without them there is only the training
    loss, which ranks well (METHOD 6). Nothing that the network does is raised: see the score's `error`. Initial weights
    and batches are those of `seed`. An Optuna search of one's own, from a notebook:

        synthetic = SyntheticSet.load("cifar10.safetensors")

        def objective(trial):
            width = trial.suggest_int("width", 16, 64)
            return score(lambda: my_network(width), synthetic).value("late_loss")

        optuna.create_study(direction="maximize").optimize(objective, n_trials=100)
    """
    begun = time.perf_counter()
    trained_on = Label("the set", f"set/{synthetic_set.identity}", len(synthetic_set.images), synthetic_set.num_classes)
    read_on = Label("held-out images", "", 0 if held_out is None else len(held_out), synthetic_set.num_classes)
    examples = Examples(synthetic_set.images.to(device), synthetic_set.labels.to(device))
    scored_on = None if held_out is None else Examples.from_split(held_out, synthetic_set.preprocess, device)
    given, reads = recipe or Screening(), 1
    outcome: dict[str, Any]
    used = given if isinstance(given, TrainingRecipe) else TrainingRecipe()
    name = ""
    try:
        network = _built(build, examples.take(torch.arange(min(2, len(examples))))[0], seed, ("score",))
        name = type(network).__qualname__
        if isinstance(given, Screening):
            used = given.recipe(len(examples), synthetic_set, norm_family(network))
            reads = given.reads
        used = replace(used, lr=used.lr or synthetic_set.step_size)
        taught = Taught.of(synthetic_set) if isinstance(given, Screening) and given.labels == "teachers" else None
        targets = None if taught is None else taught.targets(None)
        draws = generator(seed, "score", "batches")
        outcome = _outcome(network, examples, scored_on, used, reads, seed, ("score",), draws, targets)
    except FOREIGN as error:
        outcome = {"error": one_line(error)}
    seconds = time.perf_counter() - begun
    record = Score("", name, trained_on, read_on, used, seed, torch=torch.__version__, **outcome)
    return replace(record, seconds=seconds, device=device_name(examples.device))


def _built(build: Callable[[], nn.Module], images: Tensor, seed: int, path: tuple[str, ...]) -> nn.Module:
    """The network on the device of some images, with the initial weights of the seed, those of lazy modules too."""
    with seeded(seed, *path, "weights"):
        network = build().to(images.device)
        if any(nn.parameter.is_lazy(weights) for weights in network.parameters()):
            with torch.no_grad():
                network.eval()(images)
    return network


def _outcome(
    network: nn.Module,
    examples: Examples,
    held_out: Examples | None,
    recipe: TrainingRecipe,
    reads: int,
    seed: int,
    path: tuple[str, ...],
    draws: torch.Generator,
    targets: Targets | None,
    seen: Callable[[Tensor], Tensor] | None = None,
    limit: Limit | None = None,
    metric: str = ACCURACY,
) -> dict[str, Any]:
    """What a score says of the training of this network; `draws`: of its batches."""
    assert recipe.lr is not None
    said: list[Tensor] = []  # by teachers, of every batch

    def heard(step: int, images: Tensor) -> Tensor:
        assert targets is not None
        said.append(targets(step, images))
        return said[-1]

    with seeded(seed, *path, "dropout"):  # what a network draws by itself
        fitted = fit(
            network,
            examples,
            recipe,
            lr=recipe.lr,
            generator=draws,
            held_out=held_out,
            reads=reads,
            targets=targets and heard,
            seen=seen,
            limit=limit,
        )
    error, readings = _problem(network, fitted, recipe), fitted.readings
    if held_out is not None and metric != ACCURACY:
        readings = tuple(balanced(reading, held_out.labels) for reading in readings)
    last = None if error or not readings else readings[-1]
    return {
        "score": last and last.accuracy,
        "held_out_loss": last and _finite(last.loss),
        "right": base64.b64encode(last.right).decode() if last else "",
        "held_out": tuple(_rounded(reading) for reading in readings if math.isfinite(reading.loss)),
        "error": error,
        "losses": tuple(_curve(fitted.losses)),
        "late_loss": None if error else late_loss(fitted.losses),
        "guess_loss": round(guess_loss(torch.cat(said) if said else _distributions(examples.labels), bool(said)), 6),
    }


def _distributions(labels: Tensor) -> Tensor:
    return F.one_hot(labels) if labels.ndim == 1 else labels


def _problem(network: nn.Module, fitted: Fitted, recipe: TrainingRecipe) -> str | None:
    if fitted.diverged:
        return f"the training loss was not finite in epoch {len(fitted.epochs)} of {recipe.epochs}"
    if not all(bool(torch.isfinite(weights).all()) for weights in network.parameters()):
        return f"weights were not finite after {recipe.epochs} epochs"
    return None


def _curve(losses: Sequence[float]) -> list[float | None]:
    parts = np.array_split(np.array(losses), min(PARTS, len(losses)))
    return [_finite(float(part.mean())) for part in parts]


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _rounded(reading: Reading) -> tuple[float, float, float]:
    return round(reading.done, 6), reading.accuracy, round(reading.loss, 6)
