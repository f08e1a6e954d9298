"""Which image trains, validates or tests: the given split, or a seeded one that keeps each class's share."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from distill.images.listing import SPLITS, Listing
from distill.randomness import generator

MIN_CLASS_IMAGES = 5
HELD_OUT = 2  # validation images of each class at least, where they are drawn: one chooses, one scores
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Partition:
    """Row numbers; those of validation list the half that chooses before the half that scores.

    `choosing`: how many choose, where groups that are not parted leave other halves than `halves` would.
    """

    train: Rows
    validation: Rows
    test: Rows
    note: str
    choosing: int | None = None


def halves(labels: NDArray[np.int64]) -> tuple[Rows, Rows]:
    """Two disjoint index sets with the same share of every class; the first one takes the larger part of odd ones."""
    first = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        first[members[: (len(members) + 1) // 2]] = True
    return np.flatnonzero(first), np.flatnonzero(~first)


def partition(
    listing: Listing, *, validation: float, seed: int, groups: Rows | None = None, lone: bool = False
) -> Partition:
    """Split the rows of a listing. Rows of one of the `groups`, a number for each row, are drawn into the same part.

    `validation` is the fraction of the training images held back, in [0, 0.9]: the rounded-up share of each class, and
    two at least, so that no class goes without in either half; `lone`: one may be all, as in earlier versions. 0 lets
    all of them train, validation images that the source gives included. The test
    images of a source without a split depend on no seed: whatever the seed, they have never been trained on.
    Raises ValueError for a fraction out of range, a missing split and a class with fewer than 5 images.
    """
    if not 0 <= validation <= 0.9:
        raise ValueError(f"validation {validation} is not a fraction between 0 and 0.9")
    given, note = _complete(listing, validation, groups)
    _check_classes(listing, given)
    train, test, held = (np.flatnonzero(given == split) for split in ("train", "test", "validation"))
    labels = listing.labels
    if validation == 0:
        merged = f"; the {len(held):,} given validation images train too" if len(held) else ""
        note += f"{merged}; no validation images: all train and the last checkpoint is taken (the papers' protocol)"
        return Partition(np.union1d(train, held), held[:0], test, note)
    if len(held):
        note += f"; {len(held):,} validation images as given"
    else:
        before = len(train)
        held, train = _hold_out(train, labels, validation, seed, "validation", groups, 1 if lone else HELD_OUT)
        note += f"; {len(held):,} of {before:,} training images held back for validation (stratified, seed {seed})"
    # A random half of each class, in the order of the rows within each half.
    choose, score = _hold_out(held, labels, 0.5, seed, "halves", groups)
    return Partition(train, np.concatenate([choose, score]), test, note, None if groups is None else len(choose))


def told_duplicates(parts: Partition, groups: Rows, drawn: bool) -> str:
    """What near-duplicates mean for a split that was `drawn` with them together, or given as it is."""
    sizes = np.bincount(groups)
    many = sizes[groups] > 1
    if not many.any():
        return "no near-duplicates were found"
    found = f"{int(many.sum()):,} images in {int((sizes > 1).sum()):,} groups of near-duplicates"
    trained = np.isin(groups, groups[parts.train])
    across = {"test": int(trained[parts.test].sum()), "validation": int(trained[parts.validation].sum())}
    seen = " and ".join(f"{count:,} {name} images" for name, count in across.items() if count)
    if seen:
        return f"{found}: {seen} are near one that trains, so accuracies look better than they are"
    return f"{found}, kept together" if drawn else f"{found}, none of them across the split"


def _complete(listing: Listing, validation: float, groups: Rows | None) -> tuple[NDArray[np.str_], str]:
    """Each row's split with every name filled in, and the sentence that says how."""
    given = listing.given
    present = [split for split in SPLITS if np.any(given == split)]
    if not present:
        test, _ = _hold_out(np.arange(len(given)), listing.labels, listing.test_fraction, 0, "test", groups)
        given = np.full(len(given), "train", dtype="<U10")
        given[test] = "test"
        return given, f"{len(test):,} test images drawn from {len(given):,} (stratified, the same for every seed)"
    if "train" not in present:
        raise ValueError(f"{listing.name} has no train split, only {' and '.join(present)}: add one")
    if listing.own_split:
        if "test" not in present:
            raise ValueError(f"the split file of {listing.name} lists no test image: add some")
        if "validation" not in present and validation > 0:
            raise ValueError(
                f"the split file of {listing.name} lists no validation image: add some, or ask for none (validation 0)"
            )
        return given, "train and test as the split file says"
    if present == ["train"]:
        raise ValueError(f"{listing.name} has a train split but no test split: add one, or give all images unsplit")
    if "test" not in present:
        tested = np.where(given == "validation", "test", given)
        return tested, "train as given, the given validation images are the test"
    return given, "train and test as given"


