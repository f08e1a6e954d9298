"""A form from the schema of a job's request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftdnas.service.requests import JobRequest

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
HIDDEN = ("json_output", "settings")


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

    @property
    def title(self) -> str:
        return self.name.replace("_", " ")


def fields_of(request: type[JobRequest], choices: Mapping[str, Sequence[str]], given: Mapping[str, str]) -> list[Field]:
    """The inputs of a kind of job, the usual ones first; `given` fills them in."""
    schema = request.model_json_schema()
    shown = {name: told for name, told in schema["properties"].items() if name not in HIDDEN}
    few = len(shown) <= FEW
    found = [
        _field(name, told, choices, given, name in schema.get("required", ()), few) for name, told in shown.items()
    ]
    order = {name: place for place, name in enumerate(FIRST)}
    return sorted(found, key=lambda field: order.get(field.name, len(order)))


def _field(
    name: str,
    told: Mapping[str, Any],
    choices: Mapping[str, Sequence[str]],
    given: Mapping[str, str],
    required: bool,
    few: bool,
) -> Field:
    parts = [told, *(part for part in told.get("anyOf", ()) if part.get("type") != "null")]
    kinds = {part.get("type") for part in parts}
    own = next((list(map(str, part["enum"])) for part in parts if "enum" in part), None)
    default = told.get("default")
    kind = "text"
    if own is not None or choices.get(name):
        kind = "choice"
    elif "array" in kinds:
        kind = "words"
    elif "integer" in kinds:
        kind = "integer"
    elif kinds & {"number"} and "string" not in kinds:
        kind = "number"
    shown = "" if default in (None, [], {}) else str(default)
    return Field(
        name,
        kind,
        told.get("description", ""),
        own if own is not None else list(choices.get(name, ())),
        given.get(name, shown),
        required,
        name in FIRST or required or few,
        shown,
    )
