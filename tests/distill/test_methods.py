"""What every method of the registry promises, and what tells them apart."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distill.experts import train_experts
from distill.images.datasets import ImageDataset, Split
from distill.methods import METHODS, fitted_preprocess, initial_images
from distill.recipe import Recipe, identity
from distill.run import Run
from distill.synthetic import SyntheticSet
from distill.teachers import Teachers

BuildTiny = Callable[..., Callable[[], nn.Module]]
MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(make_run: MakeRun, experts_home: Path) -> MakeRun:
    return functools.partial(make_run, shared=str(experts_home))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_a_whole_set_with_its_provenance_and_the_seed_decides_which(
    digits: ImageDataset, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun, name: str, tmp_path: Path
) -> None:
    runs = [make_run(f"run {number}", seed=seed) for number, seed in enumerate((0, 0, 1))]
    made, again, other = (METHODS[name](digits, tiny_network(), small_recipe, run) for run in runs)
    assert made.equal(again)
    assert torch.equal(made.images, other.images) == (name == "herding")
    assert made.images.shape == (20, 1, 8, 8)
    assert made.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert made.ipc == 2
    assert made.step_size > 0
    provenance = made.provenance
    assert provenance["method"] == name
    assert provenance["data_fingerprint"] == digits.fingerprint
    assert provenance["recipe"]["matching"]["syn_steps"] == 4
    assert provenance["seed"] == 0
    assert provenance["versions"]["torch"] == torch.__version__
    assert 0 < provenance["validation_accuracy"] <= 1
    assert all(seconds >= 0 for seconds in provenance["seconds"].values())
    made.save(tmp_path / "made.safetensors")
    assert SyntheticSet.load(tmp_path / "made.safetensors").equal(made)


def test_ftd_and_mtt_differ_by_their_experts_alone(
    digits: ImageDataset, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    ftd, mtt = (METHODS[name](digits, tiny_network(), small_recipe, make_run(name)) for name in ("ftd", "mtt"))
    assert mtt.provenance["recipe"]["experts"]["rho"] == 0
    assert len(ftd.provenance["losses"]) == len(mtt.provenance["losses"]) == 12
    assert ftd.provenance["losses"] != mtt.provenance["losses"]
    plain = dataclasses.replace(small_recipe, experts=dataclasses.replace(small_recipe.experts, rho=0.0, alpha=0.0))
    assert METHODS["ftd"](digits, tiny_network(), plain, make_run("plain")).equal(mtt)


def test_the_start_is_real_and_a_rare_class_starts_from_what_it_has(
    digits: ImageDataset, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    kept = np.flatnonzero((digits.train.labels != 3) | (np.cumsum(digits.train.labels == 3) <= 6))
    rare = dataclasses.replace(digits, train=digits.train.take(kept))
    recipe = dataclasses.replace(small_recipe, ipc=10)
    run = make_run()
    preprocess = fitted_preprocess(rare, recipe, run)
    images, labels = initial_images(rare, preprocess, recipe, run)
    assert torch.bincount(labels).tolist() == [10] * 10
    real = {image.numpy().tobytes() for image in preprocess.apply(rare.train.images)}
    assert all(image.numpy().tobytes() in real for image in images)
    assert len(torch.unique(images[labels == 3], dim=0)) == 6
    subset = METHODS["random"](rare, tiny_network(), recipe, run)
    assert len(subset.images) == 96
    assert "fewer than 10 training images: 3 6" in subset.provenance["notes"]


def test_a_start_elsewhere_than_at_photos(digits: ImageDataset, small_recipe: Recipe, make_run: MakeRun) -> None:
    run = make_run("start")
    preprocess = fitted_preprocess(digits, small_recipe, run)

    def start(init: str) -> tuple[torch.Tensor, torch.Tensor]:
        matching = dataclasses.replace(small_recipe.matching, init=init)
        return initial_images(digits, preprocess, dataclasses.replace(small_recipe, matching=matching), run)

    photos, labels = start("photos")
    noise, of_noise = start("noise")
    means, of_means = start("mean")
    assert torch.equal(labels, of_noise)
    assert torch.equal(labels, of_means)
    assert torch.equal(noise, start("noise")[0])
    assert float(noise.mean()) == pytest.approx(float(photos.mean()), abs=0.1)
    assert float(noise.std()) == pytest.approx(float(photos.std()), rel=0.1)
    real = preprocess.apply(digits.train.images)
    for label in range(10):
        mean = real[torch.from_numpy(digits.train.labels == label)].mean(0)
        first, second = means[labels == label]
        assert not torch.equal(first, second)  # the same images would stay the same without augmentation
        assert float((first - mean).std()) == pytest.approx(0.1 * float(photos.std()), rel=0.3)
    assert identity(small_recipe)["matching"].keys() == dataclasses.asdict(small_recipe)["matching"].keys() - {
        "init",
        "precision",
    }  # digests of runs that were begun before there was a choice stay


def test_without_validation_a_set_says_so(
    digits: ImageDataset, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    nothing = Split(digits.train.images[:0], digits.train.labels[:0])
    papers = dataclasses.replace(digits, validation=nothing)
    made = METHODS["ftd"](papers, tiny_network(), small_recipe, make_run())
    assert made.provenance["validation_accuracy"] is None
    assert made.provenance["published"] == "averaged"


def test_someone_elses_method_is_one_function(
    digits: ImageDataset, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    def soft_means(data: ImageDataset, network: Callable[[], nn.Module], recipe: Recipe, run: Run) -> SyntheticSet:
        base = METHODS["random"](data, network, recipe, run)
        labels = torch.full((len(base.labels), 10), 0.01)
        labels[torch.arange(len(labels)), base.labels] = 0.91
        return dataclasses.replace(base, labels=labels)

    made = soft_means(digits, tiny_network(), small_recipe, make_run())
    assert not made.hard_labels


@pytest.mark.parametrize("method", ["ftd", "random"])
def test_a_set_keeps_its_teachers(
    method: str, digits: ImageDataset, tiny_network: BuildTiny, small_recipe: Recipe, make_run: MakeRun
) -> None:
    recipe = dataclasses.replace(small_recipe, teachers=1)
    run = make_run(method)
    made = METHODS[method](digits, tiny_network(), recipe, run)
    assert made.teachers is not None
    experts = train_experts(digits, made.preprocess, tiny_network(), recipe, run)
    assert torch.equal(made.teachers, experts.weights(0, experts.epochs)[None])
    made_by = experts if method == "ftd" else dataclasses.replace(experts, num_experts=1)
    assert made.provenance["experts"] == made_by.digest()
    labels = Teachers(tiny_network(), made.teachers)(made.images)
    assert torch.allclose(labels.sum(1), torch.ones(len(labels)))
    assert labels.std() > 0.01
    assert made.provenance["seconds"]["experts"] > 0
    with pytest.raises(ValueError, match="are no networks of"):
        Teachers(tiny_network(), made.teachers[:, 1:])(made.images)