def _check_classes(listing: Listing, given: NDArray[np.str_]) -> None:
    drawn = not np.any(listing.given != "")
    usable = listing.labels if drawn else listing.labels[given != "test"]
    counts = np.bincount(usable, minlength=len(listing.class_names))
    trained = np.bincount(listing.labels[given == "train"], minlength=len(listing.class_names))
    for name, count, training in zip(listing.class_names, counts, trained, strict=True):
        if count < MIN_CLASS_IMAGES:
            kind = "images" if drawn else "images for training and validation"
            raise ValueError(
                f"class {name!r} of {listing.name} has {count} {kind}, {MIN_CLASS_IMAGES} are the least: "
                "add some or leave the class out"
            )
        if training == 0 and not drawn:
            raise ValueError(f"class {name!r} of {listing.name} has no training image, only validation images")


def _hold_out(
    rows: Rows, labels: NDArray[np.int64], fraction: float, seed: int, purpose: str, groups: Rows | None, least: int = 1
) -> tuple[Rows, Rows]:
    """(taken, left), each sorted: of each class the rounded-up fraction is drawn by a generator of its own.

    It is `least` images where that leaves one, whatever the groups.
    """
    taken: list[Rows] = []
    known: dict[int, bool] = {}
    for label in np.unique(labels[rows]):
        of_class = rows[labels[rows] == label]
        # Less a hair, because 0.07 * 100 is 7.000000000000001.
        count = max(math.ceil(len(of_class) * fraction - 1e-9), min(least, len(of_class) - 1))
        drawn = torch.randperm(len(of_class), generator=generator(seed, "split", purpose, int(label))).numpy()
        order = of_class[drawn]
        whole = order[:count] if groups is None or not count else _whole_groups(order, groups, count, known)
        taken.append(whole if len(whole) >= min(least, count) else order[:count])
    drawn = np.sort(np.concatenate(taken)) if taken else rows[:0]
    return drawn, np.setdiff1d(rows, drawn)


def _whole_groups(order: Rows, groups: Rows, count: int, known: dict[int, bool]) -> Rows:
    """`count` rows where groups allow it: each that still fits when its first row comes up.

    What is then missing comes from a larger group, for which rows that are alone make room; the smallest group comes
    where none fits, and what is all one group is parted like any other. `known`: group -> whether it was taken, of
    classes before this one too.
    """
    members = groups[order].tolist()
    sizes = Counter(members)
    fresh = [group for group in sizes if group not in known]
    room = count - sum(size for group, size in sizes.items() if known.get(group))
    for group in fresh:
        known[group] = sizes[group] <= room
        room -= sizes[group] * known[group]
    alone = [group for group in fresh if known[group] and sizes[group] == 1]
    for group in sorted((group for group in fresh if not known[group]), key=sizes.__getitem__):
        if 0 < room >= sizes[group] - len(alone):
            known |= dict.fromkeys(alone[: sizes[group] - room], False) | {group: True}
            room = 0
    if not any(known[group] for group in sizes):
        known[min(sizes, key=sizes.__getitem__)] = True
    taken = order[[known[group] for group in members]]
    return taken if len(taken) < len(order) else order[:count]
