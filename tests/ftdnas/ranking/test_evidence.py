"""What was measured before is said, and that nothing was where nothing was."""

from __future__ import annotations

import evidence as from_results
import pytest

from ftdnas.proxies.names import read_proxy
from ftdnas.ranking.evidence import Evidence, known, limits


def test_what_ships_is_what_the_results_say() -> None:
    pairs = ("all", "better_half", "regret")
    again = [Evidence(**{**one, **{name: tuple(one[name]) for name in pairs}}) for one in from_results.evidence()]
    assert list(known()) == again
    assert len({(one.space, one.proxy, one.labels) for one in again}) == len(again)


def test_a_distilled_set_is_held_up_to_random_images_and_to_what_trains_nothing() -> None:
    lines = limits("nasbench201", read_proxy("set.late_loss"), "set")
    assert [line.split(", ")[2].split(":")[0] for line in lines] == [
        "set.late_loss",
        "random.late_loss",
        "az_nas+params",
    ]
    assert "60 of nasbench201" in lines[0]
    assert "results/2026-11-25_ranking_study" in lines[0]


def test_labels_and_another_screening_are_told_apart() -> None:
    taught = limits("nasbench201", read_proxy("random.late_loss"), "teachers", as_measured=False)
    assert "teachers' labels" in taught[0]
    assert taught[-1] == "that was by another screening than this"
    assert limits("nasbench201", read_proxy("params"), "set", as_measured=False)[-1].startswith("measured before")
    spellings = ("params+set.late_loss", "set.late_loss+params")
    either_way = [limits("convnet", read_proxy(text), "set") for text in spellings]
    assert either_way[0] == either_way[1]
    assert taught[0] != limits("nasbench201", read_proxy("random.late_loss"), "set")[0]


@pytest.mark.parametrize(("space", "proxy"), [("macro", "params"), ("nasbench201", "race")])
def test_where_nothing_was_measured_a_check_is_named(space: str, proxy: str) -> None:
    (line,) = limits(space, read_proxy(proxy), "set")
    assert line == f"how {proxy} ranks {space} was not measured before: ftdnas check does, on a few real trainings"
