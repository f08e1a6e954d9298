"""A search space of somebody else's, under the name by which it is found.

Its architectures are called spec:{"name":"..."}, what follows being what they call themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from search_spaces.architecture import Architecture, ImageShape, SearchSpace
from search_spaces.decisions import Choice, Decisions
from search_spaces.outside.definition import canonical_json


@dataclass(frozen=True)
class RenamedSpace:
    """Answers as `inner` does, but calls itself and its architectures by `name` and `code`."""

    name: str
    code: str
    inner: SearchSpace = field(compare=False, repr=False)
    load: Callable[[str], Any] = field(compare=False, repr=False)

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return self.load, (self.name,)

    @property
    def size(self) -> int | None:
        return self.inner.size

    def suggest(self, decisions: Decisions) -> Renamed:
        return Renamed(self, self.inner.suggest(decisions))

    def architectures(self) -> Sequence[Architecture]:
        return tuple(Renamed(self, architecture) for architecture in self.inner.architectures())

    def parse(self, text: str) -> Renamed:
        try:
            given = json.loads(text)["name"]
        except (ValueError, TypeError, KeyError):
            raise ValueError(f'{self.name}: {text!r} is not {{"name": "..."}}') from None
        try:
            return Renamed(self, self.inner.parse(str(given)))
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None


@dataclass(frozen=True)
class Renamed:
    """One architecture of a renamed space. Equal ones have equal names."""

    home: RenamedSpace = field(repr=False)
    inner: Architecture

    @property
    def space(self) -> str:
        return self.home.name

    @property
    def name(self) -> str:
        return f"{self.home.name}:{canonical_json({'name': self.inner.name.partition(':')[2]})}"

    @property
    def choices(self) -> Mapping[str, Choice]:
        return self.inner.choices

    @property
    def cost_key(self) -> Hashable:
        return self.inner.cost_key

    @property
    def code(self) -> str:
        return self.home.code

    def obstacle(self, image_shape: ImageShape) -> str | None:
        return self.inner.obstacle(image_shape)

    def build(self, image_shape: ImageShape, num_classes: int) -> nn.Module:
        return self.inner.build(image_shape, num_classes)

    def shrunk(self) -> Architecture | None:
        shrunk = self.inner.shrunk()
        return None if shrunk is None else Renamed(self.home, shrunk)

    def representative(self) -> Architecture:
        return Renamed(self.home, self.inner.representative())
