"""Spaces that are a product of independent choices, and architectures written as key=value pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from search_spaces.architecture import ENUMERATED, Architecture
from search_spaces.decisions import Choice, Decisions
from search_spaces.messages import hint

Make = Callable[[Mapping[str, Any]], Architecture]


@dataclass(frozen=True)
class ProductSpace:
    """All combinations of `options` (key -> choices), each made into an architecture by `make`.

    `make` takes a mapping with every key in their order, and the architecture's `choices` are that mapping again.
    `parse` makes it from what follows "name:".
    """

    name: str
    options: Mapping[str, tuple[Choice, ...]]
    make: Make
    parse: Callable[[str], Architecture]

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def code(self) -> str:
        return ""

    @property
    def size(self) -> int:
        return math.prod(len(choices) for choices in self.options.values())

    def suggest(self, decisions: Decisions) -> Architecture:
        return self.make({key: decisions.suggest_categorical(key, list(few)) for key, few in self.options.items()})

    def architectures(self) -> Sequence[Architecture]:
        """In the order of the choices, the last key varying fastest."""
        if self.size > ENUMERATED:
            raise ValueError(f"{self.name} has {self.size:,} architectures: they can be sampled, not enumerated")
        return LazySequence(self.size, self.at)

    def at(self, index: int) -> Architecture:
        """The architecture of a number from 0 to size - 1."""
        chosen: dict[str, Choice] = {}
        for key in reversed(list(self.options)):
            index, digit = divmod(index, len(self.options[key]))
            chosen[key] = self.options[key][digit]
        return self.make({key: chosen[key] for key in self.options})


class LazySequence(Sequence[Any]):
    """Items made when they are read, by their number."""

    def __init__(self, length: int, at: Callable[[int], Any]) -> None:
        self._rows = range(length)
        self._at = at

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        rows = self._rows[index]
        return [self._at(row) for row in rows] if isinstance(rows, range) else self._at(rows)


def check(space: str, choices: Mapping[str, Choice], known: Mapping[str, Sequence[Choice]]) -> None:
    """Raise ValueError with what there is to choose from, where a choice is not among those known."""
    for key, value in choices.items():
        if value not in known[key]:
            raise _unknown(space, key, value, known[key])


def keyed_space(
    name: str,
    options: Mapping[str, tuple[Choice, ...]],
    make: Make,
    defaults: Mapping[str, Choice],
    known: Mapping[str, Sequence[Choice]],
) -> ProductSpace:
    """A space that reads `key=value` pairs joined by commas, in any order; what is left out takes the default.

    `known` are the choices that a text may name, which may be more than the space's.
    """
    return ProductSpace(name, options, make, partial(_parsed, name, make, defaults, known))


def _parsed(
    space: str, make: Make, defaults: Mapping[str, Choice], known: Mapping[str, Sequence[Choice]], text: str
) -> Architecture:
    given: dict[str, Choice] = {}
    for pair in text.split(",") if text.strip() else ():
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise ValueError(f"{space}: {pair.strip()!r} is not key=value with a key of {', '.join(known)}")
        if key not in known:
            raise ValueError(f"{space}: unknown key {key!r}: {hint(key, known)}")
        if key in given:
            raise ValueError(f"{space}: {key} is given twice")
        choice = next((choice for choice in known[key] if str(choice) == value), None)
        if choice is None:
            raise _unknown(space, key, value, known[key])
        given[key] = choice
    return make({**defaults, **given})


def _unknown(space: str, key: str, value: Choice, known: Sequence[Choice]) -> ValueError:
    if isinstance(known, range):
        return ValueError(f"{space}: {key}={value} is not a whole number between {known[0]} and {known[-1]}")
    return ValueError(f"{space}: unknown {key} {value!r}: {hint(str(value), known)}")
