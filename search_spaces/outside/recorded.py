"""A space whose file says something else now: its architectures as they were written down, to be read and not built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from torch import nn

from search_spaces.architecture import Architecture, ImageShape
from search_spaces.decisions import Choice, Decisions


@dataclass(frozen=True)
class RecordedSpace:
    """`why`: what is another now. `known`: by what follows the space in their names, of one study."""

    name: str
    code: str
    study: str
    why: str = field(compare=False)
    known: Mapping[str, RecordedArchitecture] = field(compare=False, repr=False, default_factory=dict)
    size: int | None = None

    def suggest(self, decisions: Decisions) -> Architecture:  # noqa: ARG002
        self._refuse()

    def architectures(self) -> Sequence[Architecture]:
        self._refuse()

    def parse(self, text: str) -> RecordedArchitecture:
        if text not in self.known:
            self._refuse()
        return self.known[text]

    def _refuse(self) -> NoReturn:
        raise ValueError(self.why)


@dataclass(frozen=True)
class RecordedArchitecture(Architecture):
    """`identity`: space, name and code. `parameters`, `flops`: as they were counted then."""

    identity: tuple[str, str, str]
    parameters: int
    flops: int
    items: tuple[tuple[str, Any], ...]
    why: str = field(compare=False, repr=False)

    def __hash__(self) -> int:
        return hash(self.identity)

    @property
    def space(self) -> str:
        return self.identity[0]

    @property
    def name(self) -> str:
        return self.identity[1]

    @property
    def code(self) -> str:
        return self.identity[2]

    @property
    def choices(self) -> Mapping[str, Choice]:
        return dict(self.items)

    def build(self, image_shape: ImageShape, num_classes: int) -> nn.Module:  # noqa: ARG002
        raise ValueError(self.why)
