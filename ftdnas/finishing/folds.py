"""All images that may choose and train, dealt into folds: what learns of the others is read on one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from distill.images.datasets import ACCURACY, ImageDataset, Split
from distill.images.duplicates import FEWEST_PIXELS, near_duplicates
from distill.images.preprocess import Preprocess, fit_preprocess
from distill.randomness import generator
from distill.training.examples import Examples
from ftdnas.candidates.materials import Label, Material
from ftdnas.candidates.truth import PREPROCESS

FOLDS = 5
TAUGHT = 0.7  # of a label is the teacher's, the rest the image's own
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pool:
    """The training and the validation images together, (N, C, H, W), and their folds; test images are not among them.

    Fold 0 is what the split held back for every choice; the others are stratified parts of the rest.
    """

    data: ImageDataset

    @cached_property
    def split(self) -> Split:
        parts = (self.data.validation, self.data.train)
        return Split(np.concatenate([one.images for one in parts]), np.concatenate([one.labels for one in parts]))

    @cached_property
    def folds(self) -> tuple[Rows, ...]:
        held, train = len(self.data.validation), self.data.train
        parts = dealt(train.labels, FOLDS - 1)
        if min(self.data.image_shape[1:]) >= FEWEST_PIXELS:
            whole = dealt(train.labels, FOLDS - 1, near_duplicates(train.images))
            parts = whole if _teach_every_class(whole, train.labels) else parts
        return (np.arange(held), *(held + rows for rows in parts))

    @cached_property
    def preprocess(self) -> Preprocess:
        return fit_preprocess(PREPROCESS, self.data.train.images)

    def examples(self, split: Split) -> Examples:
        """Images of these data as networks here take them."""
        return Examples.from_split(split, self.preprocess)

    def without(self, fold: int) -> Rows:
        """All rows but those of a fold."""
        return np.setdiff1d(np.arange(len(self.split)), self.folds[fold])

    def material(self, name: str, rows: Rows, taught: Tensor | None = None, teacher: str = "") -> Material:
        """Of these images, standardised; with the labels of a `teacher`, float32 (N, K) of the whole pool."""
        kind = f"taught/{teacher}" if taught is not None else "own labels"
        fingerprint = f"pool/{self.data.fingerprint}/{name}/{kind}"
        fingerprint += "" if self.data.metric == ACCURACY else f"/{self.data.metric}"
        label = Label(
            f"{name}, {kind.partition('/')[0]}", fingerprint, len(rows), self.data.num_classes, self.data.metric
        )
        return Material(label, partial(self._examples, rows, taught))

    def _examples(self, rows: Rows, taught: Tensor | None) -> Examples:
        examples = self.examples(self.split.take(rows))
        if taught is None:
            return examples
        own = F.one_hot(examples.labels, self.data.num_classes).float()
        return Examples(
            examples.images, TAUGHT * taught[torch.from_numpy(rows)] + (1 - TAUGHT) * own, examples.preprocess
        )


def dealt(labels: NDArray[np.int64], folds: int, groups: Rows | None = None) -> list[Rows]:
    """Rows in so many parts, each with its share of every class, in a fixed random order.

    Rows of one of the `groups`, for each row the first of its group, are dealt into the same part.
    """
    order = torch.randperm(len(labels), generator=generator(0, "folds")).numpy()
    part = np.empty(len(labels), np.int64)
    part[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % folds
    if groups is not None:
        part = part[groups]
    return [np.flatnonzero(part == number) for number in range(folds)]


def _teach_every_class(parts: Sequence[Rows], labels: NDArray[np.int64]) -> bool:
    """Whether without any of the parts every class is left, and none is empty: not where a class is all alike."""
    classes = len(np.unique(labels))
    return all(len(part) and len(np.unique(np.delete(labels, part))) == classes for part in parts)


def taught_labels(labels: Tensor, rows: Rows, total: int) -> Tensor:
    """What a teacher says of the images at `rows`, as labels of the whole pool; of the others it says nothing."""
    whole = torch.zeros(total, labels.shape[1])
    whole[torch.from_numpy(rows)] = labels
    return whole


def inside(folds: Sequence[Rows], rows: Rows) -> list[Rows]:
    """The folds by their place among `rows`, sorted, in which they lie."""
    return [np.searchsorted(rows, fold) for fold in folds]
