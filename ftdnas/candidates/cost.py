"""What a training costs before it is done: a few steps are timed, and a model of seconds is fitted to them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from distill.randomness import generator, seeded
from distill.recipe import TrainingRecipe
from distill.training.examples import Examples
from distill.training.loop import fit
from ftdnas.candidates.materials import Shelf
from search_spaces.base import parse_architecture

TIMED_FLOPS = 2e10  # about the work of a timed step, so that timing a large network stays short


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
            network = parse_architecture(self.architecture).build(material.image_shape, material.label.classes)
        ends = [time.perf_counter()]
        fit(
            network.to(examples.device),
            Examples(material.seen(images), labels),
            replace(recipe, epochs=4),
            lr=1e-6,  # small enough to stay finite
            generator=generator(0, "timing"),
            listener=lambda progress: ends.append(time.perf_counter()),  # noqa: ARG005
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
