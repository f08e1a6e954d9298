"""Balanced accuracy: every class counts the same, wherever accuracy decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.images.datasets import ImageDataset, Split
from distill.recipe import TrainingRecipe
from distill.training.loop import Reading, balanced
from ftdnas.candidates.reading import right_of
from ftdnas.candidates.truth import RealTrainings, find_truth, known_truth, remember, train, truth_materials, truth_rows
from ftdnas.candidates.truth_table import Columns
from ftdnas.finishing.card import Accuracy
from ftdnas.finishing.request import FinishRequest
from ftdnas.finishing.run import finish
from ftdnas.ranking.study import ranked_study
from ftdnas.sets.images import Source

SMALL = "convnet:width=32,depth=1,norm=batch,activation=relu,pooling=avg"
RECIPE = TrainingRecipe(epochs=2, lr=0.05, batch_size=64, augment="none")


@pytest.fixture
def uneven(digits: ImageDataset) -> ImageDataset:
    """Digits of which few but the zeros and ones are left, counted by class."""

    def thinned(split: Split, step: int) -> Split:
        rows = np.flatnonzero((split.labels < 2) | (np.arange(len(split)) % step == 0))
        return split.take(rows)

    return replace(
        digits,
        train=thinned(digits.train, 3),
        validation=thinned(digits.validation, 2),
        test=thinned(digits.test, 2),
        fingerprint="b" * 64,
        metric="balanced",
    )


def recall(right: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def test_it_is_the_mean_of_the_classes_recalls() -> None:
    right = np.array([True, True, True, False, False, True])
    reading = Reading(1.0, 4 / 6, 0.5, np.packbits(right).tobytes())
    assert balanced(reading, torch.tensor([0, 0, 0, 0, 2, 2])).accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert balanced(reading, torch.eye(3)[[0, 0, 0, 0, 2, 2]]).accuracy == pytest.approx(0.625)
    labels = np.repeat([0, 1], [90, 10])
    assert Accuracy.counted(0.8, labels, "accuracy") == Accuracy.of(0.8, 100)
    low, high = Accuracy.counted(0.8, labels, "balanced").interval
    assert (low, high) == Accuracy.of(0.8, 36).interval  # 2 * 2 / (1 / 90 + 1 / 10)


def test_a_truth_is_counted_by_class_and_never_mixed(uneven: ImageDataset, keep_ranking: Callable[..., Path]) -> None:
    plain = replace(uneven, metric="accuracy")
    trainings = RealTrainings.of(uneven, RECIPE, 1)
    assert trainings.title.startswith("balanced accuracy after 2 epochs")
    truth = train(uneven, [SMALL], trainings, jobs=1, device="cpu")
    (row,) = truth_rows(uneven.fingerprint).read().values()
    right = right_of(row)
    assert right is not None
    assert row["score"] == pytest.approx(recall(right, uneven.score().labels))
    assert row["score"] != pytest.approx(right.mean())
    assert truth.accuracy(SMALL) == row["score"]
    assert row["scored_on"]["metric"] == "balanced"
    assert RealTrainings.of(plain, RECIPE, 1).truth([SMALL]).accuracy(SMALL) is None
    assert truth_materials(plain)[1].label.fingerprint != truth_materials(uneven)[1].label.fingerprint

    remember("uneven", trainings)
    with pytest.raises(ValueError, match="there is a truth uneven by other trainings"):
        remember("uneven", RealTrainings.of(plain, RECIPE, 1))
    assert find_truth("uneven", "convnet", uneven, [SMALL], Columns()).accuracy(SMALL) == row["score"]
    with pytest.raises(ValueError, match="truth uneven is counted by balanced, this study by accuracy"):
        find_truth("uneven", "convnet", plain, [SMALL], Columns())
    assert known_truth(uneven.fingerprint, [SMALL]) is None
    assert known_truth(uneven.fingerprint, [SMALL], "balanced") is not None

    for name, metric in (("counted", {"metric": "balanced"}), ("plain", {})):
        keep_ranking(name, {SMALL: 1.0}, "late loss", data=uneven.fingerprint, source={"spec": "digits", **metric})
    found = ranked_study("counted")[1].truth()
    assert found is not None
    assert (found[0], found[1].accuracy(SMALL)) == ("uneven", row["score"])
    assert ranked_study("plain")[1].truth() is None


def test_a_finish_is_counted_by_class(uneven: ImageDataset) -> None:
    card = finish(FinishRequest(architectures=(SMALL,), recipe=RECIPE, no_onnx=True, jobs=1), data=uneven).card
    found = card.test.by_class
    assert found is not None
    recalls = [value for value in found.recalls() if value is not None]
    assert card.test.accuracy == pytest.approx(sum(recalls) / len(recalls))
    assert card.test.accuracy != pytest.approx(sum(found.right) / sum(found.images))
    assert "every class counted the same" in str(card.test)
    assert card.validation.metric == "balanced"


def test_a_source_remembers_it_and_older_ones_have_none() -> None:
    source = Source("digits", metric="balanced")
    assert Source.from_json(source.to_json()) == source
    assert "metric" not in Source("digits").to_json()
    assert source.load().metric == "balanced"
    assert FinishRequest(architectures=(SMALL,), dataset="digits", metric="balanced").source.metric == "balanced"
