from __future__ import annotations

from collections import Counter

import pytest

from search_spaces.base import SPACES, feasible_architectures, parameter_count, stratified_sample

SPACE = SPACES["convnet"]
SHAPE = (3, 16, 16)


@pytest.mark.parametrize("name", SPACES)
def test_a_sample_has_distinct_feasible_members_and_depends_on_the_seed_alone(name: str) -> None:
    space = SPACES[name]
    drawn = stratified_sample(space, 20, (1, 8, 8), 3)
    assert len(set(drawn)) == 20
    assert all(architecture.obstacle((1, 8, 8)) is None for architecture in drawn)
    assert drawn == stratified_sample(space, 20, (1, 8, 8), 3)
    assert drawn != stratified_sample(space, 20, (1, 8, 8), 4)


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
    with pytest.raises(ValueError, match="can carry 3 x 4 x 4 images"):
        stratified_sample(SPACE, 4, (3, 4, 4), 0, {"depth": {4}, "pooling": {"avg"}})
    with pytest.raises(ValueError, match="sample of 0"):
        stratified_sample(SPACE, 0, SHAPE, 0)
