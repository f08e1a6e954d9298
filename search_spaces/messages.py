"""What is said of a wrong name and of an exception."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def hint(wrong: str, known: Iterable[object]) -> str:
    """A question "did you mean ..." where a choice is near, else all the choices."""
    choices = [str(choice) for choice in known]
    near = difflib.get_close_matches(wrong.lower(), choices, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(choices)}"


FOREIGN = (Exception, SystemExit)  # what somebody else's code may raise, and its own candidate fails by


def one_line(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
