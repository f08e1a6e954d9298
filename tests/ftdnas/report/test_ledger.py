from __future__ import annotations

import pytest

from ftdnas.ranking.advice import break_even
from ftdnas.report.ledger import EACH, Stage, shared_note, told_break_even


@pytest.mark.parametrize(
    ("once", "each", "other", "number"),
    [(100, 1, 11, 11), (99, 1, 11, 10), (0, 1, 2, 1), (100, 2, 2, None), (100, 3, 2, None), (0, 0, 0, None)],
)
def test_break_even_by_hand(once: float, each: float, other: float, number: int | None) -> None:
    assert break_even(once, each, other) == number
    if number is not None:
        assert once + each * number < other * number
        assert once + each * (number - 1) >= other * (number - 1)


def test_break_even_in_words() -> None:
    assert told_break_even(3600, 1, 11, "training all") == (
        "Distilling pays beside training all from 361 candidates on: 3,600 s once, then 1 s against 11 s per candidate."
    )
    assert told_break_even(3600, 2, 1, "parameters").startswith("Distilling never pays beside parameters")
    with pytest.raises(ValueError, match="none can be negative"):
        break_even(-1, 1, 1)


def test_a_stage_without_work_costs_nothing_each() -> None:
    assert Stage("screening", 30.0, "cpu", EACH, 12).each_s == 2.5
    assert Stage("screening", 0.0, "cpu", EACH, 0).each_s is None


def test_what_was_counted_above_is_said() -> None:
    assert shared_note(28.0, 28.0) == ""
    assert shared_note(0.0, 28.0) == "the same trainings as above"
    assert shared_note(5.0, 33.0) == "28 s more are counted above"
