"""How many images of a set still point to one training photo, beside real images that nobody trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.images.datasets import ImageDataset, Split
from distill.synthetic import SyntheticSet
from ftdnas.runtime.home import home
from ftdnas.sets.images import Source
from ftdnas.sets.nearest import Nearest, describe_images, nearest_of, nearest_photos, stored_nearest, travels_along

SetOf = Callable[..., SyntheticSet]
COUNT = Nearest(327, 500, 50, 1000, 45_000, 0.84)


def test_a_copy_of_a_photo_points_to_it_and_one_between_two_does_not(digits: ImageDataset, set_of: SetOf) -> None:
    copies = set_of(digits)
    found = nearest_photos(copies, digits)
    assert found is not None
    assert (found.pointing, found.images, found.photos) == (30, 30, len(digits.train))
    assert found.held_out == len(digits.validation)
    assert found.control == len(digits.validation) // 20  # 4 to 5 %
    assert found.above_control
    # The bound by hand: of each held-out image both distances, in the set's space.
    photos = copies.preprocess.apply(digits.train.images).flatten(1).numpy()
    real = copies.preprocess.apply(digits.validation.images).flatten(1).numpy()
    two = np.sort(np.linalg.norm(real[:, None] - photos[None], axis=2), axis=1)[:, :2]
    assert found.bound == pytest.approx(np.sort(two[:, 0] / two[:, 1])[found.control], rel=1e-4)
    # Half way between a photo and its nearest neighbour nothing says which of the two it was.
    distances = torch.cdist(copies.images.flatten(1), torch.from_numpy(photos))
    second = torch.from_numpy(photos)[distances.topk(2, largest=False).indices[:, 1]].view_as(copies.images)
    between = nearest_photos(replace(copies, images=(copies.images + second) / 2), digits)
    assert between is not None
    assert between.pointing <= 1
    assert not between.above_control


def test_large_images_are_compared_as_smaller_pictures(make_set: Any) -> None:
    draws = np.random.default_rng(0)
    images = draws.integers(0, 255, (60, 1, 8, 8), dtype=np.uint8).repeat(8, 2).repeat(8, 3)  # 64 pixels
    labels = np.arange(60) % 3
    train, held_out = Split(images[:40], labels[:40]), Split(images[40:], labels[40:])
    data = ImageDataset("noise", "", ("a", "b", "c"), train, held_out, held_out, "", None, "")
    small = make_set()
    pixels = small.preprocess.apply(images[:6])
    found = nearest_photos(replace(small, images=pixels, labels=torch.arange(6) % 3), data)
    assert found is not None
    assert (found.pointing, found.control, found.held_out) == (6, 1, 20)
    few = replace(data, validation=held_out.take(np.arange(19)))
    assert nearest_photos(replace(small, images=pixels, labels=torch.arange(6) % 3), few) is None


def test_it_is_counted_once_where_the_images_are_at_hand(digits: ImageDataset, set_of: SetOf) -> None:
    nowhere = set_of(digits)
    assert nearest_of(nowhere, Source("")) is None
    assert "not known" in describe_images(nowhere, None)
    old = nowhere.with_provenance(data=Source("digits").to_json(), data_fingerprint=digits.fingerprint)
    found = nearest_of(old, Source(""))
    assert found is not None
    assert found.pointing == 30
    assert nearest_of(nowhere, Source("")) == found  # kept, for it is the same set
    (kept,) = (home() / "cache").glob("nearest-*.json")
    kept.unlink()
    other = old.with_provenance(data_fingerprint="0" * 64)
    assert nearest_of(other, Source("")) is None  # these are not its images


def test_what_a_stranger_wrote_is_no_count(make_set: Any) -> None:
    said = asdict(COUNT)
    assert stored_nearest(make_set().with_provenance(nearest_photo=said)) == COUNT
    for wrong in (None, "65 %", {}, {**said, "images": 0}, {**said, "bound": "x"}, {**said, "more": 1}):
        assert stored_nearest(make_set().with_provenance(nearest_photo=wrong)) is None


def test_what_travels_with_a_set(make_set: Any, tmp_path: Path) -> None:
    told = "327 of 500 images (65%) point to one training photo; of real images that were not trained on, 5% do"
    assert travels_along(make_set(), COUNT) == [told]
    assert travels_along(make_set(), replace(COUNT, pointing=25)) == []
    assert travels_along(make_set(), None) == ["not known how many images point to one training photo"]
    taught = make_set(teachers=torch.zeros(2, 5), provenance={"data": {"spec": f"folder:{tmp_path}"}})
    assert travels_along(taught, replace(COUNT, pointing=0)) == [
        "its 2 teachers go with it: weights that were trained on the real images",
        f"it says where its images are: folder:{tmp_path}",
    ]
    photos = make_set(provenance={"published": "real images", "data": {"spec": "cifar10"}})
    assert travels_along(photos, None) == ["real photos: all 6 are training photos as they are"]
