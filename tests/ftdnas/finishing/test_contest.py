"""Who wins among finalists, and with which rate and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from ftdnas.candidates.materials import Label
from ftdnas.finishing.contest import LATE, RATE, RATES, Contest
from ftdnas.finishing.finalist import FinalistTraining
from ftdnas.runtime.rows import Row

DEFAULTS = ("convnet:width=32,depth=2", "convnet:width=64,depth=2")
SEARCHED = ("convnet:width=64,depth=3", "convnet:width=128,depth=3")
OWN, TAUGHT, HELD = (Label(name, name, 100, 10) for name in ("x, own labels", "x, taught", "held"))
Reached = Callable[[str, float, bool], float | None]


def contest(taught: Label | None = None, seconds: float = 1000.0) -> Contest:
    epoch_s = dict(zip((*DEFAULTS, *SEARCHED), (0.5, 1.0, 0.9, 1.5), strict=True))
    return Contest(DEFAULTS[1], DEFAULTS[:1], SEARCHED, OWN, taught, HELD, epoch_s, seconds, 1, 0, Path("weights"))


def trained(
    reached: Reached, seen: list[FinalistTraining]
) -> Callable[[Sequence[FinalistTraining]], Mapping[str, Row]]:
    def carry_out(works: Sequence[FinalistTraining]) -> Mapping[str, Row]:
        seen.extend(works)
        return {work.key: row(work) for work in works}

    def row(work: FinalistTraining) -> Row:
        accuracy = reached(work.architecture, work.recipe.lr or 0.0, work.training.trained_on is TAUGHT)
        return {"score": accuracy, "seconds": work.seconds, "error": None if accuracy is not None else "it failed"}

    return carry_out


def winner(reached: Reached, taught: Label | None = None) -> tuple[str, float, bool]:
    first = contest(taught).held(trained(reached, []))[0]
    return first.architecture, first.lr, first.taught


def test_a_default_network_wins_where_nothing_is_surely_better() -> None:
    assert winner(lambda name, _, __: 0.62 if name in SEARCHED else 0.60) == (DEFAULTS[1], RATE, False)
    assert winner(lambda name, _, __: 0.66 if name == SEARCHED[1] else 0.60) == (SEARCHED[1], RATE, False)


def test_a_smaller_network_must_be_better_by_more() -> None:
    assert winner(lambda name, _, __: 0.66 if name == SEARCHED[0] else 0.60) == (DEFAULTS[1], RATE, False)
    assert winner(lambda name, _, __: 0.72 if name == SEARCHED[0] else 0.60) == (SEARCHED[0], RATE, False)


def test_the_smaller_default_network_only_stands_in() -> None:
    assert winner(lambda name, _, __: 0.80 if name == DEFAULTS[0] else 0.60) == (DEFAULTS[1], RATE, False)


def test_the_best_is_tried_with_other_rates() -> None:
    assert winner(lambda name, lr, _: 0.5 + 0.1 * (name == SEARCHED[1]) + lr) == (SEARCHED[1], max(RATES), False)


def test_a_teacher_is_taken_where_it_helps() -> None:
    assert winner(lambda _, __, taught: 0.6 + 0.05 * taught, TAUGHT)[2]
    assert not winner(lambda _, __, taught: 0.6 - 0.05 * taught, TAUGHT)[2]


def test_what_fails_is_left_behind() -> None:
    assert winner(lambda name, _, __: None if name == DEFAULTS[1] else 0.4)[0] == DEFAULTS[0]
    with pytest.raises(ValueError, match=r"no finalist could be trained: .*: it failed"):
        winner(lambda *_: None)


def test_it_takes_the_time_that_it_has() -> None:
    for seconds in (100.0, 1000.0):
        for label in (None, TAUGHT):
            seen: list[FinalistTraining] = []
            one = contest(label, seconds)
            one.held(trained(lambda *_: 0.5, seen))
            assert 0.6 * seconds < sum(work.recipe.epochs * one.epoch_s[work.architecture] for work in seen) <= seconds
            assert all(work.seconds == LATE * work.recipe.epochs * one.epoch_s[work.architecture] for work in seen)
    assert contest(None, 20.0).rates == ()
    assert contest(None, 1.0).epochs == 1
