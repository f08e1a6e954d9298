"""What a training costs before it is done: a few steps are timed, and a model of seconds is fitted to them."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch

from distill.randomness import generator, seeded
from distill.recipe import TrainingRecipe
from distill.training.examples import Examples
from distill.training.loop import fit
from ftdnas.candidates.materials import Material, Shelf
from ftdnas.runtime.processes import Executor, Failure
from search_spaces.base import flops, parse_architecture
from search_spaces.messages import FOREIGN

TIMED = 6  # architectures that stand for all, the cheapest and the dearest among them
TIMED_FLOPS = 2e10  # about the work of a timed step, so that timing a large network stays short


@dataclass(frozen=True)
class TimedStep:
    """A few training steps of one architecture: seconds for each image of a batch, and until the first step is done."""

    architecture: str
    material: str  # fingerprint
    flops: int
    recipe: TrainingRecipe

    def __call__(self, shelf: Shelf) -> tuple[float, float]:
        material = shelf[self.material]
        examples, recipe = material.examples, self.recipe
        size = int(max(2, min(len(examples), recipe.batch_size, TIMED_FLOPS / (3 * max(self.flops, 1)))))
        images, labels = examples.take(torch.arange(size))
        ends = [time.perf_counter()]
        with seeded(0, "timing"):
            network = parse_architecture(self.architecture).build(material.image_shape, material.label.classes)
        fit(
            network.to(examples.device),
            Examples(material.seen(images), labels),
            replace(recipe, epochs=4),
            lr=1e-6,  # small enough to stay finite
            generator=generator(0, "timing"),
            listener=lambda progress: ends.append(time.perf_counter()),  # noqa: ARG005
        )
        first, *others = np.diff(ends).tolist()  # the first step warms up
        return sum(others) / len(others) / size, first


@dataclass(frozen=True)
class CostModel:
    """Seconds of one process for a training: fixed + (image + flop * FLOPs) for every image seen."""

    fixed: float
    image: float
    flop: float

    def seconds(self, flops: float, images_seen: float) -> float:
        return self.fixed + (self.image + self.flop * flops) * images_seen


def fit_cost(timed: Sequence[tuple[int, float]], fixed: float) -> CostModel:
    """The cost model nearest to (FLOPs, seconds per image) in relative error, no part of it negative."""
    from scipy.optimize import nnls

    table = np.array([[1.0, count] for count, _ in timed])
    seconds = np.array([second for _, second in timed])
    scale = np.array([1.0, max(1.0, float(table[:, 1].max()))])  # both unknowns of one magnitude
    parts = nnls(table / scale / seconds[:, None], np.ones(len(timed)))[0] / scale
    return CostModel(fixed, float(parts[0]), float(parts[1]))


def measure_cost(
    names: Sequence[str],
    material: Material,
    recipe: TrainingRecipe,
    processes: Executor[Shelf],
    limit_s: float | None = None,
) -> CostModel:
    """Time a few steps of a few of these architectures, of different FLOPs. Raises ValueError where none can be."""
    size = material.image_shape, material.label.classes
    counted = sorted((flops_of(name, size), name) for name in names)
    picked = sorted({round(i * (len(counted) - 1) / (TIMED - 1)) for i in range(TIMED)})
    steps = [TimedStep(counted[i][1], material.label.fingerprint, counted[i][0], recipe) for i in picked]
    outcomes = [(steps[index].flops, outcome) for index, outcome in processes.map(steps, limit_s)]
    timed = [(count, outcome) for count, outcome in outcomes if not isinstance(outcome, Failure)]
    if not timed:
        failures = [outcome.error for _, outcome in outcomes if isinstance(outcome, Failure)]
        raise ValueError(f"no candidate could be trained for a single step: {failures[0]}")
    return fit_cost([(count, image_s) for count, (image_s, _) in timed], median(first_s for _, (_, first_s) in timed))


def flops_of(name: str, size: tuple[tuple[int, int, int], int]) -> int:
    """0 for what cannot be built: that fails soon, and says why."""
    try:
        return flops(parse_architecture(name), *size)
    except FOREIGN:
        return 0


def wall_s(seconds: Sequence[float], jobs: int) -> float:
    """Of pieces of work in so many processes, each of which takes the dearest that is left."""
    ends = [0.0] * max(1, min(jobs, len(seconds)))
    for piece in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + piece)
    return max(ends)
