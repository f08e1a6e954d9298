"""A form from the fields of a command's request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftdnas.runtime.options import Asked, asked_of

FIRST = (
    "dataset",
    "space",
    "set",
    "study",
    "truth",
    "ipc",
    "candidates",
    "method",
    "recipe",
    "name",
    "proxy",
    "compare",
)
FEW = 6  # so many are all in sight


@dataclass(frozen=True)
class Field:
    """One input. `kind`: choice, number, integer, words or text; `main`: not under "more settings"."""

    name: str
    kind: str
    help: str
    choices: Sequence[str]
    value: str
    required: bool
    main: bool
    default: str


def fields_of(request: type, choices: Mapping[str, Sequence[str]], given: Mapping[str, str]) -> list[Field]:
    """The inputs of a command's request, the usual ones first; `choices` by name, `given` fills them in."""
    shown = [asked for asked in asked_of(request) if not asked.option.local and not asked.is_mapping]
    fields = [_field(asked, choices.get(asked.name, ()), given, len(shown) <= FEW) for asked in shown]
    return sorted(fields, key=lambda field: [*FIRST, field.name].index(field.name))


def _field(asked: Asked, known: Sequence[str], given: Mapping[str, str], few: bool) -> Field:
    choices = ["true", "false"] if asked.kind is bool else list(asked.choices) or list(known)
    kinds = {int: "integer", float: "number"}
    kind = "words" if asked.many else "choice" if choices else kinds.get(asked.kind, "text")
    default = "" if asked.default in (None, ()) else str(asked.default)
    default = default.lower() if asked.kind is bool else default
    value, main = given.get(asked.name, default), few or asked.required or asked.name in FIRST
    return Field(asked.name, kind, asked.option.help, choices, value, asked.required, main, default)
