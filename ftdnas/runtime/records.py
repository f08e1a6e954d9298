"""Dataclasses as JSON and back."""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

_hints = functools.cache(typing.get_type_hints)


def to_json(value: Any) -> Any:
    """As JSON can hold it: a dataclass as the mapping of its fields, a tuple as a list, a number that is none as null.

    What JSON has no word for is told as text.
    """
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def from_json(kind: Any, value: Any) -> Any:
    """The value of that type that `to_json` wrote: dataclasses, tuples, mappings, what may be None, and plain values.

    Fields that the record lacks keep their defaults, and those that the type lacks are passed over. Raises TypeError
    where a field without a default is missing or a record is no mapping.
    """
    if value is None:
        return None
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise TypeError(f"{kind.__name__} is read from a mapping, not from {type(value).__name__}")
        wanted = _hints(kind)
        return kind(**{name: from_json(wanted[name], part) for name, part in value.items() if name in wanted})
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        first = next((part for part in parts if is_dataclass(part) or typing.get_origin(part)), None)
        return value if first is None else from_json(first, value)
    if origin is tuple:
        kinds = parts[:1] * len(value) if parts[-1] is ... else parts
        return tuple(from_json(part, item) for part, item in zip(kinds, value, strict=True))
    return value
