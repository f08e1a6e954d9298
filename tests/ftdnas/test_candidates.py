"""One training is one row: equal wherever it runs, keyed by all it depends on, None with a reason where it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.datasets import ImageDataset, Split
from distill.examples import Examples
from distill.recipe import TrainingRecipe
from distill.synthetic import SyntheticSet
from ftdnas.candidates import (
    CostModel,
    Score,
    TimedStep,
    Training,
    fit_cost,
    images_seen,
    known_scores,
    late_loss,
    train_candidates,
)
from ftdnas.executors import LocalProcesses
from ftdnas.materials import Label, Material, Shelf, hand_over, held_out_material, random_material, set_material
from ftdnas.rows import RowFile

SetOf = Callable[..., SyntheticSet]

RECIPE = TrainingRecipe(epochs=12, lr=0.02)
NAME = "convnet:width=32,depth=1,norm=instance,activation=relu,pooling=avg"


@pytest.fixture(scope="module")
def synthetic(digits: ImageDataset, set_of: SetOf) -> SyntheticSet:
    return set_of(digits, backbone=NAME)


@pytest.fixture(scope="module")
def shelf(digits: ImageDataset, synthetic: SyntheticSet) -> Shelf:
    materials = [set_material(synthetic, "tiny"), held_out_material(digits, synthetic.preprocess)]
    return {material.label.fingerprint: material for material in materials}


@pytest.fixture(scope="module")
def training(shelf: Shelf) -> Training:
    learned, held_out = shelf.values()
    return Training(NAME, learned.label, held_out.label, RECIPE, seed=0)


def test_a_training_learns_and_gives_the_same_row_again(training: Training, shelf: Shelf) -> None:
    first, second = training(shelf), training(shelf)
    assert first.score is not None
    assert first.score > 0.3  # chance is 0.1
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)
    assert first.late_loss is not None
    assert len(first.losses) == 10
    assert first.losses[0] is not None
    assert first.late_loss < first.losses[0]


def test_a_row_survives_json(training: Training, shelf: Shelf) -> None:
    score = training(shelf)
    row = json.loads(json.dumps(score.to_row(), allow_nan=False))
    assert Score.from_row(row) == score
    assert Score.from_row({**row, "of a later version": 1}) == score


def test_the_key_depends_on_everything_that_the_score_depends_on(training: Training) -> None:
    other = Label("other", "other", 30, 10)
    changed = [
        replace(training, architecture=NAME.replace("relu", "sigmoid")),
        replace(training, trained_on=other),
        replace(training, scored_on=other),
        replace(training, recipe=replace(RECIPE, epochs=13)),
        replace(training, recipe=replace(RECIPE, lr=0.021)),
        replace(training, seed=1),
    ]
    keys = {training.key, *(one.key for one in changed)}
    assert len(keys) == 1 + len(changed)
    renamed = replace(training, trained_on=replace(training.trained_on, name="another name of the same images"))
    assert renamed.key == training.key


def test_a_training_that_diverges_has_no_score_but_a_reason(training: Training, shelf: Shelf) -> None:
    name = NAME.replace("norm=instance", "norm=none")
    wild = replace(training, architecture=name, recipe=replace(RECIPE, lr=1e30))
    score = wild(shelf)
    assert score.score is None
    assert score.late_loss is None
    assert score.error is not None
    assert "not finite" in score.error
    json.dumps(score.to_row(), allow_nan=False)


def test_processes_give_the_rows_that_this_process_gives(training: Training, shelf: Shelf, tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    infeasible = replace(
        training, architecture=NAME.replace("depth=1", "depth=4")
    )  # 8 pixels cannot be halved so often
    reported: list[Score] = []

    def lay_out() -> partial[Shelf]:
        return hand_over(list(shelf.values()), tmp_path / "materials", "cpu")  # type: ignore[return-value]

    with LocalProcesses(lay_out, 2) as processes:
        scores = train_candidates([(training, file), (infeasible, file)], processes, reported.append)
    here = training(shelf)
    assert replace(scores[training.key], seconds=0.0) == replace(here, seconds=0.0)
    failed = scores[infeasible.key]
    assert failed.score is None
    assert failed.error is not None
    assert failed.error.startswith("ValueError: convnet:")
    assert {score.key for score in reported} == set(scores)
    assert known_scores([training, infeasible], file) == scores


def test_a_crash_is_tried_again_and_a_divergence_is_not(training: Training, tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.jsonl")
    other = replace(training, seed=1)
    crashed = Score(training.key, NAME, training.trained_on, training.scored_on, RECIPE, 0, error="died", crashed=True)
    file.append(crashed.to_row())
    file.append(replace(crashed, key=other.key, seed=1, error="not finite", crashed=False).to_row())
    assert list(known_scores([training, other], file)) == [other.key]


def test_materials_reach_another_process_as_they_are(
    digits: ImageDataset, synthetic: SyntheticSet, tmp_path: Path
) -> None:
    pixels = digits.train.take(np.arange(100, 140))
    assert isinstance(pixels.images, np.memmap)
    copied = Split(np.array(pixels.images), pixels.labels)
    label = Label("real", "a", 40, 10)
    mapped = Material(label, Examples(pixels.images, torch.from_numpy(np.array(pixels.labels)), synthetic.preprocess))
    held = Material(replace(label, fingerprint="b"), Examples.from_split(copied, synthetic.preprocess))
    found = hand_over([mapped, held], tmp_path / "materials", "cpu")()
    rows = torch.tensor([39, 0, 7])
    for material in (mapped, held):
        for expected, got in zip(
            material.examples.take(rows), found[material.label.fingerprint].examples.take(rows), strict=True
        ):
            assert torch.equal(expected, got)
    # The decoded images were not copied, those in memory were.
    assert sorted(path.name for path in (tmp_path / "materials").iterdir()) == ["0.labels", "1.images", "1.labels"]


def test_a_random_subset_has_the_sets_labels_and_no_image_that_scores(
    digits: ImageDataset, synthetic: SyntheticSet
) -> None:
    first, again, second, other = (
        random_material(digits, synthetic, seed, draw) for seed, draw in [(0, 0), (0, 0), (0, 1), (1, 0)]
    )
    assert torch.equal(first.examples.labels.sort().values, synthetic.labels.sort().values)
    assert first.label == again.label
    assert len({first.label.fingerprint, second.label.fingerprint, other.label.fingerprint}) == 3
    images = first.examples.images
    assert isinstance(images, torch.Tensor)
    train = synthetic.preprocess.apply(digits.train.images).flatten(1)
    assert all((train == image.flatten()).all(1).any() for image in images)


def test_no_validation_images_no_score(digits: ImageDataset, synthetic: SyntheticSet) -> None:
    everything = replace(digits, validation=digits.validation.take(np.arange(0)))
    with pytest.raises(ValueError, match="not scored on test images"):
        held_out_material(everything, synthetic.preprocess)


def test_late_loss_is_the_mean_of_the_last_tenth() -> None:
    assert late_loss([5.0] * 18 + [1.0, 2.0]) == 1.5
    assert late_loss([3.0, 2.0, 1.0]) == 1.0


def test_the_cost_model_finds_the_cost_it_was_made_with(shelf: Shelf, training: Training) -> None:
    true = CostModel(0.1, 2e-5, 3e-11)
    counts = [10**4, 10**6, 10**7, 10**9]
    model = fit_cost([(count, true.seconds(count, 1) - true.fixed) for count in counts])
    for count in counts:
        assert model.seconds(count, 100) == pytest.approx(true.seconds(count, 100), rel=1e-6)
    # A cost that falls with the FLOPs is noise: nothing may become negative.
    noisy = fit_cost([(10**4, 2e-5), (10**9, 1e-5)])
    assert noisy.flop >= 0
    assert noisy.image > 0
    assert images_seen(training) == 30 * 12 + training.scored_on.images / 3
    assert 0 < TimedStep(NAME, training.trained_on.fingerprint, 10**5, RECIPE)(shelf) < 1
