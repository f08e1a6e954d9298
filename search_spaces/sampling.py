"""A few architectures that stand for a whole space, in an order of which every beginning is balanced."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces.architecture import Architecture, ImageShape, SearchSpace
from search_spaces.cost import parameter_count
from search_spaces.decisions import Choice, RandomDecisions
from search_spaces.messages import hint

POOL = 2_000  # architectures of a space that is listed whole
BLOCK = 500  # architectures that stand for a larger space, and are balanced among themselves
PATIENCE = 1_000  # draws without anything new, after which a space has no more
MANY = 50  # values of a decision, of which 500 architectures show all

BINS = (2, 4, 8, 16, 32)  # quantile bins of the parameter count, coarse to fine
CROSSED_BINS = 4  # the quartiles of the parameter count are also crossed with every choice
# How many of the shuffled architectures compete for the next place. One is plain random sampling; all of them balance
# best, but then some are never drawn. At 64 the chi-square of the strata falls to about a sixth of random sampling's,
# and over seeds every architecture is still drawn about as often as any other.
WINDOW = 64

Restriction = Mapping[str, Collection[Choice]]  # {"width": {32, 64}}


def random_architectures(
    space: SearchSpace, n: int, seed: int, restrict: Restriction | None = None
) -> list[Architecture]:
    """`n` different architectures by random decisions; fewer where there seem to be no more."""
    return list(itertools.islice(_drawn(space, seed, restrict or {}), n))


def known_choices(space: SearchSpace) -> dict[str, tuple[Choice, ...]]:
    """Every decision of a space and what it can be; of a space of more than 2,000, as far as 500 random ones show."""
    listed = _is_listed(space)
    known: dict[str, dict[Choice, None]] = {}
    for architecture in space.architectures() if listed else random_architectures(space, BLOCK, 0):
        for key, value in architecture.choices.items():
            known.setdefault(key, {})[value] = None
    # What was drawn comes in no order.
    order = None if listed else lambda value: (isinstance(value, str), value)
    return {key: tuple(values if order is None else sorted(values, key=order)) for key, values in known.items()}


def feasible_architectures(
    space: SearchSpace, image_shape: ImageShape, restrict: Restriction | None = None, seed: int = 0
) -> tuple[tuple[Architecture, ...], int]:
    """The architectures of a space that images of this shape allow, and how many were infeasible.

    `restrict` keeps those whose choices are among the given ones; what it drops is not counted. Of a space of more than
    2,000, so many drawn at random stand for all. Raises ValueError where the restriction names a choice that the space
    does not have.
    """
    asked = list(itertools.chain.from_iterable(_blocks(space, POOL, seed, restrict or {})))
    feasible = tuple(architecture for architecture in asked if architecture.obstacle(image_shape) is None)
    return feasible, len(asked) - len(feasible)


def stratified_sample(
    space: SearchSpace,
    n: int,
    image_shape: ImageShape,
    seed: int,
    restrict: Restriction | None = None,
    num_classes: int = 10,
    fits: Callable[[Architecture], str | None] | None = None,
) -> tuple[Architecture, ...]:
    """`n` feasible architectures, balanced over the parameter count's quantiles, every choice, and quartile x choice.

    The seed shuffles the architectures; each next one is that of the first 64 left which keeps the counts nearest to
    those of the whole space (least mean chi-square). So the first m of a larger sample are the sample of m: more can be
    added later. Only one of those that compute the same functions is taken, and none against which `fits` says why.
    Of a space of more than 2,000, 500 drawn at random stand for all, and the next 500 once these are used up.
    Where fewer than `n` are feasible, all of them. Raises ValueError where none is, or `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"a sample of {n} architectures: take at least 1")
    taken: list[Architecture] = []
    seen: set[str] = set()
    refused: dict[str, str] = {}  # why -> the first that is not taken for it
    for block in _blocks(space, POOL + 4 * n, seed, restrict or {}):
        pool = []
        for architecture in block:
            obstacle = architecture.obstacle(image_shape) or (None if fits is None else fits(architecture))
            if obstacle is not None:
                refused.setdefault(obstacle, architecture.name)
            else:
                alike = architecture.representative().name
                if alike not in seen:
                    seen.add(alike)
                    pool.append(architecture)
        if pool:
            # A hash instead of a generator: the order is the same on every machine and with every version of numpy.
            order = sorted(pool, key=lambda each: hashlib.sha256(f"{seed}/{each.name}".encode()).digest())
            weights = np.array([parameter_count(architecture, image_shape, num_classes) for architecture in order])
            rows = _balanced_order(_strata(order, weights), min(n - len(taken), len(order)))
            taken += [order[row] for row in rows]
        if len(taken) == n:
            break
    if not taken:
        channels, height, width = image_shape
        why, name = next(((why, name) for why, name in refused.items()), ("there is none", ""))
        raise ValueError(
            f"no {space.name} architecture of those asked for can carry {channels} x {height} x {width} images"
            f"{' within the limits' if fits else ''}: {f'{name}: ' if name else ''}{why}"
        )
    return tuple(taken)


def _is_listed(space: SearchSpace) -> bool:
    return space.size is not None and space.size <= POOL


def _blocks(space: SearchSpace, most: int, seed: int, restrict: Restriction) -> Iterator[Sequence[Architecture]]:
    """A whole space at once; of a larger one so many at random as `most`, in parts. Only what the restriction keeps."""
    _check_restriction(space, restrict)
    if _is_listed(space):
        yield [architecture for architecture in space.architectures() if _keeps(restrict, architecture)]
        return
    drawn = itertools.islice(_drawn(space, seed, restrict), most)
    while block := list(itertools.islice(drawn, BLOCK)):
        yield block


def _drawn(space: SearchSpace, seed: int, restrict: Restriction) -> Iterator[Architecture]:
    """Different architectures by random decisions, until nothing new has come for long."""
    decisions = RandomDecisions(torch.Generator().manual_seed(seed), restrict)
    seen: set[str] = set()
    idle = 0
    while idle < PATIENCE:
        architecture = space.suggest(decisions)
        idle += 1
        if architecture.name not in seen and _keeps(restrict, architecture):
            seen.add(architecture.name)
            idle = 0
            yield architecture


def _keeps(restrict: Restriction, architecture: Architecture) -> bool:
    return not restrict or all(architecture.choices.get(key) in values for key, values in restrict.items())


def _check_restriction(space: SearchSpace, restrict: Restriction) -> None:
    known = known_choices(space) if restrict else {}
    for key, values in restrict.items():
        if key not in known:
            raise ValueError(f"{space.name}: unknown choice {key!r}: {hint(key, known)}")
        for value in values:
            # Of many numbers not all have been seen; drawing says which there are.
            if value not in known[key] and (_is_listed(space) or len(known[key]) <= MANY):
                raise ValueError(f"{space.name}: unknown {key} {value!r}: {hint(str(value), known[key])}")


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
