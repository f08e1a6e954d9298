from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from distill.images.listing import Listing, from_arrays
from distill.images.splits import Partition, halves, partition


def listing(*parts: tuple[str, Sequence[int]], classes: int = 3) -> Listing:
    """Listed images whose pixels do not matter: parts of (split, images per class)."""
    arrays = []
    for split, counts in parts:
        labels = np.repeat(np.arange(len(counts)), counts)
        arrays.append((split, np.zeros((len(labels), 4, 4), np.uint8), labels))
    return from_arrays("toys", "Toys", "here", [f"class {i}" for i in range(classes)], arrays, content="")


def counts(rows: np.ndarray, source: Listing) -> list[int]:
    return np.bincount(source.labels[rows], minlength=len(source.class_names)).tolist()


def test_a_source_without_a_split_is_split_by_class() -> None:
    source = listing(("", [100, 33, 5]))
    parts = partition(source, validation=0.1, seed=0)
    assert counts(parts.test, source) == [10, 4, 1]
    assert counts(parts.validation, source) == [9, 3, 2]
    assert counts(parts.train, source) == [81, 26, 2]
    every = np.concatenate([parts.train, parts.validation, parts.test])
    assert np.array_equal(np.sort(every), np.arange(138))
    assert parts.note == (
        "15 test images drawn from 138 (stratified, the same for every seed); "
        "14 of 123 training images held back for validation (stratified, seed 0)"
    )


