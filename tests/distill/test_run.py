"""What a long computation says of itself."""

from __future__ import annotations

from distill.run import duration


def test_durations_in_words() -> None:
    words = {0.4: "0 s", 89: "89 s", 91: "2 min", 5369: "89 min", 9000: "2 h 30 min", 3 * 86400: "3 days"}
    assert {seconds: duration(seconds) for seconds in words} == words
