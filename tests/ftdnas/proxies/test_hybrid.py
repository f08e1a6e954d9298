from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from distill.images.datasets import ImageDataset
from distill.recipe import TrainingRecipe
from ftdnas.candidates.screening import Screening
from ftdnas.candidates.training import Training
from ftdnas.candidates.truth import truth_materials
from ftdnas.proxies.base import Outcome, Proxy, Rows
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.hybrid import Hybrid
from ftdnas.proxies.untrained import Counted
from search_spaces.base import SPACES, parameter_count, parse_architecture, stratified_sample

SHAPE = (1, 8, 8)
SEEDS = (0, 1)


@dataclass(frozen=True)
class Known(Proxy):
    """A proxy whose scores are known; each candidate needs a training of seed 9."""

    values: Mapping[str, float]
    trained: Callable[[str, int], Training]
    name = "known"
    title = "known scores"

    def works(self, candidates: Sequence[str], rows: Rows) -> list[Training]:  # noqa: ARG002
        return [self.trained(candidate, 9) for candidate in candidates]

    def outcomes(self, candidates: Sequence[str], rows: Rows) -> list[Outcome]:  # noqa: ARG002
        return [(self.values.get(name), None if name in self.values else "diverged") for name in candidates]


class World:
    """Sixty convnets whose truth is known, a proxy that sees it through noise, and the rows of all trainings."""

    def __init__(self, data: ImageDataset) -> None:
        self.bench = Workbench(data, Screening(), seed=0)
        train, score = truth_materials(data)
        self.labels = train.label, score.label
        self.names = [found.name for found in stratified_sample(SPACES["convnet"], 60, SHAPE, 0)]
        draw = np.random.default_rng(0)
        weights = [parameter_count(parse_architecture(name), SHAPE, 10) for name in self.names]
        ranks = np.argsort(np.argsort(weights)) / 60
        self.truth = dict(zip(self.names, ranks + 0.3 * draw.normal(size=60), strict=True))
        noisy = {name: value + 0.2 * draw.normal() for name, value in self.truth.items()}
        self.known = Known(noisy, self.training)
        self.hybrid = Hybrid([self.known, Counted("params", self.bench)], self.bench, self.trainings)

    def training(self, candidate: str, seed: int) -> Training:
        return Training(candidate, *self.labels, TrainingRecipe(epochs=1, lr=0.01), seed)

    def trainings(self, candidate: str) -> list[Training]:
        return [self.training(candidate, seed) for seed in SEEDS]

    def todo(self, rows: Rows) -> list[Training]:
        return [work for work in self.hybrid.todo(self.names, rows) if isinstance(work, Training)]

    def done(self, works: Sequence[Training]) -> dict[str, Any]:
        shift = {0: -0.01, 1: 0.01, 9: 0.0}
        return {
            work.key: {
                "key": work.key,
                "score": self.truth[work.architecture] + shift[work.seed],
                "error": None,
                "seconds": 1.0,
            }
            for work in works
        }


@pytest.fixture(scope="module")
def world(digits: ImageDataset) -> World:
    return World(digits)


def test_it_asks_for_its_parts_and_for_the_trainings_it_is_fitted_on(world: World) -> None:
    asked = world.todo({})
    calibration = [work for work in asked if work.seed in SEEDS]
    assert len(asked) == 60 + 48
    assert len({work.architecture for work in calibration}) == 24
    assert world.todo(world.done(asked)) == []
    assert world.todo(world.done(asked[:70])) == asked[70:]


def test_the_trained_spread_over_the_sizes(world: World) -> None:
    asked = {work.architecture for work in world.todo({}) if work.seed in SEEDS}
    sizes = {name: parameter_count(parse_architecture(name), SHAPE, 10) for name in world.names}
    ascending = sorted(world.names, key=lambda name: (sizes[name], name))
    per_fifth = [sum(name in asked for name in ascending[start : start + 12]) for start in range(0, 60, 12)]
    assert per_fifth == pytest.approx([4.8] * 5, abs=1.3)


def test_it_ranks_better_than_its_parts_and_says_how(world: World) -> None:
    rows = world.done(world.todo({}))
    column = world.hybrid.column(world.names, rows)
    truth = [world.truth[name] for name in world.names]
    parts = [part.column(world.names, rows) for part in world.hybrid.parts]
    assert spearmanr(np.array(column), truth).statistic > max(
        spearmanr(np.array(part), truth).statistic for part in parts
    )
    fit = world.hybrid.fit(world.names, rows)
    assert fit.trained == 24
    assert all(weight > 0 for weight in fit.weights)
    assert world.hybrid.name == "hybrid(known,params)"


def test_its_cost_includes_the_trainings(world: World) -> None:
    rows = world.done(world.todo({}))
    assert world.hybrid.seconds(world.names, rows) == 60 + 48


def test_a_part_without_a_score_is_named(world: World) -> None:
    rows = world.done(world.todo({}))
    names = [*world.names, "convnet:width=48"]
    rows |= {world.training(names[-1], 9).key: {"seconds": 0.0}}
    assert world.hybrid.column(names, rows)[-1] is None
    assert world.hybrid.errors(names, rows)[-1] == "known: diverged"
    assert world.hybrid.errors(names, rows)[:-1] == [None] * 60


def test_before_enough_are_trained_there_is_no_score_and_a_reason(world: World) -> None:
    rows = world.done([work for work in world.todo({}) if work.seed != 1])
    assert world.hybrid.column(world.names, rows) == [None] * 60  # of two seeds one is missing
    (reason,) = set(world.hybrid.errors(world.names, rows))
    assert reason is not None
    assert reason.startswith("0 trained architectures")


def test_what_cannot_be_fitted_is_refused_at_once(world: World) -> None:
    params = Counted("params", world.bench)
    with pytest.raises(ValueError, match="name at least two"):
        Hybrid([params], world.bench, world.trainings)
    with pytest.raises(ValueError, match="cannot be fitted on 7 trained candidates: calibrate on at least 8"):
        Hybrid([params, world.known], world.bench, world.trainings, calibration=7)