def test_the_seed_moves_validation_but_never_the_test_images() -> None:
    source = listing(("", [50, 50, 50]))
    one, same, other = (partition(source, validation=0.2, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.validation, same.validation)
    assert not np.array_equal(np.sort(one.validation), np.sort(other.validation))
    assert np.array_equal(one.test, other.test)


def test_given_splits_are_kept() -> None:
    source = listing(("train", [20, 20, 20]), ("validation", [3, 3, 2]), ("test", [6, 6, 6]))
    parts = partition(source, validation=0.5, seed=3)
    assert np.array_equal(parts.train, np.arange(60))
    assert np.array_equal(np.sort(parts.validation), np.arange(60, 68))
    assert np.array_equal(parts.test, np.arange(68, 86))
    assert parts.note == "train and test as given; 8 validation images as given"


def test_validation_images_without_test_images_are_the_test() -> None:
    source = listing(("train", [20, 20, 20]), ("validation", [4, 4, 4]))
    parts = partition(source, validation=0.1, seed=0)
    assert np.array_equal(parts.test, np.arange(60, 72))
    assert counts(parts.validation, source) == [2, 2, 2]
    assert parts.note.startswith("train as given, the given validation images are the test")


def test_no_validation_lets_every_image_train() -> None:
    plain = partition(listing(("train", [20, 20, 20]), ("test", [2, 2, 2])), validation=0, seed=0)
    assert len(plain.validation) == 0
    assert np.array_equal(plain.train, np.arange(60))
    assert "the last checkpoint is taken (the papers' protocol)" in plain.note
    merged = partition(
        listing(("train", [9, 9, 9]), ("validation", [2, 2, 2]), ("test", [1, 1, 1])), validation=0, seed=0
    )
    assert np.array_equal(merged.train, np.arange(33))
    assert "the 6 given validation images train too" in merged.note


@pytest.mark.parametrize("sizes", [[50, 51, 1], [2, 1, 7]])
def test_halves_are_disjoint_stratified_and_exhaustive(sizes: list[int]) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], sizes))
    choose, score = halves(labels)
    assert np.array_equal(np.sort(np.concatenate([choose, score])), np.arange(len(labels)))
    assert np.bincount(labels[choose]).tolist() == [(size + 1) // 2 for size in sizes]


def test_validation_lists_the_choosing_half_first() -> None:
    """So both halves are contiguous in the cache, and none of them is copied."""
    source = listing(("train", [60, 31, 27]), ("test", [1, 1, 1]))
    held = partition(source, validation=0.3, seed=5).validation
    choose, score = halves(source.labels[held])
    assert np.array_equal(choose, np.arange(len(choose)))
    assert np.array_equal(score, np.arange(len(choose), len(held)))
    assert not np.array_equal(held[choose], np.sort(held)[: len(choose)])  # a draw, not the first ones


def test_the_halves_depend_on_the_seed() -> None:
    source = listing(("train", [20, 20, 20]), ("validation", [20, 20, 20]), ("test", [1, 1, 1]))
    one, other = (partition(source, validation=0.1, seed=seed).validation for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert np.array_equal(np.sort(one), np.sort(other))


def refused(source: Listing, validation: float = 0.1) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        partition(source, validation=validation, seed=0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("fraction", [-0.1, 0.95, float("nan")])
def test_refuses_a_fraction_out_of_range(fraction: float) -> None:
    assert refused(listing(("", [9, 9, 9])), fraction) == f"validation {fraction} is not a fraction between 0 and 0.9"


def test_refuses_a_missing_split() -> None:
    assert refused(listing(("test", [9, 9, 9]))) == "toys has no train split, only test: add one"
    assert refused(listing(("train", [9, 9, 9]))).startswith("toys has a train split but no test split: add one")


def test_refuses_a_small_class() -> None:
    assert refused(listing(("", [9, 4, 9]))) == (
        "class 'class 1' of toys has 4 images, 5 are the least: add some or leave the class out"
    )
    assert refused(listing(("train", [9, 0, 9]), ("test", [9, 9, 9]))) == (
        "class 'class 1' of toys has 0 images for training and validation, 5 are the least: "
        "add some or leave the class out"
    )
    assert refused(listing(("train", [9, 0, 9]), ("validation", [5, 5, 5]), ("test", [1, 1, 1]))) == (
        "class 'class 1' of toys has no training image, only validation images"
    )


def test_a_class_of_five_images_is_enough_for_all_three_splits() -> None:
    source = listing(("", [5, 5, 5]))
    parts = partition(source, validation=0.1, seed=0)
    assert [counts(rows, source) for rows in (parts.train, parts.validation, parts.test)] == [[2] * 3, [2] * 3, [1] * 3]


@pytest.mark.parametrize("sizes", [[200, 8, 6], [8, 8, 8], [5, 11, 40]])
def test_every_class_is_in_both_halves(sizes: list[int]) -> None:
    source = listing(("", sizes))
    held = partition(source, validation=0.1, seed=0).validation
    for rows in halves(source.labels[held]):
        assert min(counts(held[rows], source)) >= 1


def test_photos_that_are_near_each_other_leave_no_half_without_a_class() -> None:
    source = listing(("", [6, 6, 12]))
    # Bursts of three; the last class shares its only group with the first one.
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8])
    parts = partition(source, validation=0.1, seed=0, groups=groups)
    assert parts.choosing is not None
    for rows in (parts.train, parts.validation[: parts.choosing], parts.validation[parts.choosing :], parts.test):
        assert min(counts(rows, source)) >= 1


def test_earlier_versions_held_one_image_of_a_small_class_back() -> None:
    source = listing(("", [100, 33, 5]))
    earlier = partition(source, validation=0.1, seed=0, lone=True)
    assert counts(earlier.validation, source) == [9, 3, 1]
    assert np.array_equal(earlier.test, partition(source, validation=0.1, seed=0).test)


def own(*parts: tuple[str, Sequence[int]]) -> Listing:
    return replace(listing(*parts), own_split=True)


def test_a_split_file_moves_nothing() -> None:
    source = own(("train", [9, 9, 9]), ("validation", [2, 2, 2]), ("test", [3, 3, 3]))
    parts: Partition = partition(source, validation=0.1, seed=0)
    assert [len(rows) for rows in (parts.train, parts.validation, parts.test)] == [27, 6, 9]
    assert parts.note == "train and test as the split file says; 6 validation images as given"


def test_a_split_file_must_list_every_split() -> None:
    assert refused(own(("train", [9, 9, 9]))) == "the split file of toys lists no test image: add some"
    no_validation = own(("train", [9, 9, 9]), ("test", [1, 1, 1]))
    assert "lists no validation image: add some, or ask for none (validation 0)" in refused(no_validation)
    assert len(partition(no_validation, validation=0, seed=0).train) == 27
