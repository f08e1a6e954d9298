"""Expert trajectories: what is stored, that interruption changes nothing, and that GSAM finds flatter weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distill import experts
from distill.experts import ExpertBuffer, epochs_needed, estimate_seconds, train_experts
from distill.images.datasets import ImageDataset
from distill.images.preprocess import Preprocess, fit_preprocess
from distill.recipe import Recipe
from distill.run import Progress, Run
from distill.training.examples import Examples
from distill.training.flat import FlatNetwork, initial_weights

BuildTiny = Callable[..., Callable[[], nn.Module]]
MakeRun = Callable[..., Run]


@pytest.fixture
def preprocess(digits: ImageDataset) -> Preprocess:
    return fit_preprocess("standardize", digits.train.images)


def _all(trajectories: ExpertBuffer) -> torch.Tensor:
    return torch.stack(
        [
            trajectories.weights(i, epoch)
            for i in range(trajectories.num_experts)
            for epoch in range(trajectories.epochs + 1)
        ]
    )


def test_row_0_is_the_initialisation_and_only_needed_epochs_are_trained(
    digits: ImageDataset, preprocess: Preprocess, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    seen: list[Progress] = []
    trajectories = train_experts(digits, preprocess, tiny_network(), small_recipe, make_run(listener=seen.append))
    assert (trajectories.num_experts, trajectories.epochs) == (2, epochs_needed(small_recipe)) == (2, 2)
    assert torch.equal(trajectories.weights(1, 0), initial_weights(tiny_network(), 0, "expert", 1))
    rows = _all(trajectories)
    assert len(torch.unique(rows, dim=0)) == 6  # snapshots do not alias each other
    assert (seen[-1].done, seen[-1].total) == (4, 4)
    assert seen[1].values["expert_loss"] < seen[0].values["expert_loss"]
    assert trajectories.seconds() > 0
    assert trajectories.made_on() == [f"CPU, 1 threads, torch {torch.__version__}"]
    with pytest.raises(LookupError, match="no expert 0 at epoch 3"):
        trajectories.weights(0, 3)


def test_what_is_there_is_reused_and_extended_exactly(
    digits: ImageDataset, preprocess: Preprocess, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    further = dataclasses.replace(small_recipe, matching=dataclasses.replace(small_recipe.matching, max_start_epoch=3))
    train_experts(digits, preprocess, tiny_network(), small_recipe, make_run())
    seen: list[Progress] = []
    extended = train_experts(digits, preprocess, tiny_network(), further, make_run(listener=seen.append))
    assert len(seen) == 2  # one epoch more of each expert
    at_once = train_experts(digits, preprocess, tiny_network(), further, make_run(shared="elsewhere"))
    assert torch.equal(_all(extended), _all(at_once))
    seen.clear()
    train_experts(digits, preprocess, tiny_network(), small_recipe, make_run(listener=seen.append))
    assert seen == []


class _StoppedError(Exception):
    pass


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_an_interrupted_expert_goes_on_with_the_same_result(
    digits: ImageDataset,
    preprocess: Preprocess,
    tiny_network: BuildTiny,
    small_recipe: Recipe,
    make_run: MakeRun,
    storage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(experts, "SAVE_EVERY_S", 0.0)
    recipe = dataclasses.replace(small_recipe, experts=dataclasses.replace(small_recipe.experts, storage=storage))

    def stop(progress: Progress) -> None:
        if progress.done == 1:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        train_experts(digits, preprocess, tiny_network(), recipe, make_run(listener=stop))
    resumed = train_experts(digits, preprocess, tiny_network(), recipe, make_run())
    undisturbed = train_experts(digits, preprocess, tiny_network(), recipe, make_run(shared="elsewhere"))
    assert torch.equal(_all(resumed), _all(undisturbed))


def test_another_recipe_has_other_experts(
    digits: ImageDataset, preprocess: Preprocess, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    flat = FlatNetwork(tiny_network()())
    folders = set()
    for change in ({}, {"rho": 0.0}, {"seed": 1}, {"lr": 0.1}, {"storage": "bfloat16"}):
        recipe = dataclasses.replace(small_recipe, experts=dataclasses.replace(small_recipe.experts, **change))
        folders.add(experts.expert_folder(digits, preprocess, flat, recipe, make_run()))
    assert len(folders) == 5
    more = dataclasses.replace(small_recipe, experts=dataclasses.replace(small_recipe.experts, num_experts=7))
    assert experts.expert_folder(digits, preprocess, flat, more, make_run()) in folders


def test_gsam_experts_are_flatter_than_those_of_plain_sgd(
    digits: ImageDataset, preprocess: Preprocess, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    """The rise of the training loss at the worst point of a small ball, relative to the loss."""
    examples = Examples.from_split(digits.train, preprocess)
    images, labels = examples.take(torch.arange(len(examples)))
    rises = []
    for rho in (0.0, 0.1):
        recipe = dataclasses.replace(
            small_recipe,
            experts=dataclasses.replace(small_recipe.experts, num_experts=3, rho=rho, augment="none"),
            matching=dataclasses.replace(small_recipe.matching, max_start_epoch=15),
        )
        trajectories = train_experts(digits, preprocess, tiny_network(), recipe, make_run())
        flat = FlatNetwork(tiny_network()())
        total = 0.0
        for expert in range(3):
            weights = trajectories.weights(expert, trajectories.epochs).requires_grad_()
            loss = F.cross_entropy(flat(weights, images), labels)
            (gradient,) = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                worst = F.cross_entropy(flat(weights + 0.1 * gradient / gradient.norm(), images), labels)
            total += float((worst - loss.detach()) / loss.detach())
        rises.append(total / 3)
    assert rises[1] < rises[0]


def test_divergence_and_damage_are_said_clearly(
    digits: ImageDataset,
    preprocess: Preprocess,
    tiny_network: BuildTiny,
    small_recipe: Recipe,
    make_run: MakeRun,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wild = dataclasses.replace(small_recipe, experts=dataclasses.replace(small_recipe.experts, lr=1e30))
    with pytest.raises(FloatingPointError, match=r"expert 0 diverged in epoch 1: use a smaller experts\.lr"):
        train_experts(digits, preprocess, tiny_network(), wild, make_run())
    trajectories = train_experts(digits, preprocess, tiny_network(), small_recipe, make_run())
    sound = trajectories.digest()
    path = experts.expert_file(trajectories.folder, 1)
    path.write_bytes(path.read_bytes()[:100])
    again = train_experts(digits, preprocess, tiny_network(), small_recipe, make_run())
    assert again.digest() == sound
    assert "expert-001.safetensors is damaged: it is set aside as expert-001.safetensors.damaged" in caplog.text
    assert len(list(again.folder.glob("*.damaged"))) == 1


def test_the_estimate_is_zero_once_all_are_there(
    digits: ImageDataset, preprocess: Preprocess, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    assert estimate_seconds(digits, preprocess, tiny_network(), small_recipe, make_run()) > 0
    train_experts(digits, preprocess, tiny_network(), small_recipe, make_run())
    assert estimate_seconds(digits, preprocess, tiny_network(), small_recipe, make_run()) == 0
