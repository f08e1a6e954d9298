"""The references of the speed benchmarks compute what ours computes (matching's is held up in tests/distill)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import reference
import torch
from torch import nn

from distill.experts import _train_epoch
from distill.randomness import generator, seeded
from distill.recipe import ExpertRecipe, TrainingRecipe
from distill.training.derivatives import Derivatives
from distill.training.examples import Examples
from distill.training.flat import FlatNetwork, initial_weights
from distill.training.loop import fit, read
from search_spaces.base import parse_architecture


def network(norm: str) -> nn.Module:
    return parse_architecture(f"convnet:width=8,depth=2,norm={norm},activation=relu,pooling=avg").build((3, 8, 8), 4)


@pytest.fixture
def examples() -> Examples:
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Examples(images, torch.arange(40) % 4)


def test_an_expert(examples: Examples) -> None:
    recipe, build = ExpertRecipe(batch_size=16, lr=0.05, rho=0.1), partial(network, "instance")
    with seeded(0, "expert"):
        module = build()
    draws = generator(0, "draws")
    rows = reference.train_expert(module, examples, recipe, 2, draws)
    weights, draws = initial_weights(build, 0, "expert"), generator(0, "draws")
    for epoch in (0, 1, 2):
        assert (weights - rows[epoch]).norm() < 1e-5 * (rows[2] - rows[0]).norm()
        weights, _ = _train_epoch(examples, Derivatives(FlatNetwork(build())), weights, recipe, draws)
    assert (rows[2] - rows[0]).norm() > 0.01


def test_a_candidate(examples: Examples) -> None:
    recipe = TrainingRecipe(epochs=3, batch_size=16, schedule="cosine")
    found: list[tuple[Any, float]] = []
    for way in ("ours", "theirs"):
        with seeded(0, "candidate"):
            module = network("batch")
        if way == "ours":
            fitted = fit(module, examples, recipe, lr=0.05, generator=generator(0, "draws"))
            found.append((fitted.losses, read(module, examples)[0]))
        else:
            found.append(reference.train_candidate(module, examples, examples, recipe, 0.05, generator(0, "draws")))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert found[0][1] == found[1][1]
