"""Which network to take, where it is known how good each is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from ftdnas.agreement.winner import Readings, Take, difference, smallest_not_worse, training_deviation


def marks(right: int, images: int, first: int = 0) -> Readings:
    """So many right, in a row from `first` on."""
    row = np.zeros((1, images), dtype=bool)
    row[0, [(first + place) % images for place in range(right)]] = True
    return Readings((right / images,), row)


def taken(readings: dict[str, Readings], images: int | None, sizes: dict[str, int] | None = None) -> Take:
    found = smallest_not_worse(readings, sizes or {name: place for place, name in enumerate(readings)}, images)
    assert found is not None
    return found


def test_the_smallest_that_is_not_shown_worse_by_hand() -> None:
    # Of 100 images: one image apart says nothing; 20 that one alone gets right say much.
    found = taken({"small": marks(70, 100), "middle": marks(89, 100), "large": marks(90, 100)}, 100)
    assert (found.name, found.best, found.equal) == ("middle", "large", ("middle", "large"))
    assert (found.accuracy, found.best_accuracy) == (0.89, 0.9)
    assert found.behind == pytest.approx(0.01)
    assert found.at_most is not None
    assert 0.01 < found.at_most < 0.06
    assert (found.seeds, found.readings, found.deviation) == ((1, 1), 3, None)
    best = taken({"small": marks(50, 100), "large": marks(90, 100)}, 100)
    assert (best.name, best.at_most) == ("large", 0.0)


def test_the_same_images_tell_more_than_as_many_others() -> None:
    # 6 images that one alone gets right are shown where they are the only difference, not where others may differ too.
    paired = {"small": marks(84, 100), "large": marks(90, 100)}
    assert taken(paired, 100).name == "large"
    alone = {name: Readings(reading.accuracies) for name, reading in paired.items()}
    assert taken(alone, 100).name == "small"
    assert taken({"small": marks(84, 100), "large": marks(90, 100, 16)}, 100).name == "small"  # 22 differ: 16 and 10


def test_of_equals_the_better_and_without_a_number_of_images_the_best() -> None:
    equal = {"a": marks(88, 100), "b": marks(90, 100), "c": marks(90, 100)}
    assert taken(equal, 100, {"a": 5, "b": 5, "c": 5}).name == "b"
    table = taken({"small": Readings((0.91,)), "large": Readings((0.92,))}, None)
    assert (table.name, table.equal, table.at_most) == ("large", ("large",), None)
    assert smallest_not_worse({}, {}, 100) is None


def test_what_seeds_differ_by_widens_the_interval() -> None:
    steady = {"small": marks(78, 100), "large": marks(90, 100)}
    assert taken(steady, 100).name == "large"
    unsteady = Readings((0.80, 0.98), np.stack([marks(80, 100).right, marks(98, 100).right])[:, 0])  # type: ignore[list-item]
    found = taken({**steady, "large": unsteady}, 100)
    assert found.deviation is not None
    assert found.deviation == pytest.approx(np.sqrt(np.var([0.8, 0.98], ddof=1) - 0.18 * 0.5 / 100))
    assert (found.name, found.seeds) == ("small", (1, 2))


# ---- where the truth is known


def drawn(
    rng: np.random.Generator, true: NDArray[np.float64], images: int, shared: float, noise: float, seeds: int = 1
) -> dict[str, Readings]:
    """Networks of these true accuracies on the same images. `shared`: the part of an image's difficulty that all
    networks share; `noise`: deviation of a training."""
    difficulty = rng.normal(size=images) * np.sqrt(shared)
    own = rng.normal(size=(len(true), images)) * np.sqrt((1 - shared) / 2)
    readings = {}
    for row, accuracy in enumerate(true):
        trained = np.clip(accuracy + noise * rng.normal(size=seeds), 0.01, 0.99)
        flips = rng.normal(size=(seeds, images)) * np.sqrt((1 - shared) / 2)
        right = difficulty + own[row] + flips < norm.ppf(trained)[:, None]
        readings[str(row)] = Readings(tuple(map(float, right.mean(axis=1))), right)
    return readings


@pytest.mark.parametrize(("images", "seeds", "noise"), [(141, 1, 0.0), (500, 1, 0.0), (500, 3, 0.02)])
def test_intervals_of_differences_cover(images: int, seeds: int, noise: float) -> None:
    rng = np.random.default_rng(images + seeds)
    true = np.array([0.93, 0.9])
    inside = 0
    for _ in range(400):
        one, other = drawn(rng, true, images, 0.7, noise, seeds).values()
        low, high = difference(one, other, images, noise)
        inside += low <= 0.03 <= high
    assert 0.925 <= inside / 400 <= 0.99


def test_the_deviation_of_a_training_is_found() -> None:
    rng = np.random.default_rng(0)
    assert training_deviation([Readings((0.9,))], 500) is None
    found = [training_deviation(list(drawn(rng, np.full(20, 0.9), 500, 0.7, 0.02, 3).values()), 500) for _ in range(20)]
    assert np.mean([one or 0.0 for one in found]) == pytest.approx(0.02, abs=0.004)
    none = [training_deviation(list(drawn(rng, np.full(20, 0.9), 500, 0.7, 0.0, 3).values()), 500) for _ in range(20)]
    assert np.mean([one or 0.0 for one in none]) < 0.004


def test_the_best_of_many_is_flattered_and_what_is_taken_is_as_near_as_it_says() -> None:
    """Of 48 networks: how far the one taken really is behind the really best is at most what is said, and the reading
    of the best is above its true accuracy."""
    rng = np.random.default_rng(1)
    flattery, kept, regrets = [], [], []
    for spread in (0.0, 0.01, 0.04):
        for _ in range(60):
            true = np.clip(0.92 + spread * rng.normal(size=48), 0.3, 0.99)
            found = taken(drawn(rng, true, 300, 0.7, 0.0), 300)
            assert found.at_most is not None
            regrets.append(true.max() - true[int(found.name)])
            kept.append(regrets[-1] <= found.at_most + 1e-9)
            flattery.append(found.best_accuracy - true[int(found.best)])
    assert np.mean(flattery) > 0.005  # the winner's curse
    assert np.mean(kept) >= 0.93
    assert np.mean(regrets) < 0.02


def test_a_smaller_network_that_is_as_good_is_nearly_always_taken_and_a_poor_one_hardly_ever() -> None:
    rng = np.random.default_rng(2)
    names = [taken(drawn(rng, np.array([0.8, 0.92, 0.92]), 300, 0.7, 0.0), 300).name for _ in range(100)]
    assert names.count("1") >= 90
    assert names.count("0") <= 2
