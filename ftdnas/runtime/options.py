"""What a person may ask of a command: the fields of its request, of which click's options and the service's schema are
made.

A request is a frozen dataclass whose fields are made by `option`. Nothing here knows click or pydantic.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

Request = TypeVar("Request")
UNITS = {"": 60.0, "s": 1.0, "m": 60.0, "h": 3600.0}
GROUPS = ("", "What", "How many", "Limits", "Training", "Machine", "Data", "Output")  # of options, as they are shown
_KEY = "option"  # of a field's metadata


@dataclass(frozen=True)
class Option:
    """What there is to know of a field beside its type and default.

    `least`, `most`: the range, inclusive; `above`: exclusive. `parse`: makes the value of a text on a command line, or
    raises ValueError. `free`: the text may hold more than a name does, such as a proxy. `local`: only for a command
    that runs here, such as a path; a server decides it itself. `counts`: which limit of a server it is held to.
    `flags`: instead of the one made of the name, with spaces between. `argument`: given without a flag, or with the
    `flags` that it has. `folder`: the path is one, else a file. `group`: of `GROUPS`, instead of its class's GROUP.
    """

    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    metavar: str | None = None
    flags: str = ""
    parse: Callable[[str], Any] | None = None
    environment: str | None = None
    free: bool = False
    local: bool = False
    counts: str | None = None
    argument: bool = False
    folder: bool = False
    group: str | None = None


@dataclass(frozen=True)
class Asked:
    """A field of a request. `kind` is its type without None, of one of them where it is `many`; `may_be_none`.

    `group`: of `GROUPS`; the first, which has no title, holds what matters first.
    """

    name: str
    kind: Any
    many: bool
    may_be_none: bool
    default: Any
    option: Option
    group: str

    @property
    def choices(self) -> tuple[Any, ...]:
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def required(self) -> bool:
        return self.default is None and not self.may_be_none

    @property
    def is_mapping(self) -> bool:
        """Of pairs, which a command line gives one by one."""
        return get_origin(self.kind) is Mapping


def option(default: Any, help: str, **facts: Any) -> Any:
    """A field of a request; `facts` are those of `Option`."""
    return dataclasses.field(default=default, metadata={_KEY: Option(help, **facts)})


def asked_of(request: type) -> list[Asked]:
    """What a request may be asked, in the order to show it: what its FIRST names, then the other `GROUPS`.

    Of a group, what is for this machine alone comes last.
    """
    owners = {name: owner for owner in reversed(request.__mro__) for name in vars(owner).get("__annotations__", {})}
    first: Sequence[str] = getattr(request, "FIRST", ())
    fields = [field for field in dataclasses.fields(request) if _KEY in field.metadata]
    asked = [_asked(field, owners[field.name], field.name in first) for field in fields]
    place = {name: number for number, name in enumerate(first, start=1)}  # after an argument
    return sorted(asked, key=lambda one: (GROUPS.index(one.group), place.get(one.name, 0), one.option.local))


def request_of(kind: type[Request], values: Mapping[str, Any]) -> Request:
    """A request from JSON. Raises ValueError for a name that it does not have."""
    known = {asked.name: asked for asked in asked_of(kind)}
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"no such option: {', '.join(unknown)}")
    made = {}
    for name, value in values.items():
        if known[name].many and isinstance(value, Sequence):
            value = tuple(value)
        made[name] = Path(value) if known[name].kind is Path and value is not None else value
    return kind(**made)


def shared(request: Any, kind: type[Request], **others: Any) -> Request:
    """A request of another kind with the fields that both have."""
    names = {field.name for field in dataclasses.fields(request)} - set(others)
    own = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: getattr(request, name) for name in own & names}, **others)


def seconds(text: str) -> float:
    """Of "90s", "30m", "2h" or a bare number of minutes. Raises ValueError for anything else."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smh]?)", text.strip())
    if not match or float(match.group(1)) == 0:
        raise ValueError(f"{text!r} is not a duration such as 90s, 30m or 2h")
    return float(match.group(1)) * UNITS[match.group(2)]


def duration_text(text: str) -> str:
    """The text, where it is one that `seconds` reads."""
    seconds(text)
    return text.strip()


def size(text: str) -> int:
    """Bytes, of "500M", "4G" or "1.5G". Raises ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([MG])B?", text.strip(), re.IGNORECASE)
    if not match or float(match.group(1)) == 0:
        raise ValueError(f"{text!r} is no size such as 500M or 4G")
    return int(float(match.group(1)) * 2 ** {"M": 20, "G": 30}[match.group(2).upper()])


def _asked(field: dataclasses.Field[Any], owner: type, first: bool) -> Asked:
    option: Option = field.metadata[_KEY]
    kind = eval(str(field.type), vars(sys.modules[owner.__module__]))  # ours, as written in the class
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    known = [part for part in parts if part is not type(None) and not dataclasses.is_dataclass(part)]
    kind = Union[tuple(known)]  # noqa: UP007  # of however many there are
    many = get_origin(kind) is tuple and option.parse is None
    group = "" if first or option.argument else option.group or vars(owner).get("GROUP", "What")
    return Asked(
        field.name, get_args(kind)[0] if many else kind, many, type(None) in parts, field.default, option, group
    )
