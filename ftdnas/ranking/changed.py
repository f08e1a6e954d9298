"""A study whose space comes from files: whether they say what they said, and how it is read where they do not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from search_spaces.base import RECORDED
from search_spaces.outside.recorded import RecordedArchitecture, RecordedSpace


def what_changed(settings: Mapping[str, Any]) -> str:
    """What is another now in the files of a study's space, in words; "" where nothing is."""
    space, code = str(settings.get("space")), settings.get("code")
    if not code or space in RECORDED.get():
        return ""
    from search_spaces.outside.load import changes

    try:
        found = changes(space, str(code))
    except (ValueError, LookupError, OSError) as error:
        found = str(error)
    return found and f"{space} is not what the study was made with: {found}"


def check_unchanged(settings: Mapping[str, Any]) -> None:
    """Raise ValueError where training the study's candidates would train other networks than were ranked."""
    if changed := what_changed(settings):
        raise ValueError(f"{changed}; what it ranked cannot be trained now: take the change back, or search anew")


@contextlib.contextmanager
def as_recorded(study: str, settings: Mapping[str, Any], candidates: Iterable[Any]) -> Iterator[str]:
    """Inside the block the study's `candidates`, as its ranking has them, are what they were then, to be read.

    Gives what has changed since, "" where nothing has.
    """
    if not (why := what_changed(settings)):
        yield ""
        return
    space, code = str(settings["space"]), str(settings["code"])
    known = {}
    for one in candidates:
        text = one.architecture.removeprefix(f"{space}:")
        choices = one.choices or json.loads(text)  # which earlier versions did not write down
        known[text] = RecordedArchitecture(
            (space, one.architecture, code), one.parameters, one.flops, tuple(choices.items()), why
        )
    recorded = RecordedSpace(space, code, study, why, known)
    token = RECORDED.set({**RECORDED.get(), space: recorded})
    try:
        yield why
    finally:
        RECORDED.reset(token)
