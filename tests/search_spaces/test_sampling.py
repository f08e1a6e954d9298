from __future__ import annotations

from collections import Counter

import pytest

from search_spaces import sampling
from search_spaces.base import (
    SPACES,
    Architecture,
    ImageShape,
    Restriction,
    feasible_architectures,
    known_choices,
    parameter_count,
    random_architectures,
    stratified_sample,
)

SPACE = SPACES["convnet"]
SHAPE = (3, 16, 16)


# Of some spaces a corner, whose networks are small: every weight of 120 of them is counted.
CORNERS: dict[str, Restriction] = {
    "convnet": {},
    "nasbench201": {},
    "macro": {f"layer{number}": {"0", "2"} if number < 6 else {"0"} for number in range(1, 9)},
    "residual": {"depth1": {1}, "depth2": {1}, "depth3": {1, 2}},
    "mobilenet": {"depth1": {1}, "depth2": {1}, "depth3": {1, 2}, "se": {0}},
}


@pytest.mark.parametrize("name", SPACES)
def test_a_sample_has_distinct_feasible_members_and_depends_on_the_seed_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "BLOCK", 120)
    space, corner = SPACES[name], CORNERS[name]
    drawn = stratified_sample(space, 12, (1, 8, 8), 3, corner)
    assert len({architecture.representative() for architecture in drawn}) == 12
    assert all(architecture.obstacle((1, 8, 8)) is None for architecture in drawn)
    assert all(architecture.choices[key] in values for architecture in drawn for key, values in corner.items())
    assert drawn == stratified_sample(space, 12, (1, 8, 8), 3, corner)
    assert drawn[:5] == stratified_sample(space, 5, (1, 8, 8), 3, corner)
    if name in ("convnet", "nasbench201"):
        assert drawn != stratified_sample(space, 12, (1, 8, 8), 4, corner)


def test_a_large_space_is_sampled_from_500_of_its_architectures_and_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = SPACES["nasbench201"]
    weighed: list[Architecture] = []

    def count(architecture: Architecture, image_shape: ImageShape, num_classes: int) -> int:
        weighed.append(architecture)
        return parameter_count(architecture, image_shape, num_classes)

    monkeypatch.setattr(sampling, "parameter_count", count)
    drawn = stratified_sample(space, 48, (3, 24, 24), 0)
    assert 48 < len(weighed) <= 500  # of 15,625; alike ones are weighed once
    more = stratified_sample(space, 1_000, (3, 24, 24), 0)  # more than stand for the space at first
    assert more[:48] == drawn
    assert len({architecture.representative() for architecture in more}) == 1_000


def test_a_sample_of_a_large_space_has_its_shares() -> None:
    space = SPACES["nasbench201"]
    drawn = stratified_sample(space, 50, SHAPE, 1)
    alike = {
        architecture.representative(): architecture for architecture in reversed(random_architectures(space, 500, 1))
    }
    for key in drawn[0].choices:
        counts = Counter(architecture.choices[key] for architecture in drawn)
        shares = Counter(architecture.choices[key] for architecture in alike.values())
        assert all(abs(counts[value] - 50 * share / len(alike)) <= 4 for value, share in shares.items())
    everyone = sorted(parameter_count(architecture, SHAPE, 10) for architecture in space.architectures())
    sizes = [parameter_count(architecture, SHAPE, 10) for architecture in drawn]
    for part in range(1, 5):
        assert abs(sum(size <= everyone[3_125 * part] for size in sizes) - 10 * part) <= 8


def test_random_architectures_differ_and_end_where_the_space_does() -> None:
    space = SPACES["macro"]
    drawn = random_architectures(space, 100, 7)
    assert len({architecture.name for architecture in drawn}) == 100
    assert random_architectures(space, 30, 7) == drawn[:30]
    assert random_architectures(space, 30, 8) != drawn[:30]
    assert 715 < len(random_architectures(SPACE, 10_000, 0)) <= 720


def test_the_choices_of_a_space_are_known() -> None:
    assert known_choices(SPACE)["norm"] == ("none", "batch", "layer", "instance", "group")
    assert known_choices(SPACES["macro"]) == {f"layer{number}": ("0", "1", "2") for number in range(1, 9)}


