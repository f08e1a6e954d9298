"""A race and rank sums, by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ftdnas.candidates.training import Training
from ftdnas.proxies.bench import Workbench
from ftdnas.proxies.names import find_proxy
from ftdnas.proxies.race import Race
from ftdnas.proxies.rank_sum import mean_ranks

Rows = dict[str, Any]
CANDIDATES = [
    f"convnet:width={width},depth=1,norm={norm},activation=relu,pooling=avg"
    for width in (8, 16, 24)
    for norm in ("batch", "instance", "none")
]


@pytest.fixture(scope="module")
def race(make_bench: Callable[..., Workbench]) -> Race:
    return Race(make_bench(rungs=(1, 3, 9, 27)))


def ended(works: Sequence[Training], accuracies: Sequence[float | None]) -> Rows:
    """Rows of works that ended with these accuracies; None failed."""
    return {
        work.key: {
            "key": work.key,
            "score": accuracy,
            "losses": [],
            "late_loss": None if accuracy is None else 1 - accuracy,
            "error": "diverged" if accuracy is None else None,
            "seconds": 1.0,
            "scored_on": {"images": 2500, "classes": 10},
        }
        for work, accuracy in zip(works, accuracies, strict=True)
    }


def test_the_best_third_goes_on_and_is_trained_anew(make_bench: Callable[..., Workbench]) -> None:
    race = Race(make_bench(rungs=(1, 3, 9, 27), truth=None))
    first = race.todo(CANDIDATES, {})
    assert [work.architecture for work in first] == CANDIDATES
    assert {work.recipe.epochs for work in first} == {1}
    rows = ended(first, [0.2, 0.9, 0.3, 0.8, 0.4, 0.7, None, 0.11, 0.6])
    assert race.todo(CANDIDATES, {key: rows[key] for key in list(rows)[:4]}) == first[4:]
    second = race.todo(CANDIDATES, rows)
    assert [CANDIDATES.index(work.architecture) for work in second] == [1, 3, 5]
    assert {work.recipe.epochs for work in second} == {3}
    assert not {work.seed for work in second} & {work.seed for work in first}
    rows |= ended(second, [0.85, 0.95, 0.90])
    assert race.todo(CANDIDATES, rows) == []  # a third of three is one: nobody is left to race with
    assert race.column(CANDIDATES, rows) == [0.2, 1.85, 0.3, 1.95, 0.4, 1.9, None, 0.11, 0.6]
    errors = race.errors(CANDIDATES, rows)
    assert errors[6] == "diverged"
    assert errors[7] == "dead: chance level after 1 epochs"
    assert errors[:6] == [None] * 6
    assert race.seconds(CANDIDATES, rows) == 12


def test_equals_are_told_apart_by_their_late_loss(race: Race) -> None:
    rows = ended(race.todo(CANDIDATES, {}), [0.5] * 9)
    for place, key in enumerate(rows):
        rows[key]["late_loss"] = abs(place - 6)
    bench = race.bench
    longer = Race(Workbench(bench.data, bench.screening, 0, bench.synthetic, rungs=(1, 3), truth=None))
    first = longer.todo(CANDIDATES, {})
    rows = {work.key: row for work, row in zip(first, rows.values(), strict=True)}
    assert [CANDIDATES.index(work.architecture) for work in longer.todo(CANDIDATES, rows)] == [6, 5, 7]


def test_no_rung_is_as_long_as_the_truth(race: Race) -> None:
    assert race.bench.truth is not None
    assert race.bench.truth.epochs == 2
    rows = ended(race.todo(CANDIDATES, {}), [0.5] * 9)
    assert race.todo(CANDIDATES, rows) == []
    assert race.column(CANDIDATES, rows) == [0.5] * 9
    assert race.title == "race on all real images (1 epochs, best third on)"


def test_fractions_of_an_epoch_are_random_parts(make_bench: Callable[..., Workbench]) -> None:
    bench = make_bench(rungs=(0.1, 0.3))
    first = Race(bench).todo(CANDIDATES, {})
    assert {(work.part, work.recipe.epochs) for work in first} == {(round(0.1 * len(bench.data.train)), 1)}


def test_mean_ranks_by_hand() -> None:
    #                     ranks: 1     2.5   -     2.5   4         4     1.5   -    1.5   3
    assert mean_ranks([[1.0, 5.0, None, 5.0, 9.0], [8.0, 2.0, 3.0, 2.0, 6.0]]) == [2.5, 2.0, None, 2.0, 3.5]
    assert mean_ranks([[None, 1.0], [1.0, None]]) == [None, None]


def test_a_row_that_two_parts_use_costs_once(make_bench: Callable[..., Workbench], carry: Callable[..., Rows]) -> None:
    bench = make_bench()
    few = CANDIDATES[:2]
    both, one = find_proxy("set.accuracy+set.late_loss", bench), find_proxy("set.accuracy", bench)
    rows = carry(both, bench, few)
    assert len(rows) == 2
    assert both.seconds(few, rows) == pytest.approx(one.seconds(few, rows))
    assert both.seconds(few, rows) > 0
    with_measure = find_proxy("set.accuracy+synflow", bench)
    rows = carry(with_measure, bench, few, rows)
    alone = find_proxy("synflow", bench).seconds(few, rows)
    assert with_measure.seconds(few, rows) == pytest.approx(one.seconds(few, rows) + alone)


def test_a_failure_is_said_before_a_death(make_bench: Callable[..., Workbench]) -> None:
    bench = make_bench()
    both = find_proxy("set.accuracy+random.accuracy", bench)
    works = both.todo(CANDIDATES[:1], {})
    assert len(works) == 2
    rows = ended(works, [0.1, None])  # type: ignore[arg-type]
    assert both.column(CANDIDATES[:1], rows) == [None]
    assert both.errors(CANDIDATES[:1], rows) == ["random.accuracy: diverged"]
    rows = ended(works, [0.1, 0.5])  # type: ignore[arg-type]
    (error,) = both.errors(CANDIDATES[:1], rows)
    assert error is not None
    assert error.startswith("set.accuracy: dead")
    assert both.column(CANDIDATES[:1], rows) == [1.0]
