"""Rank three networks of your own by what they learn from a synthetic set.

First: ftdnas distill --dataset digits --name digits
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

import ftdnas
from ftdnas.candidates.screening import Screening
from ftdnas.candidates.training import Score
from ftdnas.sets.images import images_of

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)),
    "two layers": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.LazyLinear(10)),
    "convolution": lambda: nn.Sequential(
        nn.LazyConv2d(32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.LazyLinear(10)
    ),
}


def main(epochs: int = 200) -> None:
    synthetic = ftdnas.load_set("digits")
    held_out = images_of(synthetic).score()  # real images that chose nothing when the set was made
    scores = {
        name: ftdnas.score(build, synthetic, Screening(epochs=epochs), held_out=held_out)
        for name, build in NETWORKS.items()
    }
    for name, trained in sorted(scores.items(), key=lambda item: loss(item[1])):
        print(f"{name:<12} loss {loss(trained):.3f}, on held-out real images {trained.score:.1%}")


def loss(trained: Score) -> float:
    """The mean of the last tenth of its training losses: what ranks well."""
    return math.inf if trained.late_loss is None else trained.late_loss


if __name__ == "__main__":
    main()
