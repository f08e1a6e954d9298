"""Short ids of candidates: the first letters of the SHA-256 of the canonical string, as many as a study needs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from ftdnas.runtime.home import typed

FEWEST = 4  # letters
WRITTEN = re.compile(rf"[0-9a-f]{{{FEWEST},64}}")  # no canonical string: those name their space before a colon


def short_ids(architectures: Iterable[str]) -> dict[str, str]:
    """Architecture -> id: equally many letters of each, so many that all differ."""
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in architectures}
    length = FEWEST
    while len({letters[:length] for letters in digests.values()}) < len(digests):
        length += 1
    return {name: letters[:length] for name, letters in digests.items()}


def resolved(text: str, architectures: Iterable[str], where: str) -> str:
    """The architecture whose id begins so; `text` itself where it is no id but a canonical string.

    Raises LookupError where none of them, or more than one, begins so; `where` says of whom they are.
    """
    if not WRITTEN.fullmatch(text):
        return text
    fitting = [name for name in architectures if hashlib.sha256(name.encode()).hexdigest().startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise LookupError(f"{text} could be {len(fitting)} candidates of {where}: give more letters")
    raise LookupError(f"no candidate of {where} has the id {text}: ftdnas studies show {typed(where)} --all lists them")
