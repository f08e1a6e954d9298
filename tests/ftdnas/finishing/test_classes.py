"""What a network makes of each class, and its files in int8."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.images.datasets import ImageDataset
from distill.recipe import TrainingRecipe
from ftdnas.candidates.onnx import OnnxNetwork
from ftdnas.cli.finish import describe
from ftdnas.finishing.card import Card, told
from ftdnas.finishing.classes import Mistake, by_class
from ftdnas.finishing.request import FinishRequest
from ftdnas.finishing.run import finish
from ftdnas.runtime.records import from_json

SMALL = "convnet:width=32,depth=1,norm=batch,activation=relu,pooling=avg"
RECIPE = TrainingRecipe(epochs=2, lr=0.05, batch_size=64, augment="none")


def test_classes_confusions_and_the_worst_photos_by_hand() -> None:
    shares = np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0, 0.95, 0.05]], dtype=np.float32)
    found = by_class(shares, np.array([0, 0, 1, 0]), ("cat", "dog", "emu"), ("a.jpg", "b.jpg", "c.jpg", "d.jpg"))
    assert (found.images, found.right) == ((3, 1, 0), (1, 1, 0))
    assert found.recalls() == [1 / 3, 1.0, None]
    assert found.confused == ((0, 1, 2),)
    assert found.matrix() == [[1, 2, 0], [0, 1, 0], [0, 0, 0]]
    first, second = found.worst
    assert first == Mistake("d.jpg", "cat", "dog", float(shares[3, 1]))
    assert second.photo == "b.jpg"
    assert by_class(shares, np.array([0, 0, 1, 0]), ("cat", "dog", "emu")).worst[0].photo == "test image 3"


def test_the_card_has_every_class_and_the_network_in_int8(digits: ImageDataset) -> None:
    data = replace(digits, train=digits.train.take(np.arange(300)), fingerprint="c" * 64)
    finished = finish(FinishRequest(architectures=(SMALL,), recipe=RECIPE, jobs=1), data=data)
    card = finished.card
    found = card.test.by_class
    assert found is not None
    assert found.images == tuple(np.bincount(data.test.labels).tolist())
    assert sum(found.right) == round(card.test.accuracy * card.test.images)
    assert from_json(Card, json.loads((finished.folder / "card.json").read_text())) == card
    text, lines = told(card), "\n".join(describe(finished))
    assert f"taken for {found.worst[0].said}" in text
    assert "| class | test images | right |" in text
    assert "hardest     " in lines
    many = replace(card, class_names=tuple(map(str, range(13))), num_classes=13)
    assert "Most often taken for another class: " in told(many)

    int8 = card.int8
    if int8 is None:
        assert any("no network.int8.onnx" in what for what in card.not_done)
        return
    pixels = (torch.from_numpy(data.test.images.copy()) / 255 - card.preprocess["mean"][0]) / card.preprocess[
        "deviation"
    ][0]
    scores = OnnxNetwork(finished.folder / int8.file)(pixels)
    right = (scores.argmax(1).numpy() == data.test.labels).mean()
    assert int8.test.accuracy == pytest.approx(right)
    assert not torch.equal(scores, OnnxNetwork(finished.folder / "network.onnx")(pixels))
    assert int8.calibrated_on == "256 training images"
    assert (finished.folder / int8.file).stat().st_size == int8.file_bytes < int8.float32_file_bytes
    assert math.isfinite(int8.latency_ms)
    assert "calibrated on 256 training images" in text
