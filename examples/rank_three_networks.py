"""Rank three networks of your own by what they learn from a synthetic set.

First: ftdnas distill --dataset digits --name digits
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ftdnas.candidates.screening import Screening
from ftdnas.candidates.training import score
from ftdnas.sets.images import images_of
from ftdnas.sets.library import Library, home

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)),
    "two layers": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.LazyLinear(10)),
    "convolution": lambda: nn.Sequential(
        nn.LazyConv2d(32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.LazyLinear(10)
    ),
}


def main(epochs: int = 200) -> None:
    synthetic = Library(home() / "sets").load("digits")
    held_out = images_of(synthetic).score()  # real images that chose nothing when the set was made
    scores = {
        name: score(build, synthetic, Screening(epochs=epochs), held_out=held_out)
        for name, build in NETWORKS.items()
    }
    for name in sorted(scores, key=lambda name: scores[name].value("late_loss"), reverse=True):
        found = scores[name]
        print(f"{name:<12} loss {found.late_loss:.3f}, accuracy on real images {100 * found.value('accuracy'):.1f} %")


if __name__ == "__main__":
    main()
