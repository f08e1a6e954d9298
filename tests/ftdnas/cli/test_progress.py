from __future__ import annotations

import io

import pytest

from distill.run import Pace, Progress, about
from ftdnas.cli.progress import INTERVAL_S, PlainLines, figures, progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_are_rare_but_messages_always_come() -> None:
    clock, stream = Clock(), io.StringIO()
    listener = PlainLines(stream, clock)
    for step in range(1, 101):
        clock.now += 1.0
        listener(Progress("matching", step, 100, {"matching_loss": 1 / step}))
        if step in (50, 51):
            listener(Progress("matching", step, 100, message=f"note {step}"))
    lines = stream.getvalue().splitlines()
    assert [line for line in lines if line.startswith("note")] == ["note 50", "note 51"]
    assert len(lines) == 2 + 100 / INTERVAL_S
    assert lines[0] == "matching 5/100  matching loss 0.2"  # too early to say
    assert lines[1] == "matching 10/100  matching loss 0.1  1 to 2 min left"
    assert lines[-1] == "matching 100/100  matching loss 0.01"


def test_a_long_log_gets_a_line_a_minute() -> None:
    clock, stream = Clock(), io.StringIO()
    listener = PlainLines(stream, clock)
    for step in range(7200):
        clock.now += 1.0
        listener(Progress("matching", step, 7200))
    assert 100 + 60 < len(stream.getvalue().splitlines()) < 100 + 120


def test_time_left_counts_only_what_was_done_here() -> None:
    clock, stream = Clock(), io.StringIO()
    listener = PlainLines(stream, clock)
    listener(Progress("matching", 300, 400))  # an interrupted run goes on
    clock.now = 100.0  # spent on loading and compiling
    listener(Progress("matching", 301, 400))
    clock.now = 109.0
    listener(Progress("matching", 310, 400))
    assert stream.getvalue() == "matching 301/400\nmatching 310/400  RANGE left\n".replace("RANGE", about(90))


def test_time_left_weighs_what_is_known_to_cost_more_and_waits_for_every_process() -> None:
    clock = Clock()
    pace = Pace(clock)
    told = []
    done = 0.0
    pace.left_s(Progress("truth", 0, 10))
    for step, cost in enumerate([16.0, 16.0, 8.0, 8.0, 4.0, 4.0, 1.0, 1.0, 1.0, 1.0], start=1):
        clock.now += cost / 2 + 20 * (step == 1)  # two processes, which begin slowly; the dearest first
        done += cost
        told.append(pace.left_s(Progress("truth", step, 10, share=done / 60, at_once=2)))
    assert told[:4] == [None] * 4
    assert told[4:9] == pytest.approx([4.0, 2.0, 1.5, 1.0, 0.5])
    assert told[9] is None  # done


def test_time_left_hears_of_a_machine_that_became_slower() -> None:
    clock = Clock()
    pace = Pace(clock)
    told = 0.0
    for step in range(101):
        clock.now += 1.0 if step <= 40 else 4.0
        told = pace.left_s(Progress("matching", step, 200)) or told
    assert told == pytest.approx(400, rel=0.1)


def test_figures() -> None:
    assert figures(Progress("x", 1, 2, {"step_size": 0.04, "validation_accuracy": 0.4651})) == (
        "step size 0.04  validation accuracy 46.5 %"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("as_json", [False, True])
def test_a_terminal_gets_bars_and_messages_that_stay(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with progress(as_json, stream) as listener:
        listener(Progress("experts", 0, 0, message="[brackets] are text"))
        listener(Progress("experts", 1, 4, {"expert_loss": 2.0}))
        listener(Progress("experts", 4, 4))
        for step in range(10):
            listener(Progress("matching", step, 10))
        listener(Progress("validating", 7, 7))
        listener(Progress("validating", 3, 7))  # again from the start
    written = stream.getvalue()
    assert "[brackets] are text\n" in written
    assert "experts" in written
    assert "4/4" in written
    assert " s left" in written
    assert written.index("7/7") < written.rindex("3/7")
    assert "expert loss 2" in written


def test_elsewhere_json_means_silence() -> None:
    for as_json, expected in ((True, ""), (False, "hello\n")):
        stream = io.StringIO()
        with progress(as_json, stream) as listener:
            listener(Progress("experts", 0, 0, message="hello"))
        assert stream.getvalue() == expected
