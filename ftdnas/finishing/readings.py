"""The test images, read once for each network that was chosen, and a record of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from distill.images.datasets import ImageDataset
from ftdnas.finishing.card import Accuracy
from ftdnas.finishing.classes import by_class
from ftdnas.runtime.records import from_json, to_json
from ftdnas.runtime.rows import RowFile

FILE = "test_readings.jsonl"


def read_once(
    key: str, architecture: str, shares: Callable[[], NDArray[np.float32]], data: ImageDataset, base: Path
) -> Accuracy:
    """Accuracy on the test images of `data`, read once for the weights of that `key`, whoever asks again.

    `shares`: reads them: the probabilities (N, K).
    """
    readings = RowFile(base / FILE)
    known = readings.read().get(key)
    if known is not None:
        return cast(Accuracy, from_json(Accuracy, known))
    labels = data.test.labels
    found = by_class(shares(), labels, data.class_names, data.test_files)
    accuracy = Accuracy.counted(found.accuracy(data.metric), labels, data.metric)
    accuracy = replace(accuracy, by_class=found)
    readings.append({"key": key, "architecture": architecture, "data": data.fingerprint, **to_json(accuracy)})
    return accuracy
