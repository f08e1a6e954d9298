"""The pool of real trainings: one file per data, whoever asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill.images.datasets import ImageDataset
from distill.recipe import EvaluationRecipe
from ftdnas.candidates.reading import right_of
from ftdnas.candidates.training import Score, Training
from ftdnas.candidates.truth import RealTrainings, known_truth, remember, truth_materials, truth_recipe, truth_rows
from ftdnas.runtime.processes import Failure

OTHER = "convnet:width=64,depth=1,norm=instance,activation=relu,pooling=avg"
NAME = "convnet:width=32,depth=1,norm=instance,activation=relu,pooling=avg"


def test_a_real_training_is_kept_for_whoever_asks_for_the_same(
    digits: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTDNAS_HOME", str(tmp_path))
    train, held_out = truth_materials(digits)
    shelf = {material.label.fingerprint: material for material in (train, held_out)}
    recipe = truth_recipe(EvaluationRecipe().full, 1)
    training = Training(NAME, train.label, held_out.label, recipe, seed=0)
    row = training(shelf)
    assert row["score"] > 0.15  # one epoch; chance is 0.1
    right = right_of(row)
    assert right is not None
    assert (len(right), right.mean()) == (len(digits.score()), row["score"])
    truth_rows(digits.fingerprint).append(row)

    assert truth_rows("another fingerprint").read() == {}
    rows = truth_rows(digits.fingerprint).read()
    assert Score.from_row(rows[training.key]).to_row() == row
    assert rows[training.key] == row
    assert replace(training, seed=1).key not in rows
    assert replace(training, recipe=replace(recipe, epochs=2)).key not in rows


def test_truth_is_standardised_and_reads_no_test_image(digits: ImageDataset) -> None:
    train, held_out = truth_materials(digits)
    images = train.examples.images
    assert isinstance(images, torch.Tensor)
    assert train.label.images == len(digits.train)
    assert images.mean().abs() < 1e-4
    assert (images.std() - 1).abs() < 1e-2
    assert held_out.label.images == len(digits.score())
    assert torch.equal(held_out.examples.labels, torch.tensor(digits.score().labels.copy()))


def test_truth_needs_epochs_and_a_rate() -> None:
    full = EvaluationRecipe().full
    assert truth_recipe(full, 7) == replace(full, epochs=7)
    with pytest.raises(ValueError, match="0 epochs"):
        truth_recipe(full, 0)
    with pytest.raises(ValueError, match="no learning rate"):
        truth_recipe(replace(full, lr=None), 5)


def keep(digits: ImageDataset, epochs: int, accuracies: dict[str, list[float]], name: str | None = None) -> None:
    """Trainings of these accuracies, seed by seed, as the pool has them; `name`: of a truth of one seed."""
    trainings = RealTrainings.of(digits, truth_recipe(EvaluationRecipe().full, epochs), 1)
    for seeds in range(1, 1 + max(map(len, accuracies.values()))):
        works = replace(trainings, seeds=seeds).works(
            digits, [one for one in accuracies if len(accuracies[one]) >= seeds]
        )
        for (architecture, seed), work in works.items():
            failed = work.failed(Failure("", False, 1.0))
            truth_rows(digits.fingerprint).append({**failed, "error": None, "score": accuracies[architecture][seed]})
    if name:
        remember(name, trainings)


def test_of_several_truths_the_longest_counts_and_further_seeds_with_it(digits: ImageDataset) -> None:
    names = [NAME, OTHER]
    assert known_truth(digits.fingerprint, names) is None
    keep(digits, 3, {NAME: [0.8], OTHER: [0.9]}, "short")
    keep(digits, 9, {NAME: [0.95]})  # of another recipe, and nobody's truth
    found = known_truth(digits.fingerprint, names)
    assert found is not None
    assert (found[0], found[1].first(names)) == ("short", [OTHER, NAME])
    keep(digits, 5, {NAME: [0.9], OTHER: [0.85, 0.99]}, "long")
    found = known_truth(digits.fingerprint, names)
    assert found is not None
    name, truth = found
    assert (name, truth.accuracy(OTHER)) == ("long", 0.85)
    assert truth.readings[OTHER].accuracies == (0.85, 0.99)
    assert truth.first(["convnet:unknown", NAME, OTHER]) == [OTHER, NAME, "convnet:unknown"]
    assert known_truth("other images", names) is None


def test_a_truth_that_was_only_begun_does_not_take_the_place_of_a_whole_one(digits: ImageDataset) -> None:
    names = [NAME.replace("depth=1", f"depth={depth}") for depth in (1, 2, 3)]
    keep(digits, 3, {name: [0.8] for name in names}, "whole")
    keep(digits, 9, {names[0]: [0.95]}, "begun")
    found = known_truth(digits.fingerprint, names)
    assert found is not None
    assert found[0] == "whole"
