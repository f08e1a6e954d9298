"""Networks trained on real images that say what an image shows: soft labels for images that have been augmented."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from distill.training.flat import FlatNetwork, Network

BATCH = 500  # images per forward pass


@dataclass(eq=False)
class Teachers:
    """T networks of one kind at `weights` (T, P); their mean probabilities are the label (Hinton et al., 2015)."""

    network: Network
    weights: Tensor
    _flat: FlatNetwork | None = field(default=None, init=False, repr=False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W), preprocessed, to (N, K) probabilities.

        Raises ValueError where the weights are not those of the network.
        """
        flat = self._flat or FlatNetwork(self.network()).to(images.device)
        if flat.size != self.weights.shape[1]:
            raise ValueError(f"teachers of {self.weights.shape[1]:,} weights are no networks of {flat.size:,}")
        self._flat = flat
        self.weights = self.weights.to(images.device)
        parts = torch.split(images, BATCH)
        return torch.cat([torch.stack([flat(row, part).softmax(1) for row in self.weights]).mean(0) for part in parts])
