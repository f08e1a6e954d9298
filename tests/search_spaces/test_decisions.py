from __future__ import annotations

from collections import Counter

import pytest
import torch

from search_spaces.decisions import (
    Decisions,
    RandomDecisions,
    ReplayDecisions,
    Walk,
    enumerate_decisions,
    estimated_count,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nested(decisions: Decisions) -> tuple[object, ...]:
    kind = decisions.suggest_categorical("kind", ["plain", "deep"])
    if kind == "plain":
        return (kind, decisions.suggest_float("rate", 0.0, 0.5, step=0.25))
    return (
        kind,
        decisions.suggest_int("depth", 2, 6, step=2),
        decisions.suggest_categorical("kind", ["plain", "deep"]),
    )


def test_every_way_is_listed_once_the_last_decision_fastest() -> None:
    assert list(enumerate_decisions(nested, 6)) == [
        ("plain", 0.0),
        ("plain", 0.25),
        ("plain", 0.5),
        ("deep", 2, "deep"),
        ("deep", 4, "deep"),
        ("deep", 6, "deep"),
    ]
    assert list(enumerate_decisions(lambda _: "only", 1)) == ["only"]
    assert nested(Walk(())) == ("plain", 0.0)
    assert nested(Walk((1, 2))) == ("deep", 6, "deep")


def test_how_many_ways_there_are_is_estimated_from_random_walks() -> None:
    assert estimated_count(nested, 20) == 6  # both kinds have three ways to go on
    lopsided = estimated_count(lambda ask: ask.suggest_int("n", 0, 9) or ask.suggest_int("m", 1, 91), 2_000)
    assert abs(lopsided - 100) < 24  # 10 for nine walks of ten, else 910: four deviations
    with pytest.raises(ValueError, match="rate is any number between 0 and 1"):
        estimated_count(lambda decisions: decisions.suggest_float("rate", 0, 1), 1)


def test_what_has_no_end_is_not_listed() -> None:
    with pytest.raises(ValueError, match="more than 5 architectures"):
        list(enumerate_decisions(nested, 5))
    with pytest.raises(ValueError, match="rate is any number between 0 and 1: such a space can only be sampled"):
        list(enumerate_decisions(lambda decisions: decisions.suggest_float("rate", 0, 1), 5))


def test_random_decisions_are_uniform_over_what_there_is() -> None:
    decisions = RandomDecisions(generator())
    drawn = Counter(decisions.suggest_int("n", 2, 8, step=3) for _ in range(3000))
    assert sorted(drawn) == [2, 5, 8]
    assert all(abs(count - 1000) < 120 for count in drawn.values())  # 4.6 deviations
    few = Counter(decisions.suggest_categorical("c", ["a", "b"]) for _ in range(1000))
    assert abs(few["a"] - 500) < 75
    steps = {decisions.suggest_float("f", 0.1, 0.5, step=0.2) for _ in range(100)}
    assert sorted(steps) == pytest.approx([0.1, 0.3, 0.5])
    logs = torch.tensor([decisions.suggest_float("l", 1e-4, 1.0, log=True) for _ in range(2000)]).log10()
    assert abs(float(logs.mean()) + 2) < 0.12
    assert -4 <= float(logs.min()) < float(logs.max()) <= 0
    wholes = Counter(decisions.suggest_int("w", 1, 100, log=True) for _ in range(2000))
    assert min(wholes) == 1
    assert max(wholes) > 80
    assert abs(sum(count for value, count in wholes.items() if value <= 10) - 1150) < 110  # log 21 / log 201


def test_random_decisions_keep_to_what_is_asked_for() -> None:
    decisions = RandomDecisions(generator(), {"kind": {"deep"}, "depth": {2, 6}})
    assert {nested(decisions) for _ in range(60)} == {("deep", 2, "deep"), ("deep", 6, "deep")}
    with pytest.raises(ValueError, match="depth is never 3"):
        nested(RandomDecisions(generator(), {"kind": {"deep"}, "depth": {3}}))


def test_equal_seeds_decide_alike() -> None:
    first, second = RandomDecisions(generator(5)), RandomDecisions(generator(5))
    assert [nested(first) for _ in range(20)] == [nested(second) for _ in range(20)]


def test_what_was_decided_is_replayed() -> None:
    assert nested(ReplayDecisions({"kind": "deep", "depth": 4, "left": 1})) == ("deep", 4, "deep")
    # The last digit of a number on a grid is the grid's.
    assert ReplayDecisions({"f": 0.3}).suggest_float("f", 0.0, 1.0, step=0.1) == 3 * 0.1
    assert ReplayDecisions({"f": 0.3}).suggest_float("f", 0.0, 1.0) == 0.3


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "kind is not given: it is one of plain, deep"),
        ({"kind": "flat"}, "kind=flat is not one of plain, deep"),
        ({"kind": "deep", "depth": 3}, "depth=3 is not a whole number between 2 and 6 in steps of 2"),
        ({"kind": "deep", "depth": "4"}, "depth=4 is not a whole number"),
        ({"kind": "deep", "depth": True}, "depth=True is not a whole number"),
        ({"kind": "plain", "rate": "0.25"}, "rate=0.25 is not a number"),
        ({"kind": "plain", "rate": 0.3}, "rate=0.3 is not a number between 0 and 0.5 in steps of 0.25"),
    ],
)
def test_what_was_never_decided_is_said(choices: dict[str, str | int | float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nested(ReplayDecisions(choices))


def test_a_fallback_answers_what_was_never_decided() -> None:
    replay = ReplayDecisions({"kind": "deep", "depth": 3}, RandomDecisions(generator()))
    decided = nested(replay)
    assert decided[0] == "deep"
    assert decided[1] in (2, 4, 6)
    assert nested(replay) == decided  # a name is decided once
    assert nested(ReplayDecisions({"kind": "deep", "depth": 3}, Walk(()))) == ("deep", 2, "deep")


def test_questions_without_an_answer_are_refused() -> None:
    random = RandomDecisions(generator())
    with pytest.raises(ValueError, match="c has no choices"):
        random.suggest_categorical("c", [])
    with pytest.raises(ValueError, match="no whole number lies between 5 and 3"):
        random.suggest_int("n", 5, 3)
    with pytest.raises(ValueError, match="the logarithm of 0 is not a number"):
        random.suggest_int("n", 0, 3, log=True)
