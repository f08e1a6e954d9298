"""Labelled images ready for a network: preprocessed once where they fit in memory, batch by batch where they do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.images.datasets import Split
from distill.images.preprocess import Preprocess
from distill.randomness import moved

HELD_BYTES = 2**30  # preprocessed images up to this size are held as floats


@dataclass(frozen=True, eq=False)
class Examples:
    """N images and their labels, int64 (N,) or float32 (N, K).

    `images` is float32 (N, C, H, W) in preprocessed space, or, with a `preprocess`, uint8 pixels that it still needs.
    """

    images: Tensor | NDArray[np.uint8]
    labels: Tensor
    preprocess: Preprocess | None = None

    @classmethod
    def from_split(cls, split: Split, preprocess: Preprocess, device: torch.device | str = "cpu") -> Examples:
        labels = torch.from_numpy(np.array(split.labels)).to(device)
        if split.images.size * 4 > HELD_BYTES:
            return cls(split.images, labels, preprocess)
        return cls(preprocess.apply(split.images, device), labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 images (B, C, H, W) and labels of `rows`, an int64 (B,) tensor on the CPU."""
        there = moved(rows, self.device)
        labels = self.labels[there]
        if isinstance(self.images, Tensor):
            return self.images[there], labels
        assert self.preprocess is not None
        return self.preprocess.apply(torch.from_numpy(self.images[rows.numpy()]).to(self.device)), labels