def test_only_what_fits_is_taken() -> None:
    def wide(architecture: Architecture) -> str | None:
        return "too wide" if parameter_count(architecture, SHAPE, 10) >= 30_000 else None

    drawn = stratified_sample(SPACE, 1_000, SHAPE, 0, fits=wide)
    assert set(drawn) == {architecture for architecture in SPACE.architectures() if wide(architecture) is None}
    with pytest.raises(ValueError, match=r"can carry 3 x 16 x 16 images within the limits: nasbench201:.*: too large$"):
        stratified_sample(SPACES["nasbench201"], 4, SHAPE, 0, fits=lambda _: "too large")


def test_a_smaller_sample_begins_a_larger_one() -> None:
    larger = stratified_sample(SPACE, 60, SHAPE, 5)
    assert stratified_sample(SPACE, 16, SHAPE, 5) == larger[:16]


@pytest.mark.parametrize("seed", range(4))
def test_sizes_and_choices_have_their_shares(seed: int) -> None:
    drawn = stratified_sample(SPACE, 48, SHAPE, seed)
    for key, expected in (("width", 12), ("depth", 12), ("norm", 9.6), ("pooling", 16)):
        counts = Counter(architecture.choices[key] for architecture in drawn)
        assert all(abs(count - expected) <= 3 for count in counts.values()), counts
        assert len(counts) == len({architecture.choices[key] for architecture in SPACE.architectures()})
    everyone = sorted(parameter_count(architecture, SHAPE, 10) for architecture in SPACE.architectures())
    sizes = [parameter_count(architecture, SHAPE, 10) for architecture in drawn]
    for part in range(1, 8):  # the share below each eighth of the space, against 6 a part
        assert abs(sum(size <= everyone[90 * part] for size in sizes) - 6 * part) <= 3


def test_balance_is_better_than_that_of_random_draws_and_nobody_is_shut_out() -> None:
    draws = [stratified_sample(SPACE, 36, SHAPE, seed, {"depth": {2}}) for seed in range(40)]
    appearances = Counter(architecture for drawn in draws for architecture in drawn)
    assert len(appearances) > 175  # of 180; 40 draws of a fifth leave one out with probability 1e-4
    assert max(appearances.values()) < 20  # 8 each in the mean
    spread = sum((sum(a.choices["norm"] == "none" for a in drawn) - 7.2) ** 2 for drawn in draws) / len(draws)
    assert spread < 1  # random draws without replacement: 36 * 0.2 * 0.8 * 144 / 179 = 4.6


def test_a_restriction_is_kept_and_what_is_infeasible_is_counted() -> None:
    narrow = {"width": {32, 64}}
    feasible, left_out = feasible_architectures(SPACE, (1, 8, 8), narrow)
    assert (len(feasible), left_out) == (300, 60)
    assert {architecture.choices["width"] for architecture in feasible} == {32, 64}
    assert set(stratified_sample(SPACE, 16, (1, 8, 8), 0, narrow)) <= set(feasible)
    assert len(stratified_sample(SPACE, 1000, (1, 8, 8), 0, {"width": {32}, "depth": {1, 4}})) == 60


def test_what_cannot_be_sampled_is_said() -> None:
    with pytest.raises(ValueError, match=r"unknown choice 'widht': did you mean width\?"):
        stratified_sample(SPACE, 4, SHAPE, 0, {"widht": {32}})
    with pytest.raises(ValueError, match="unknown width 48: choose from 32, 64, 128, 256"):
        stratified_sample(SPACE, 4, SHAPE, 0, {"width": {48}})
    with pytest.raises(ValueError, match=r"unknown choice 'layer9': did you mean layer"):
        stratified_sample(SPACES["macro"], 4, SHAPE, 0, {"layer9": {"0"}})
    with pytest.raises(ValueError, match="unknown layer1 '3': choose from 0, 1, 2"):
        feasible_architectures(SPACES["macro"], SHAPE, {"layer1": {"3"}})
    with pytest.raises(ValueError, match="can carry 3 x 4 x 4 images"):
        stratified_sample(SPACE, 4, (3, 4, 4), 0, {"depth": {4}, "pooling": {"avg"}})
    with pytest.raises(ValueError, match="sample of 0"):
        stratified_sample(SPACE, 0, SHAPE, 0)
