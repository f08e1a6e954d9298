"""The stage of a whole search that tries pretrained weights: as a rival, and as a teacher of the finalists."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.files import digest
from distill.images.datasets import Split
from distill.run import Listener, Progress, duration
from ftdnas.finishing.folds import Pool, inside, taught_labels
from ftdnas.finishing.pretrained import Adapted, Pretrained, adapted
from ftdnas.finishing.transfer import SIDES, Transfer, features, fit_transfer, seconds_an_image
from ftdnas.finishing.winner import PretrainedRival
from ftdnas.interface.ledger import Ledger
from ftdnas.sets.images import Source

STAGE = "pretrained"


@dataclass(frozen=True, eq=False)
class Teacher:
    """A pretrained network whose last layer was fitted, and what it says of the images.

    `labels`: float32 (N, K) of the whole pool, None where the time was too short to read all of it. `labels_apart`: the
    same by layers that saw nothing of what finalists are read on. `each_s`: what reading an image takes.
    """

    weights: Pretrained
    network: Adapted
    pool: Pool
    transfer: Transfer
    labels: Tensor | None
    labels_apart: Tensor | None
    each_s: float

    @property
    def name(self) -> str:
        """Of what its labels depend on."""
        return digest([self.weights.digest, self.network.pixels, self.pool.data.fingerprint], 12)

    def rival(self) -> PretrainedRival:
        """As a network that stands beside the winner."""
        network = self.network
        with torch.no_grad():
            network.head.weight.copy_(self.transfer.weights)
            network.head.bias.copy_(self.transfer.bias)
        count = len(self.transfer.labels)
        return PretrainedRival(self.weights, network, self.pool.data, self.transfer.accuracy, count)


def prepared_teacher(
    weights: Pretrained,
    pool: Pool,
    source: Source,
    time_s: float,
    ledger: Ledger,
    folder: Path,
    device: str,
    listener: Listener,
) -> Teacher:
    """Read the images within `time_s`, test images counted in, and fit the last layer; what was read is not read again.

    `source`: of the pool's images, for pretrained networks like them larger.
    """
    data = pool.data
    large = Pool(replace(source, image_size=data.target_size).load(listener)) if data.target_size else pool
    with torch.random.fork_rng(devices=[]):
        network = adapted(weights, data.num_classes).eval().to(device)
    chosen = ledger.chosen(STAGE, lambda: _size(network, large.split, len(data.test), data.num_classes, time_s))
    network.pixels, count = chosen["pixels"], chosen["images"]
    if ledger.known(STAGE) is None:
        took = duration(count * chosen["each_s"])
        told = f"{weights.network} reads {count:,} images at {network.pixels} pixels, about {took}"
        listener(Progress(STAGE, 0, count, message=f"{STAGE}: {told}"))
    share = min(1.0, count / len(large.split))  # of every class as many: rows lie class by class
    folds = [fold[np.linspace(0, len(fold) - 1, math.ceil(len(fold) * share)).astype(int)] for fold in pool.folds]
    rows = np.sort(np.concatenate(folds))
    progressed = lambda done: listener(Progress(STAGE, done, len(rows)))  # noqa: E731
    place = folder / digest([large.data.fingerprint, weights.digest, len(rows)], 12)
    found, labels = features(network, large.split.take(rows), place, progressed), large.split.labels[rows]
    transfer = fit_transfer(found, labels, inside(folds, rows), data.num_classes, data.metric)
    whole = apart = None
    if len(rows) == len(large.split):
        seen = np.setdiff1d(rows, folds[0])
        of_seen = fit_transfer(found[seen], labels[seen], inside(folds[1:], seen), data.num_classes, data.metric)
        whole, apart = transfer.labels, taught_labels(of_seen.labels, seen, len(rows))
    ledger.found(STAGE, lambda: {"accuracy": transfer.accuracy, "network": weights.network})
    return Teacher(weights, network, large, transfer, whole, apart, chosen["each_s"])


def _size(network: Adapted, split: Split, test: int, classes: int, time_s: float) -> Mapping[str, Any]:
    """The most pixels at which all images are read in the time; fewer images where not even the fewest pixels do."""
    for side in SIDES:
        each_s = seconds_an_image(network, split, side)
        if each_s * (len(split) + test) < time_s:
            break
    count = int(len(split) * min(1.0, time_s / (each_s * (len(split) + test))))
    return {"pixels": side, "images": max(count, min(len(split), 10 * classes)), "each_s": each_s}
