"""What candidates train on: real subsets of a set's size, smaller pictures, and their way to other processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.images.datasets import ImageDataset, Split
from distill.synthetic import SyntheticSet
from distill.training import examples as examples_module
from distill.training.examples import Examples
from ftdnas.candidates.handover import hand_over
from ftdnas.candidates.materials import (
    CORESET_KINDS,
    Label,
    Material,
    coreset_material,
    held_out_material,
    set_material,
)
from search_spaces.base import parse_architecture

SetOf = Callable[..., SyntheticSet]


@pytest.fixture(scope="module")
def synthetic(digits: ImageDataset, set_of: SetOf) -> SyntheticSet:
    return set_of(digits)


def test_materials_reach_another_process_as_they_are(
    digits: ImageDataset, synthetic: SyntheticSet, tmp_path: Path
) -> None:
    pixels = digits.train.take(np.arange(100, 140))
    assert isinstance(pixels.images, np.memmap)
    copied = Split(np.array(pixels.images), pixels.labels)
    label = Label("real", "a", 40, 10)
    mapped = Material(label, Examples(pixels.images, torch.from_numpy(np.array(pixels.labels)), synthetic.preprocess))
    held = Material(replace(label, fingerprint="b"), Examples.from_split(copied, synthetic.preprocess))
    found = hand_over([mapped, held], tmp_path / "materials", "cpu")()
    rows = torch.tensor([39, 0, 7])
    for material in (mapped, held):
        for expected, got in zip(
            material.examples.take(rows), found[material.label.fingerprint].examples.take(rows), strict=True
        ):
            assert torch.equal(expected, got)
    # The decoded images were not copied, those in memory were.
    assert sorted(path.name for path in (tmp_path / "materials").iterdir()) == ["0.labels", "1.images", "1.labels"]


def test_a_random_subset_has_the_sets_labels_and_no_image_that_scores(
    digits: ImageDataset, synthetic: SyntheticSet
) -> None:
    first, again, second, other = (
        coreset_material("random", digits, synthetic, seed, draw) for seed, draw in [(0, 0), (0, 0), (0, 1), (1, 0)]
    )
    assert torch.equal(first.examples.labels.sort().values, synthetic.labels.sort().values)
    assert first.label == again.label
    assert len({first.label.fingerprint, second.label.fingerprint, other.label.fingerprint}) == 3
    images = first.examples.images
    assert isinstance(images, torch.Tensor)
    train = synthetic.preprocess.apply(digits.train.images).flatten(1)
    assert all((train == image.flatten()).all(1).any() for image in images)


def test_no_validation_images_no_score(digits: ImageDataset, synthetic: SyntheticSet) -> None:
    everything = replace(digits, validation=digits.validation.take(np.arange(0)))
    with pytest.raises(ValueError, match="not scored on test images"):
        held_out_material(everything, synthetic.preprocess)


@pytest.mark.parametrize("kind", CORESET_KINDS)
def test_every_subset_has_the_sets_counts_and_each_image_once(
    digits: ImageDataset, synthetic: SyntheticSet, kind: str
) -> None:
    uneven = replace(synthetic, images=synthetic.images[4:], labels=synthetic.labels[4:])  # 0, 2, 3, 3, ...
    made = coreset_material(kind, digits, uneven, 0, 0)
    assert torch.equal(made.examples.labels.bincount(minlength=10), uneven.labels.bincount(minlength=10))
    assert made.label.images == 26
    images = made.examples.images
    assert isinstance(images, torch.Tensor)
    assert len(images.flatten(1).unique(dim=0)) == 26
    train = synthetic.preprocess.apply(digits.train.images).flatten(1)
    assert all((train == image.flatten()).all(1).any() for image in images)
    again, other = (coreset_material(kind, digits, uneven, 0, draw) for draw in (0, 1))
    assert again.label == made.label
    assert (other.label == made.label) == (kind == "herding")


def test_herding_and_kmeans_lie_nearer_to_their_classes_than_chance(
    digits: ImageDataset, synthetic: SyntheticSet
) -> None:
    """Their mean is close to the mean of the class, which is what herding is for; k-means covers it."""
    train = synthetic.preprocess.apply(digits.train.images)
    labels = torch.from_numpy(np.array(digits.train.labels))

    def distance(kind: str) -> float:
        examples = coreset_material(kind, digits, synthetic, 0, 0).examples
        assert isinstance(examples.images, torch.Tensor)
        means = [
            examples.images[examples.labels == label].mean(0) - train[labels == label].mean(0) for label in range(10)
        ]
        return float(torch.stack(means).norm())

    assert distance("herding") < distance("random")
    assert distance("kmeans") < distance("random")


def test_smaller_pictures_are_averages(synthetic: SyntheticSet) -> None:
    made = set_material(synthetic, "tiny")
    half = made.resized(4)
    assert half.examples.image_shape == (1, 4, 4)
    assert isinstance(half.examples.images, torch.Tensor)
    blocks = synthetic.images.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5))
    assert torch.allclose(half.examples.images, blocks, atol=1e-6)
    assert half.label.fingerprint != made.label.fingerprint
    assert half.label.name == "the set tiny at 4 pixels"
    assert made.resized(8) is made
    with pytest.raises(ValueError, match="8 x 8 pixels cannot be averaged down to 16"):
        made.resized(16)


def test_pixels_that_are_preprocessed_batch_by_batch_are_taken_and_averaged_too(
    digits: ImageDataset, synthetic: SyntheticSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = held_out_material(digits, synthetic.preprocess)
    monkeypatch.setattr(examples_module, "HELD_BYTES", 100)
    lazy = held_out_material(digits, synthetic.preprocess)
    assert not isinstance(lazy.examples.images, torch.Tensor)
    rows = torch.tensor([5, 0])
    everything = torch.arange(2)
    for one, other in zip(held.part(rows).take(everything), lazy.part(rows).take(everything), strict=True):
        assert torch.equal(one, other)
    small, other_small = held.resized(4).examples.images, lazy.resized(4).examples.images
    assert isinstance(small, torch.Tensor)
    assert isinstance(other_small, torch.Tensor)
    assert torch.equal(small, other_small)


def test_a_taught_set_teaches_what_is_compared_with_it(digits: ImageDataset, set_of: SetOf, tmp_path: Path) -> None:
    plain = set_of(digits)
    network = parse_architecture(plain.backbone).build(plain.image_shape, 10)
    weights = torch.cat([weight.detach().flatten() for weight in network.parameters()])[None]
    taught = replace(plain, teachers=weights)
    own = set_material(taught, "tiny", taught=True)
    subset = coreset_material("random", digits, taught, 0, 0, taught=True)
    untaught = coreset_material("random", digits, taught, 0, 0)
    assert untaught.label.fingerprint == coreset_material("random", digits, plain, 0, 0).label.fingerprint
    assert untaught.label.fingerprint != subset.label.fingerprint
    assert set_material(taught, "tiny").teachers is None
    assert set_material(taught, "tiny").label.fingerprint != own.label.fingerprint
    found = hand_over([own, subset], tmp_path / "materials", "cpu")()
    for material in (own, subset):
        there = found[material.label.fingerprint]
        assert there.teachers is not None
        images = there.examples.take(torch.arange(5))[0]
        with torch.no_grad():
            expected = network(images).softmax(1)
        assert torch.allclose(there.teachers.targets(None)(0, images), expected, atol=1e-6)
        # Batches that come again are labelled once: what is asked for the second time is not even looked at.
        again = there.teachers.targets("some batches")
        first = again(0, images)
        assert torch.equal(again(0, images * 0), first)
        assert not torch.equal(again(1, images * 0), first)
        assert not torch.equal(there.teachers.targets("others")(0, images * 0), first)
    # A smaller picture is made of what has been augmented and labelled at its own size.
    smaller = own.resized(4)
    assert smaller.teachers is own.teachers
    assert smaller.image_shape == (1, 4, 4)
    pixels = torch.as_tensor(own.examples.images)
    assert torch.equal(torch.as_tensor(smaller.examples.images), pixels)
    assert smaller.seen(pixels[:3]).shape == (3, 1, 4, 4)
    assert hand_over([smaller], tmp_path / "smaller", "cpu")()[smaller.label.fingerprint].side == 4
    assert pickle.loads(pickle.dumps(own)).teachers is not None  # as Ray sends it


def test_scores_that_see_a_class_more_are_other_scores(digits: ImageDataset, synthetic: SyntheticSet) -> None:
    """Rows of earlier versions, which did not see it, are not taken for them."""
    usual = held_out_material(digits, synthetic.preprocess).label
    assert "every class" not in usual.fingerprint
    rows = np.concatenate(
        [np.flatnonzero(digits.validation.labels != 3), np.flatnonzero(digits.validation.labels == 3)[:1]]
    )
    scarce = replace(digits, validation=digits.validation.take(rows))
    label = held_out_material(scarce, synthetic.preprocess).label
    assert label.fingerprint == f"{usual.fingerprint}/every class"
    assert label.images == len(scarce.score()) == len(scarce.validation) - len(scarce.choose()) + 1
