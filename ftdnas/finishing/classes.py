"""What a network makes of each class of the test images, and the photos that it gets most confidently wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.images.datasets import ACCURACY

WORST = 10


@dataclass(frozen=True)
class Mistake:
    """A photo of the class `label` that was taken for the class `said`, and how sure the network was, a fraction."""

    photo: str
    label: str
    said: str
    probability: float


@dataclass(frozen=True)
class ByClass:
    """Images of each class and how many of them were right; what was taken for what; the worst photos.

    `confused`: (class, class that was said, how often), most first.
    """

    images: tuple[int, ...]
    right: tuple[int, ...]
    confused: tuple[tuple[int, int, int], ...]
    worst: tuple[Mistake, ...]

    def recalls(self) -> list[float | None]:
        """The fraction of each class that was right; None of a class without images."""
        return [right / images if images else None for right, images in zip(self.right, self.images, strict=True)]

    def accuracy(self, metric: str) -> float:
        """Of all images, or, "balanced", the mean over the classes that have any."""
        if metric == ACCURACY:
            return sum(self.right) / sum(self.images)
        recalls = [recall for recall in self.recalls() if recall is not None]
        return sum(recalls) / len(recalls)

    def matrix(self) -> list[list[int]]:
        """Rows are the classes as they are, columns what was said."""
        rows = [[0] * len(self.images) for _ in self.images]
        for own, right in enumerate(self.right):
            rows[own][own] = right
        for own, said, count in self.confused:
            rows[own][said] = count
        return rows


def by_class(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], names: Sequence[str], files: Sequence[str] = ()
) -> ByClass:
    """Of the probabilities (N, K) of images with labels (N,); `files`: of each image, where there are any."""
    count, said = len(names), probabilities.argmax(axis=1)
    table = np.zeros((count, count), dtype=np.int64)
    np.add.at(table, (labels, said), 1)
    images, right = table.sum(axis=1), table.diagonal().copy()
    np.fill_diagonal(table, 0)
    own, other = np.nonzero(table)
    order = np.argsort(-table[own, other], kind="stable")
    sure = probabilities.max(axis=1)
    (wrong,) = np.nonzero(said != labels)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:WORST]
    return ByClass(
        tuple(images.tolist()),
        tuple(right.tolist()),
        tuple((int(own[at]), int(other[at]), int(table[own[at], other[at]])) for at in order),
        tuple(
            Mistake(
                files[row] if files else f"test image {row}", names[labels[row]], names[said[row]], float(sure[row])
            )
            for row in worst
        ),
    )
