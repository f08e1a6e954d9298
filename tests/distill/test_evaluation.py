"""Judging on digits: accuracies of sets and of real images, and the choices that must not see the test images."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distill import coresets
from distill.coresets import herding_rows, kmeans_rows, random_rows
from distill.evaluation import AGAINST, choose_rate, evaluate_against, evaluate_set
from distill.images.datasets import ImageDataset, Split
from distill.images.preprocess import fit_preprocess
from distill.methods import METHODS
from distill.recipe import Recipe, TrainingRecipe
from distill.run import Progress, Run
from distill.training.examples import Examples

BuildTiny = Callable[..., Callable[[], nn.Module]]
MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(make_run: MakeRun, experts_home: Path) -> MakeRun:
    return functools.partial(make_run, shared=str(experts_home))


def test_a_set_is_judged_over_seeds(
    digits: ImageDataset, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    synthetic = METHODS["random"](digits, tiny_network(), small_recipe, make_run())
    seen: list[Progress] = []
    train = TrainingRecipe(epochs=30)
    judged = evaluate_set(synthetic, digits, tiny_network(), "tiny", train, [0, 1, 2], make_run(listener=seen.append))
    assert len(set(judged.accuracies)) > 1
    assert 0.2 < judged.mean < 0.95
    assert judged.deviation == pytest.approx(float(np.std(judged.accuracies, ddof=1)))
    assert (judged.lr, judged.train_images, judged.network) == (synthetic.step_size, 20, "tiny")
    assert (seen[0].done, seen[-1].done, seen[-1].total) == (1, 90, 90)
    assert [progress.values["test_accuracy"] for progress in seen if "test_accuracy" in progress.values] == list(
        judged.accuracies
    )
    wild = evaluate_set(
        synthetic, digits, tiny_network(), "tiny", dataclasses.replace(train, lr=1e18), [0, 1], make_run()
    )
    assert "2 of 2 trainings diverged" in wild.note
    again = evaluate_set(synthetic, digits, tiny_network(), "tiny", train, [1], make_run())
    assert again.accuracies == judged.accuracies[1:2]
    assert math.isnan(again.deviation)


@pytest.mark.parametrize("kind", AGAINST)
def test_every_comparison_is_judged(
    digits: ImageDataset, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun, kind: str
) -> None:
    preprocess = fit_preprocess("standardize", digits.train.images)
    judged = evaluate_against(
        kind, digits, preprocess, tiny_network(), "tiny", tiny_network(), small_recipe, [0, 1], make_run()
    )
    assert len(judged.accuracies) == 2
    assert judged.mean > 0.2
    assert judged.train_images == (len(digits.train) if kind == "full" else 20)
    assert ("not tuned" if kind == "full" else "chosen on validation") in judged.note


def test_an_unknown_comparison_and_a_missing_rate_are_refused(
    digits: ImageDataset, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    preprocess = fit_preprocess("standardize", digits.train.images)
    network = tiny_network()
    with pytest.raises(LookupError, match="unknown comparison 'best': choose from random, herding, kmeans, full"):
        evaluate_against("best", digits, preprocess, network, "tiny", network, small_recipe, [0], make_run())
    evaluation = dataclasses.replace(small_recipe.evaluation, full=TrainingRecipe(epochs=1))
    recipe = dataclasses.replace(small_recipe, evaluation=evaluation)
    with pytest.raises(ValueError, match=r"evaluation\.full\.lr is not set"):
        evaluate_against("full", digits, preprocess, network, "tiny", network, recipe, [0], make_run())


def test_the_rate_is_chosen_by_held_out_images(
    digits: ImageDataset, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    preprocess = fit_preprocess("standardize", digits.train.images)
    train, held_out = (Examples.from_split(split, preprocess) for split in (digits.train, digits.choose()))
    recipe = dataclasses.replace(small_recipe.evaluation, subset_lrs=(1e-6, 0.05, 1e-5))
    chosen = choose_rate(train, held_out, tiny_network(), recipe, make_run())
    assert chosen.lr == 0.05
    assert chosen.accuracy is not None
    assert chosen.accuracy > 0.5
    assert "edge" in chosen.note
    unseen = choose_rate(train, None, tiny_network(), recipe, make_run())
    assert (unseen.lr, unseen.accuracy) == (1e-5, None)
    assert "no validation images" in unseen.note


def _split(counts: list[int]) -> Split:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Split(np.zeros((len(labels), 1, 4, 4), np.uint8), labels)


def test_random_rows_take_what_a_class_has_or_repeat_it() -> None:
    split = _split([10, 3])
    rows = random_rows(split, 5, seed=1)
    assert split.labels[rows.numpy()].tolist() == [0] * 5 + [1] * 3
    assert len(set(rows.tolist())) == 8
    repeated = random_rows(split, 5, seed=1, repeat=True)
    assert split.labels[repeated.numpy()].tolist() == [0] * 5 + [1] * 5
    assert set(repeated[5:].tolist()) == {10, 11, 12}
    assert rows.tolist() != random_rows(split, 5, seed=2).tolist()


def test_herding_follows_the_mean_better_than_chance() -> None:
    features = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    labels = np.repeat([0, 1], 30)
    rows = herding_rows(features, labels, 6).numpy()
    assert labels[rows].tolist() == [0] * 6 + [1] * 6
    assert len(set(rows.tolist())) == 12
    mean = features[:30].mean(axis=0)
    nearest = int(np.argmin(np.linalg.norm(features[:30] - mean, axis=1)))
    assert rows[0] == nearest
    draws = np.random.default_rng(1)
    chance = [np.linalg.norm(features[draws.permutation(30)[:6]].mean(0) - mean) for _ in range(200)]
    assert np.linalg.norm(features[rows[:6]].mean(axis=0) - mean) < np.quantile(chance, 0.05)


def test_kmeans_takes_one_image_of_every_cluster() -> None:
    draws = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]])
    features = np.concatenate([centre + draws.normal(size=(8, 2)) for centre in centres]).astype(np.float32)
    rows = kmeans_rows(features, np.zeros(24, np.int64), 3, seed=0).numpy()
    assert sorted(rows // 8) == [0, 1, 2]
    few = kmeans_rows(np.zeros((4, 2), np.float32), np.zeros(4, np.int64), 3, seed=0)
    assert len(set(few.tolist())) == 3


def test_features_need_a_linear_layer(digits: ImageDataset, small_recipe: Recipe, make_run: MakeRun) -> None:
    def headless() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    preprocess = fit_preprocess("standardize", digits.train.images)
    with pytest.raises(ValueError, match="no linear layer"):
        coresets.expert_features(digits, preprocess, headless, small_recipe, make_run())


def test_no_choice_ever_reads_the_test_images(
    digits: ImageDataset, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    """With test images that cannot be read, every method still makes its set."""
    blind = dataclasses.replace(digits, test=None)  # type: ignore[arg-type]
    for name, method in METHODS.items():
        made = method(blind, tiny_network(), small_recipe, make_run(name))
        assert torch.isfinite(made.images).all()
