"""A linear layer on the frozen features of a pretrained network: the rival that every user has, and a teacher.

Every accuracy and label here is of an image that the layer did not learn from: the images are dealt into folds, and
each fold is read by a layer of the others (cross-validation, Stone, 1974).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from distill.images.datasets import ACCURACY, Split
from distill.images.preprocess import Preprocess
from distill.tensors import read_tensors, sound, write_tensors
from distill.training.examples import Examples
from ftdnas.finishing.pretrained import Adapted

CHUNK = 256  # images whose features are kept at once
SIDES = (224, 192, 160, 128, 96)  # pixels, of which a convolutional network takes any
STRENGTHS = (0.0003, 0.001, 0.003, 0.01)  # C of scikit-learn, on standardised features
CHOOSING = 4000  # images that choose one of them, at most
Progressed = Callable[[int], None]  # images done


@dataclass(frozen=True, eq=False)
class Transfer:
    """`weights` (K, D) and `bias` (K,) of the layer on features as they come; `accuracy`: over all folds.

    `labels`: float32 (N, K), what the layers of the other folds say of each image.
    """

    weights: Tensor
    bias: Tensor
    accuracy: float
    labels: Tensor


def seconds_an_image(network: Adapted, split: Split, side: int) -> float:
    """What the features of an image of `side` pixels cost, from a few."""
    network.pixels = side
    few = split.take(np.arange(min(8, len(split))))
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        _features(network, few)
        times.append((time.perf_counter() - begun) / len(few))
    return min(times)


def features(network: Adapted, split: Split, folder: Path, progressed: Progressed) -> Tensor:
    """(N, D): what the last layer is given, of every image; those in `folder` that are sound are not computed again."""
    known = []
    for first in range(0, len(split), CHUNK):
        file = folder / f"features-{network.pixels}-{first}.safetensors"
        if not sound(file):
            computed = _features(network, split.take(np.arange(first, min(first + CHUNK, len(split)))))
            write_tensors(file, {"features": computed.half()})
        known.append(read_tensors(file)[0]["features"].float())
        progressed(min(first + CHUNK, len(split)))
    return torch.cat(known)


@torch.no_grad()
def _features(network: Adapted, split: Split) -> Tensor:
    kept: list[Tensor] = []
    hook = network.head.register_forward_pre_hook(lambda _, given: kept.append(given[0].flatten(1)))
    labels = torch.from_numpy(split.labels.copy()).to(network.mean.device)
    examples = Examples(split.images, labels, Preprocess("none", {}))
    network.eval().to(memory_format=torch.channels_last)
    try:
        for rows in torch.split(torch.arange(len(split)), 32):
            network(examples.take(rows)[0].contiguous(memory_format=torch.channels_last))
    finally:
        hook.remove()
    return torch.cat(kept).cpu()


def read_classes(network: Adapted, split: Split) -> NDArray[np.float32]:
    """The probabilities (N, K) that a network with a fitted last layer gives, few images at a time."""
    weights, bias = (tensor.detach().cpu() for tensor in (network.head.weight, network.head.bias))
    shares: NDArray[np.float32] = (_features(network, split) @ weights.T + bias).softmax(1).numpy()
    return shares


def fit_transfer(
    found: Tensor, labels: NDArray[np.int64], folds: Sequence[NDArray[np.int64]], classes: int, metric: str = ACCURACY
) -> Transfer:
    """The layer whose strength the first fold chooses, fitted to all (N, D) features.

    `folds`: rows, each image in one. `metric`: what its accuracy is, see `distill.images.datasets.METRICS`.
    """
    mean, deviation = found.mean(0), found.std(0).clamp_min(1e-6)
    standard = ((found - mean) / deviation).numpy()
    best = _strength(standard, labels, folds[0], classes, metric)
    said = _out_of_fold(standard, labels, folds, classes, best)
    weights, bias = _layer(standard, labels, classes, best)
    weights = weights / deviation
    accuracy = _accuracy(said.argmax(1) == labels, labels, metric)
    return Transfer(weights, bias - weights @ mean, accuracy, torch.from_numpy(said).float())


def _strength(
    standard: NDArray[np.float32], labels: NDArray[np.int64], read: NDArray[np.int64], classes: int, metric: str
) -> float:
    """The one by which a layer of the other images, few where there are many, reads those at `read` best."""
    others = np.setdiff1d(np.arange(len(labels)), read)
    few = others[:: math.ceil(len(others) / CHOOSING)]

    def right(strength: float) -> float:
        weights, bias = _layer(standard[few], labels[few], classes, strength)
        said = (torch.from_numpy(standard[read]) @ weights.T + bias).argmax(1).numpy()
        return _accuracy(said == labels[read], labels[read], metric)

    return max(STRENGTHS, key=right)


def _accuracy(right: NDArray[np.bool_], labels: NDArray[np.int64], metric: str) -> float:
    if metric == ACCURACY:
        return float(right.mean())
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def _out_of_fold(
    standard: NDArray[np.float32],
    labels: NDArray[np.int64],
    folds: Sequence[NDArray[np.int64]],
    classes: int,
    strength: float,
) -> NDArray[np.float32]:
    said = np.full((len(labels), classes), 1 / classes, np.float32)
    for fold in folds:
        others = np.setdiff1d(np.arange(len(labels)), fold)
        weights, bias = _layer(standard[others], labels[others], classes, strength)
        said[fold] = (torch.from_numpy(standard[fold]) @ weights.T + bias).softmax(1).numpy()
    return said


def _layer(
    standard: NDArray[np.float32], labels: NDArray[np.int64], classes: int, strength: float
) -> tuple[Tensor, Tensor]:
    """(K, D) and (K,); a class without images is never said."""
    fitted = LogisticRegression(C=strength, max_iter=200).fit(standard, labels)
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:
        # Of one score s, whose logistic is the chance of the second class: as two scores, -s/2 and s/2.
        coefficients, intercepts = (np.concatenate([-part, part]) / 2 for part in (coefficients, intercepts))
    weights, bias = torch.zeros(classes, standard.shape[1]), torch.full((classes,), -1e4)
    weights[fitted.classes_] = torch.from_numpy(coefficients).float()
    bias[fitted.classes_] = torch.from_numpy(intercepts).float()
    return weights, bias
