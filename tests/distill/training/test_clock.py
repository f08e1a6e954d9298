"""A training that ends in time, and goes on where it was killed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from distill.randomness import seeded
from distill.recipe import TrainingRecipe
from distill.run import Progress
from distill.training import clock
from distill.training.clock import Limit
from distill.training.examples import Examples
from distill.training.loop import Fitted, fit

RECIPE = TrainingRecipe(6, 0.1, batch_size=8, schedule="cosine", augment="crop+flip", warmup=0.2, label_smoothing=0.1)


def network() -> nn.Module:
    with seeded(0, "weights"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 2)
        )


def examples() -> Examples:
    labels = torch.arange(20) % 2
    images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(1)) + labels.view(-1, 1, 1, 1)
    return Examples(images, labels)


def trained(module: nn.Module, limit: Limit | None, recipe: TrainingRecipe = RECIPE, kill_after: int = 0) -> Fitted:
    def listener(progress: Progress) -> None:
        if progress.done == kill_after:
            raise KeyboardInterrupt

    with seeded(0, "dropout"):
        draws = torch.Generator().manual_seed(2)
        return fit(module, examples(), recipe, lr=0.1, generator=draws, limit=limit, listener=listener)


def test_a_killed_training_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "KEPT_S", 0.0)
    whole, halves = network(), network()
    expected = trained(whole, None)
    limit = Limit(1e6, tmp_path / "restart")
    with pytest.raises(KeyboardInterrupt):
        trained(network(), limit, kill_after=4)
    assert trained(halves, limit) == expected
    assert all(map(torch.equal, whole.state_dict().values(), halves.state_dict().values()))


def test_a_training_ends_when_its_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()  # a look at the clock takes a second
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    fitted = trained(network(), Limit(30, tmp_path / "restart"), replace(RECIPE, epochs=1000))
    assert 10 < len(fitted.losses) < 30
    assert not fitted.diverged


def test_smoothed_labels_cost_what_the_formula_says() -> None:
    fitted = trained(network(), None, replace(RECIPE, label_smoothing=0.0, epochs=1, augment="none"))
    smoothed = trained(network(), None, replace(RECIPE, epochs=1, augment="none"))
    module = network().train()
    with seeded(0, "dropout"):
        rows = torch.randperm(20, generator=torch.Generator().manual_seed(2))[:8]
        images, labels = examples().take(rows)
        logs = module(images).log_softmax(1).detach()
    hard = -logs[torch.arange(8), labels].mean()
    assert fitted.losses[0] == pytest.approx(float(hard), rel=1e-5)
    assert smoothed.losses[0] == pytest.approx(float(0.9 * hard - 0.1 * logs.mean()), rel=1e-5)


def test_the_rate_rises_before_it_falls() -> None:
    slow, quick = network(), network()
    trained(slow, None, replace(RECIPE, epochs=1, warmup=1.0))
    trained(quick, None, replace(RECIPE, epochs=1, warmup=0.0))
    start = nn.utils.parameters_to_vector(network().parameters())
    moved = [float((nn.utils.parameters_to_vector(one.parameters()) - start).detach().norm()) for one in (slow, quick)]
    assert moved[0] < moved[1]
