"""Accuracies, which are fractions of a number of images: what is chance among them, and how sure they are."""

from __future__ import annotations

import math


def chance_bound(images: int, classes: int) -> float:
    """The largest accuracy on so many images that counts as chance: 1 / classes and three binomial deviations."""
    chance = 1 / classes
    return chance + 3 * math.sqrt(chance * (1 - chance) / images)


def wilson(accuracy: float, images: int) -> tuple[float, float]:
    """The 95 % interval of a fraction of so many images (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(round(accuracy * images), images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
