"""Which trainings stand for a candidate: equal recipes, equal costs, each architecture once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ftdnas.candidates.training import Training
from ftdnas.proxies.base import Proxy
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.names import find_proxy
from ftdnas.proxies.rank_sum import mean_ranks
from ftdnas.runtime.processes import Failure

Rows = dict[str, Any]
BASE = "convnet:width=32,depth=1,norm={},activation=relu,pooling=avg"
CANDIDATES = [BASE.format(norm) for norm in ("batch", "instance", "none")]
CELL = "nasbench201:|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
# The sum at the second node is the same either way round.
TWINS = [
    CELL.format("nor_conv_1x1", "skip_connect", "none", "nor_conv_3x3", "none", "skip_connect"),
    CELL.format("skip_connect", "nor_conv_1x1", "none", "nor_conv_3x3", "skip_connect", "none"),
]


@pytest.fixture(scope="module")
def bench(make_bench: Callable[..., Workbench]) -> Workbench:
    return make_bench()


def trainings(proxy: Proxy, candidates: list[str], rows: Rows | None = None) -> list[Training]:
    works = proxy.todo(candidates, rows or {})
    assert all(isinstance(work, Training) for work in works)
    return [work for work in works if isinstance(work, Training)]


def test_a_subset_is_trained_on_just_as_the_set(bench: Workbench) -> None:
    on_set = trainings(find_proxy("set", bench), CANDIDATES)
    for name in ("random", "random2", "herding", "kmeans"):
        on_real = trainings(find_proxy(name, bench), CANDIDATES)
        for one, other in zip(on_set, on_real, strict=True):
            assert (one.recipe, one.seed, one.architecture, one.scored_on, one.images_seen) == (
                other.recipe,
                other.seed,
                other.architecture,
                other.scored_on,
                other.images_seen,
            )
            assert one.key != other.key
    first, second = (trainings(find_proxy(name, bench), CANDIDATES)[0].trained_on for name in ("random1", "random2"))
    assert first == trainings(find_proxy("random", bench), CANDIDATES)[0].trained_on
    assert first != second


def test_the_rate_goes_by_the_norm(bench: Workbench, changed: Callable[..., Workbench]) -> None:
    by_norm = changed(bench, lr={"batch": 0.1, "none": 0.01, "other": "set"})
    rates = [work.recipe.lr for work in trainings(find_proxy("set", by_norm), CANDIDATES)]
    assert rates == [0.1, 0.02, 0.01]


def test_early_stopping_sees_as_many_images_on_a_schedule_of_that_length(
    bench: Workbench, changed: Callable[..., Workbench]
) -> None:
    everything = len(bench.data.train)
    for steps in (8, 45, 85):  # of 30 images: less than an epoch, about one, about two
        longer = changed(bench, steps=steps)
        on_set, early = (trainings(find_proxy(name, longer), CANDIDATES)[0] for name in ("set", "early"))
        if on_set.images_seen < everything:
            assert early.images_seen == early.part == on_set.images_seen
            assert early.recipe.epochs == 1
        else:
            assert early.part is None
            assert abs(early.images_seen - on_set.images_seen) <= everything / 2
        assert early.trained_on.images == everything
        assert early.seed not in bench.truth_seeds
        assert early.architecture == on_set.architecture
    given = trainings(find_proxy("early:0.25", bench), CANDIDATES)[0]
    assert given.part == round(0.25 * everything)
    assert trainings(find_proxy("early:3", bench), CANDIDATES)[0].recipe.epochs == 3


def test_equal_total_cost_adds_what_the_set_cost(
    bench: Workbench, carry: Callable[..., Rows], make_bench: Callable[..., Workbench]
) -> None:
    proxy = find_proxy("early_total", bench)
    on_set = trainings(find_proxy("set", bench), CANDIDATES)
    assert trainings(proxy, CANDIDATES) == on_set  # first it has to know what an image costs
    rows = carry(find_proxy("set", bench), bench, CANDIDATES)
    for row in rows.values():
        row["seconds"] = 0.3  # for 240 images
    (work, *_) = trainings(proxy, CANDIDATES, rows)
    # 0.3 s of experts and matching, shared by three, are 80 images at that speed.
    assert work.images_seen == pytest.approx(240 + 80, abs=1)
    rows |= carry(proxy, bench, CANDIDATES, dict(rows))
    own = [row["seconds"] for row in rows.values() if row["part"] is not None]
    assert proxy.seconds(CANDIDATES, rows) == pytest.approx(math.fsum(own))
    assert bench.synthetic is not None
    dear = make_bench(synthetic=bench.synthetic.with_provenance(seconds={"experts": 1e6}))
    (capped, *_) = trainings(find_proxy("early_total", dear), CANDIDATES, rows)
    assert capped.recipe.epochs == 2  # as long as the truth


def test_cells_that_compute_the_same_are_trained_once(bench: Workbench) -> None:
    proxy = find_proxy("set", bench)
    (work,) = trainings(proxy, TWINS)
    row = {**work.failed(Failure("died")), "error": None, "late_loss": 0.5, "losses": [0.5], "seconds": 7.0}
    assert proxy.column(TWINS, {work.key: row}) == [-0.5, -0.5]
    assert proxy.seconds(TWINS, {work.key: row}) == 7.0


def test_the_shrunk_network_is_trained_on_smaller_pictures(
    bench: Workbench, changed: Callable[..., Workbench], carry: Callable[..., Rows]
) -> None:
    small = changed(bench, shrink=True, pixels=4)
    (on_set,), (early,) = (trainings(find_proxy(name, small), TWINS) for name in ("set", "early"))
    for work in (on_set, early):
        assert work.architecture.startswith("nasbench201:cells=1:")
        assert work.trained_on.name.endswith("at 4 pixels")
        assert work.scored_on.name.endswith("at 4 pixels")
    assert small.shelf[on_set.trained_on.fingerprint].examples.image_shape == (1, 4, 4)
    (real, *_) = small.real_trainings(TWINS[0])
    assert "cells=" not in real.architecture
    assert "pixels" not in real.trained_on.name
    rows = carry(find_proxy("set", small), small, TWINS)
    assert len(rows) == 1
    assert None not in find_proxy("set", small).column(TWINS, rows)


def test_several_seeds_are_averaged_and_shown_apart(
    bench: Workbench, changed: Callable[..., Workbench], carry: Callable[..., Rows]
) -> None:
    twice = changed(bench, seeds=2)
    proxy, alone = find_proxy("set+params", twice), find_proxy("set", twice)
    rows = carry(proxy, twice, CANDIDATES)
    assert len(rows) == 6
    assert {work.seed for work in trainings(alone, CANDIDATES)} == {0, 1}
    seeds = alone.by_seed(CANDIDATES, rows)
    mean = np.mean(np.array(seeds, dtype=float), axis=0)
    assert alone.column(CANDIDATES, rows) == pytest.approx(mean)
    params = find_proxy("params", twice).column(CANDIDATES, rows)
    assert proxy.by_seed(CANDIDATES, rows) == [mean_ranks([seed, params]) for seed in seeds]
    assert find_proxy("params", twice).by_seed(CANDIDATES, rows) == []
    assert find_proxy("set", bench).by_seed(CANDIDATES, rows) == []
    one = next(key for key, row in rows.items() if row["seed"] == 1)
    rows[one] = {**rows[one], "error": "diverged", "score": None, "late_loss": None}
    assert alone.column(CANDIDATES, rows).count(None) == 1
    assert alone.errors(CANDIDATES, rows).count("diverged") == 1


def test_a_dead_network_keeps_its_score_and_is_named(bench: Workbench, carry: Callable[..., Rows]) -> None:
    proxy = find_proxy("set", bench)
    rows = carry(proxy, bench, CANDIDATES)
    key = trainings(proxy, CANDIDATES)[1].key
    rows[key] = {**rows[key], "score": 0.1}
    assert None not in proxy.column(CANDIDATES, rows)
    error = proxy.errors(CANDIDATES, rows)[1]
    assert error is not None
    assert error.startswith("dead: 10.0%")
