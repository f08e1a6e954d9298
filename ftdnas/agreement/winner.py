"""Which network to take where several were trained for real: the smallest that is not shown worse than the best.

Shown worse: the 95 % interval of the difference lies above 0. The difference is paired where it is known which images
each got right: the adjusted Wald interval of Agresti and Min (Statistics in Medicine 24, 2005), that is with two images
more; else that of two independent fractions by Agresti and Caffo (American Statistician 54, 2000), which is wider. What
another training of the same network would change beyond those images is taken from networks with several seeds.

The best of many readings is flattered: what it is ahead of others in the mean is not wholly its own. Each pair is held
up to the plain interval, not to one adjusted for their number: adjusted ones would call more networks equal, and the
smallest of those would be further behind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, eq=False)
class Readings:
    """One network on held-out images: its accuracy after each training, a fraction, and which images were right.

    `right`: bool (seeds, images); None where that is not known.
    """

    accuracies: tuple[float, ...]
    right: NDArray[np.bool_] | None = None

    @property
    def accuracy(self) -> float:
        return math.fsum(self.accuracies) / len(self.accuracies)


@dataclass(frozen=True)
class Take:
    """`name` is to be taken; `best` was read best; `equal` are those not shown worse, smallest first, both among them.

    `behind`: the best's accuracy minus its own; `at_most`: the upper end of that difference's interval, None where the
    number of images is not known, and then the best itself is taken. `seeds`: trainings of the one, of the best.
    `readings`: how many networks the best is the best of. `deviation`: of one training, beyond the images; None where
    every network was trained once.
    """

    name: str
    best: str
    equal: tuple[str, ...]
    accuracy: float
    best_accuracy: float
    behind: float
    at_most: float | None
    seeds: tuple[int, int]
    readings: int
    images: int | None
    deviation: float | None


def smallest_not_worse(readings: Mapping[str, Readings], sizes: Mapping[str, int], images: int | None) -> Take | None:
    """The rule; None for no readings. `images`: how many each was read on, None where that is not known.

    Of equally good ones the smaller is the best, of equally small ones the better is taken.
    """
    if not readings:
        return None
    best = min(readings, key=lambda name: (-readings[name].accuracy, sizes[name], name))
    deviation = training_deviation(list(readings.values()), images)
    bounds = {best: 0.0 if images else None}
    for name in readings.keys() - {best} if images else ():
        low, bounds[name] = difference(readings[best], readings[name], images or 0, deviation or 0.0)
        if low > 0:
            del bounds[name]
    equal = sorted(bounds, key=lambda name: (sizes[name], -readings[name].accuracy, name))
    taken = equal[0]
    return Take(
        name=taken,
        best=best,
        equal=tuple(equal),
        accuracy=readings[taken].accuracy,
        best_accuracy=readings[best].accuracy,
        behind=readings[best].accuracy - readings[taken].accuracy,
        at_most=bounds[taken],
        seeds=(len(readings[taken].accuracies), len(readings[best].accuracies)),
        readings=len(readings),
        images=images,
        deviation=deviation,
    )


def difference(one: Readings, other: Readings, images: int, deviation: float = 0.0) -> tuple[float, float]:
    """The 95 % interval of the accuracy of one minus that of another. `deviation`: of a training, see `Take`."""
    if one.right is not None and other.right is not None:
        apart = one.right.mean(axis=0) - other.right.mean(axis=0)
        total = images + 2
        spread = (float((apart**2).sum()) + 1 - float(apart.sum()) ** 2 / total) / total**2
        middle = float(apart.sum()) / total
    else:
        shares = [(reading.accuracy * images + 1) / (images + 2) for reading in (one, other)]
        spread = sum(share * (1 - share) / (images + 2) for share in shares)
        middle = shares[0] - shares[1]
    spread += deviation**2 * (1 / len(one.accuracies) + 1 / len(other.accuracies))
    reach = Z * math.sqrt(spread)
    return middle - reach, middle + reach


def training_deviation(readings: Sequence[Readings], images: int | None) -> float | None:
    """By how much the accuracy of one training deviates from that of another, beyond images that fall either way.

    Over the better half of the networks that were trained several times: poor ones vary more, and are not taken.
    """
    several = [reading for reading in readings if len(reading.accuracies) > 1]
    if not several:
        return None
    several = sorted(several, key=lambda reading: -reading.accuracy)[: math.ceil(len(several) / 2)]
    between = [float(np.var(reading.accuracies, ddof=1)) for reading in several]
    within = [
        0.0 if reading.right is None or not images else float(reading.right.var(axis=0, ddof=1).mean()) / images
        for reading in several
    ]
    freedom = [len(reading.accuracies) - 1 for reading in several]
    return math.sqrt(max(0.0, float(np.average(between, weights=freedom) - np.average(within, weights=freedom))))
