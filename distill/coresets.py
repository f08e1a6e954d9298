"""Choosing real images to stand for their class: the baselines that a distilled set must beat."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.experts import epochs_needed, train_experts
from distill.images.datasets import ImageDataset, Split
from distill.images.preprocess import Preprocess
from distill.randomness import derive_seed, generator
from distill.recipe import Recipe
from distill.run import Run
from distill.training.examples import Examples
from distill.training.flat import FlatNetwork, Network
from distill.training.loop import READ_BATCH

Labels = NDArray[np.int64]
# Gives the features of the training images, (N, F), to those that choose by them.
Features = Callable[[], NDArray[np.float32]]
# (features, training images, images per class, seed) -> row numbers of the training images, int64 on the CPU
Coreset = Callable[[Features, Split, int, int], Tensor]


def random_rows(split: Split, ipc: int, seed: int, *, repeat: bool = False) -> Tensor:
    """Row numbers, int64 on the CPU, class by class: `ipc` of each, or all where a class has fewer.

    `repeat` goes through a small class again and again, in a new order each time, until there are `ipc`.
    """
    chosen = []
    for label in np.unique(split.labels):
        members = torch.from_numpy(np.flatnonzero(split.labels == label))
        draws = generator(seed, "subset", int(label))
        rounds = -(-ipc // len(members)) if repeat else 1
        order = torch.cat([torch.randperm(len(members), generator=draws) for _ in range(rounds)])
        chosen.append(members[order[:ipc]])
    return torch.cat(chosen)


def expert_features(
    data: ImageDataset, preprocess: Preprocess, network: Network, recipe: Recipe, run: Run
) -> NDArray[np.float32]:
    """(N, F) features of the training images: the input of the last linear layer of one expert at its last epoch.

    The expert is one of the recipe's, reused where it is there and trained where not. Raises ValueError for a network
    without a linear layer.
    """
    alone = dataclasses.replace(recipe, experts=dataclasses.replace(recipe.experts, num_experts=1))
    trajectories = train_experts(data, preprocess, network, alone, run)
    flat = FlatNetwork(network()).to(run.device)
    linear = [part for part in flat.module.modules() if isinstance(part, nn.Linear)]
    if not linear:
        raise ValueError(f"backbone {recipe.backbone} has no linear layer to take features from: use another backbone")
    seen: list[Tensor] = []
    handle = linear[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].cpu()))
    weights = trajectories.weights(0, epochs_needed(alone)).to(run.device)
    examples = Examples.from_split(data.train, preprocess, run.device)
    with torch.no_grad():
        for rows in torch.split(torch.arange(len(examples)), READ_BATCH):
            flat(weights, examples.take(rows)[0])
    handle.remove()
    features: NDArray[np.float32] = torch.cat(seen).numpy()
    return features


def herding_rows(features: NDArray[np.float32], labels: Labels, ipc: int) -> Tensor:
    """Rows picked greedily in each class so that their mean feature follows the class's (Welling, ICML 2009)."""
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        points = features[members].astype(np.float64)
        mean, total = points.mean(axis=0), np.zeros(points.shape[1])
        free = np.ones(len(members), dtype=bool)
        for count in range(1, min(ipc, len(members)) + 1):
            distance = np.linalg.norm(mean - (total + points) / count, axis=1)
            pick = int(np.argmin(np.where(free, distance, np.inf)))
            free[pick] = False
            total += points[pick]
            chosen.append(members[pick])
    return torch.from_numpy(np.array(chosen))


def kmeans_rows(features: NDArray[np.float32], labels: Labels, ipc: int, seed: int) -> Tensor:
    """Rows nearest to the centres of k-means in each class, each row at most once."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        points = features[members].astype(np.float64)
        clusters = min(ipc, len(members))
        state = derive_seed(seed, "kmeans", int(label)) % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # equal images: fewer distinct centres than clusters
            distance = KMeans(clusters, n_init=1, random_state=state).fit_transform(points)
        free = np.ones(len(members), dtype=bool)
        for cluster in range(clusters):
            pick = int(np.argmin(np.where(free, distance[:, cluster], np.inf)))
            free[pick] = False
            chosen.append(members[pick])
    return torch.from_numpy(np.array(chosen))


CORESETS: dict[str, Coreset] = {
    "random": lambda _, split, ipc, seed: random_rows(split, ipc, seed),
    "herding": lambda features, split, ipc, _: herding_rows(features(), split.labels, ipc),
    "kmeans": lambda features, split, ipc, seed: kmeans_rows(features(), split.labels, ipc, seed),
}
