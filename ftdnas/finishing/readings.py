"""The test images, read once for each network that was chosen, and a record of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import nn

from distill.images.datasets import ImageDataset
from distill.training.examples import Examples
from distill.training.loop import probabilities
from ftdnas.finishing.card import Accuracy
from ftdnas.finishing.classes import by_class
from ftdnas.runtime.records import from_json, to_json
from ftdnas.runtime.rows import RowFile

FILE = "test_readings.jsonl"


def read_once(
    key: str,
    architecture: str,
    network: Callable[[], nn.Module],
    examples: Callable[[], Examples],
    data: ImageDataset,
    base: Path,
) -> Accuracy:
    """Accuracy on the test images of `data`, read once for the weights of that `key`, whoever asks again."""
    readings = RowFile(base / FILE)
    known = readings.read().get(key)
    if known is not None:
        return cast(Accuracy, from_json(Accuracy, known))
    labels = data.test.labels
    found = by_class(probabilities(network(), examples()), labels, data.class_names, data.test_files)
    accuracy = Accuracy.counted(found.accuracy(data.metric), labels, data.metric)
    accuracy = replace(accuracy, by_class=found)
    readings.append({"key": key, "architecture": architecture, "data": data.fingerprint, **to_json(accuracy)})
    return accuracy
