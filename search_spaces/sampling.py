"""A few architectures that stand for a whole space, in an order of which every beginning is balanced."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces.architecture import Architecture, ImageShape, SearchSpace, hint
from search_spaces.cost import parameter_count
from search_spaces.decisions import Choice, RandomDecisions

POOL = 2_000  # architectures that stand for a larger space

BINS = (2, 4, 8, 16, 32)  # quantile bins of the parameter count, coarse to fine
CROSSED_BINS = 4  # the quartiles of the parameter count are also crossed with every choice
# How many of the shuffled architectures compete for the next place. One is plain random sampling; all of them balance
# best, but then some are never drawn. At 64 the chi-square of the strata falls to about a sixth of random sampling's,
# and over seeds every architecture is still drawn about as often as any other.
WINDOW = 64

Restriction = Mapping[str, Collection[Choice]]  # {"width": {32, 64}}


def random_architectures(space: SearchSpace, n: int, seed: int) -> list[Architecture]:
    """`n` different architectures by random decisions; fewer where the space seems to have no more."""
    generator = torch.Generator().manual_seed(seed)
    decisions = RandomDecisions(generator)
    found: dict[str, Architecture] = {}
    for _ in range(20 * n):
        architecture = space.suggest(decisions)
        found.setdefault(architecture.name, architecture)
        if len(found) == n:
            break
    return list(found.values())


def candidate_pool(space: SearchSpace, seed: int = 0) -> Sequence[Architecture]:
    """All architectures of a space of at most 2,000; else so many drawn at random, always the same for a seed."""
    if space.size is not None and space.size <= POOL:
        return space.architectures()
    return random_architectures(space, POOL, seed)


def feasible_architectures(
    space: SearchSpace, image_shape: ImageShape, restrict: Restriction | None = None, seed: int = 0
) -> tuple[tuple[Architecture, ...], int]:
    """The architectures of `candidate_pool` that images of this shape allow, and how many were infeasible.

    `restrict` keeps those whose choices are among the given ones; what it drops is not counted. Raises ValueError where
    it names a choice that the space does not have.
    """
    everything = candidate_pool(space, seed)
    wanted = restrict or {}
    for key, values in wanted.items():
        known = dict.fromkeys(a.choices[key] for a in everything if key in a.choices)
        if not known:
            keys = dict.fromkeys(key for a in everything for key in a.choices)
            raise ValueError(f"{space.name}: unknown choice {key!r}: {hint(key, keys)}")
        for value in values:
            if value not in known:
                raise ValueError(f"{space.name}: unknown {key} {value!r}: {hint(str(value), known)}")
    asked = [a for a in everything if all(a.choices.get(key) in values for key, values in wanted.items())]
    feasible = tuple(architecture for architecture in asked if architecture.obstacle(image_shape) is None)
    return feasible, len(asked) - len(feasible)


def stratified_sample(
    space: SearchSpace,
    n: int,
    image_shape: ImageShape,
    seed: int,
    restrict: Restriction | None = None,
    num_classes: int = 10,
    fits: Callable[[Architecture], bool] = lambda architecture: True,  # noqa: ARG005
) -> tuple[Architecture, ...]:
    """`n` feasible architectures, balanced over the parameter count's quantiles, every choice, and quartile x choice.

    The seed shuffles the architectures; each next one is that of the first 64 left which keeps the counts nearest to
    those of the whole space (least mean chi-square). So the first m of a larger sample are the sample of m: more can be
    added later. Only one of those that compute the same functions is taken, and only those that `fits`. Of a space of
    more than 2,000, so many drawn at random stand for all.
    Where fewer than `n` are feasible, all of them. Raises ValueError where none is, or `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"a sample of {n} architectures: take at least 1")
    feasible, _ = feasible_architectures(space, image_shape, restrict, seed)
    alike = {architecture.representative().name: architecture for architecture in reversed(feasible)}
    kept = set(alike.values())
    pool = [architecture for architecture in feasible if architecture in kept and fits(architecture)]
    if not pool:
        channels, height, width = image_shape
        raise ValueError(
            f"no {space.name} architecture of those asked for can carry {channels} x {height} x {width} images: "
            "choose larger images or a wider choice"
        )
    # A hash instead of a generator: the order is the same on every machine and with every version of numpy.
    order = sorted(pool, key=lambda architecture: hashlib.sha256(f"{seed}/{architecture.name}".encode()).digest())
    weights = np.array([parameter_count(architecture, image_shape, num_classes) for architecture in order])
    return tuple(order[row] for row in _balanced_order(_strata(order, weights), min(n, len(order))))


def _strata(architectures: Sequence[Architecture], weights: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """One array (N,) of stratum numbers 0 .. L - 1 per way of stratifying."""
    total = len(architectures)
    position = np.empty(total, dtype=np.int64)
    position[np.argsort(weights, kind="stable")] = np.arange(total)
    strata = [position * bins // total for bins in BINS if bins <= total]
    quartile = position * CROSSED_BINS // total
    for key in dict.fromkeys(key for architecture in architectures for key in architecture.choices):
        values = [str(architecture.choices.get(key)) for architecture in architectures]
        levels = np.unique(values, return_inverse=True)[1].astype(np.int64)
        strata += [levels, np.unique(levels * CROSSED_BINS + quartile, return_inverse=True)[1].astype(np.int64)]
    return strata


def _balanced_order(strata: Sequence[NDArray[np.int64]], n: int) -> list[int]:
    """The rows of a sequence whose every beginning has, in every stratum, about its share of the whole."""
    shares = [np.bincount(levels) / len(levels) for levels in strata]
    counts = [np.zeros(len(share)) for share in shares]
    left = np.arange(len(strata[0]))
    rows: list[int] = []
    for size in range(1, n + 1):
        window = left[:WINDOW]
        rise = np.zeros(len(window))  # of chi-square, (count - expected)^2 / expected, each over its number of strata
        for levels, share, count in zip(strata, shares, counts, strict=True):
            rise += ((2 * (count - size * share) + 1) / share)[levels[window]] / len(share)
        # Rounded, so that equal costs stay equal whatever the order of summation.
        place = int(np.argmin(rise.round(6)))
        row = int(window[place])
        rows.append(row)
        left = np.delete(left, place)
        for levels, count in zip(strata, counts, strict=True):
            count[levels[row]] += 1
    return rows
