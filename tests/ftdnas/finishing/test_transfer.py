"""A linear layer on features, what it says of images that it did not learn from, and the folds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distill.images.datasets import Split
from distill.randomness import generator
from ftdnas.finishing import folds as folds_module
from ftdnas.finishing import transfer
from ftdnas.finishing.code import plain_code
from ftdnas.finishing.folds import dealt, inside, taught_labels
from ftdnas.finishing.lite import EfficientNetLite, SamePadded
from ftdnas.finishing.transfer import fit_transfer


def features(noise: float) -> tuple[torch.Tensor, NDArray[np.int64]]:
    labels = np.arange(120) % 3
    centres = torch.eye(3, 20)[torch.from_numpy(labels)]
    return centres + noise * torch.randn(120, 20, generator=generator(0, "features")), labels


def test_damaged_features_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def compute(network: object, part: Split) -> torch.Tensor:  # noqa: ARG001
        computed.append(len(part))
        return torch.ones(len(part), 3)

    monkeypatch.setattr(transfer, "_features", compute)
    split = Split(np.zeros((5, 1, 2, 2), np.uint8), np.zeros(5, np.int64))
    network: Any = SimpleNamespace(pixels=2)
    for _ in range(2):
        assert transfer.features(network, split, tmp_path, lambda done: None).shape == (5, 3)  # noqa: ARG005
    assert computed == [5]
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-1])
    assert transfer.features(network, split, tmp_path, lambda done: None).shape == (5, 3)  # noqa: ARG005
    assert computed == [5, 5]


def test_classes_that_lie_apart_are_told_apart() -> None:
    found, labels = features(0.1)
    fitted = fit_transfer(found, labels, dealt(labels, 4), 3)
    assert fitted.accuracy == 1
    assert ((found @ fitted.weights.T + fitted.bias).argmax(1).numpy() == labels).all()
    assert torch.allclose(fitted.labels.sum(1), torch.ones(120))


def test_two_classes_have_the_chances_of_one_score() -> None:
    found, labels = features(1.0)
    labels = labels % 2
    fitted = fit_transfer(found, labels, dealt(labels, 4), 2)
    sure = (found @ fitted.weights.T + fitted.bias).softmax(1)[:, 1]
    score = (found @ fitted.weights.T + fitted.bias)[:, 1] * 2
    assert torch.allclose(sure, score.sigmoid(), atol=1e-5)


def test_labels_are_of_layers_that_did_not_see_the_image() -> None:
    """Of pure noise a layer says all of what it saw and nothing of the rest."""
    found, labels = features(0.0)
    found = torch.randn(found.shape[0], 200, generator=generator(1, "noise"))
    fitted = fit_transfer(found, labels, dealt(labels, 4), 3)
    seen = float(((found @ fitted.weights.T + fitted.bias).argmax(1).numpy() == labels).mean())
    assert seen > 0.9
    assert fitted.accuracy < 0.55


def test_every_class_counts_the_same_where_it_is_asked_for() -> None:
    found, labels = features(0.1)
    labels = np.where(np.arange(120) % 12 == 0, 2, np.where(labels == 2, 0, labels))  # ten of the last class
    usual = fit_transfer(torch.zeros_like(found), labels, dealt(labels, 4), 3)
    balanced = fit_transfer(torch.zeros_like(found), labels, dealt(labels, 4), 3, "balanced")
    assert usual.accuracy > 0.5  # the largest class is always said
    assert balanced.accuracy == pytest.approx(1 / 3)


def test_a_class_without_images_is_never_said() -> None:
    found, labels = features(0.1)
    fitted = fit_transfer(found, labels, dealt(labels, 4), 5)
    assert float(fitted.labels[:, 3:].max()) == 0


def test_every_image_lies_in_one_fold_with_its_share_of_classes() -> None:
    labels = np.repeat([0, 1, 2], [40, 8, 12])
    folds = dealt(labels, 4)
    assert sorted(np.concatenate(folds)) == list(range(60))
    assert [np.bincount(labels[fold]).tolist() for fold in folds] == [[10, 2, 3]] * 4
    alike = np.arange(60) // 3 * 3  # three near-duplicates each
    apart = dealt(labels, 4, alike)
    assert sorted(np.concatenate(apart)) == list(range(60))
    assert sum(len(np.unique(alike[fold])) for fold in apart) == 20  # no group lies in two folds
    assert folds_module._teach_every_class(folds, labels)
    one_kind = dealt(labels, 4, np.where(labels == 1, 40, np.arange(60)))  # all of a class are alike
    assert not folds_module._teach_every_class(one_kind, labels)
    rows = np.array([3, 5, 9])
    assert [part.tolist() for part in inside([np.array([5]), np.array([3, 9])], rows)] == [[1], [0, 2]]
    assert taught_labels(torch.ones(3, 2), rows, 10).sum(1).nonzero().flatten().tolist() == [3, 5, 9]


def test_padding_is_that_of_tensorflow() -> None:
    """Of an even side with stride 2, a kernel of 3 looks one pixel beyond on the right and below, none on the left."""
    conv = SamePadded(1, 1, 3, 2, 1)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        out = conv(torch.ones(1, 1, 4, 4))
    assert out.tolist() == [[[[9.0, 6.0], [6.0, 4.0]]]]


def test_the_network_can_be_written_down() -> None:
    with torch.random.fork_rng(devices=[]):
        network = EfficientNetLite(4).eval()
    assert (
        sum(weights.numel() for weights in network.parameters()) == 4_652_008 - 1281 * 996
    )  # 4.65 million for 1,000 classes
    assert "class" in plain_code(network, "lite", (3, 32, 32), 4)
