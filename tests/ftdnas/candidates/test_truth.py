"""The pool of real trainings: one file per data, whoever asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill.images.datasets import ImageDataset
from distill.recipe import EvaluationRecipe
from ftdnas.candidates.training import Score, Training
from ftdnas.candidates.truth import truth_materials, truth_recipe, truth_rows

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
