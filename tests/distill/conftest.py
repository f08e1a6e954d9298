"""A small backbone and recipes that the tests of the distiller share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from distill.recipe import EvaluationRecipe, ExpertRecipe, MatchingRecipe, Recipe, TrainingRecipe
from distill.run import Listener, Run

BuildTiny = Callable[..., Callable[[], nn.Module]]


@pytest.fixture(scope="session")
def tiny_network() -> BuildTiny:
    """tiny_network(channels=1, side=8, classes=10, ...) -> a function that builds a two-block ConvNet."""

    def network(
        channels: int = 1,
        side: int = 8,
        classes: int = 10,
        width: int = 8,
        activation: type[nn.Module] = nn.ReLU,
        norm: type[nn.Module] | None = None,
    ) -> Callable[[], nn.Module]:
        def build() -> nn.Module:
            layers: list[nn.Module] = []
            for inputs in (channels, width):
                layers += [
                    nn.Conv2d(inputs, width, 3, padding=1),
                    nn.GroupNorm(width, width) if norm is None else norm(width),
                    activation(),
                    nn.AvgPool2d(2),
                ]
            return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * (side // 4) ** 2, classes))

        return build

    return network


@pytest.fixture(scope="session")
def small_recipe() -> Recipe:
    """Seconds of work on digits: two experts of three epochs, twelve outer steps."""
    return Recipe(
        name="small",
        ipc=2,
        backbone="tiny",
        preprocess="standardize",
        experts=ExpertRecipe(num_experts=2, lr=0.05, batch_size=256),
        matching=MatchingRecipe(
            outer_steps=12,
            syn_steps=4,
            expert_epochs=1,
            max_start_epoch=2,
            lr_images=10.0,
            initial_step_size=0.05,
            ema_decay=0.8,
            validate_every=6,
            checkpoint_every=3,
        ),
        evaluation=EvaluationRecipe(
            train=TrainingRecipe(epochs=20),
            validation=TrainingRecipe(epochs=5),
            full=TrainingRecipe(epochs=1, lr=0.05),
            subset_lrs=(0.01, 0.05),
        ),
    )


@pytest.fixture(scope="session")
def experts_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared folder for tests that only need experts, whoever trained them."""
    return tmp_path_factory.mktemp("experts")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """make_run("name", seed=0, shared="shared", listener=...) -> a Run with its folder below the test's own."""

    def make(name: str = "run", seed: int = 0, shared: str = "shared", listener: Listener | None = None) -> Run:
        run = Run(seed, tmp_path / name, tmp_path / shared)
        return run if listener is None else Run(seed, run.folder, run.shared, listener=listener)

    return make
