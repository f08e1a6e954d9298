"""What an architecture and a search space are. A new space is one file and one line in `search_spaces.base.SPACES`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from typing import ClassVar, Protocol

from torch import nn

from search_spaces.decisions import Choice, Decisions

ImageShape = tuple[int, int, int]  # (C, H, W)
ENUMERATED = 200_000  # architectures of a space that is listed whole; larger ones are sampled


class Architecture(Protocol):
    """The description of a candidate: a small immutable value that can be hashed, compared and sent to a process.

    `name` is its canonical string: `parse_architecture(name)` gives an equal architecture, and equal names mean equal
    networks. `space` names what it belongs to. `choices` are the decisions it is made of, in a fixed order. `cost_key`:
    those of a space that agree in it have equal parameter counts and FLOPs. `code`: "" for the spaces of this package,
    else a digest of what defines it, for the name alone does not say. What most answer alike stands here: that they fit
    all images, stand for themselves and cannot be shrunk.
    """

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def space(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def choices(self) -> Mapping[str, Choice]: ...

    @property
    def cost_key(self) -> Hashable:
        return self.name

    @property
    def code(self) -> str:
        return ""

    def obstacle(self, image_shape: ImageShape) -> str | None:  # noqa: ARG002
        """Why images of this shape cannot be carried and what would help, in one clause; None where they can."""
        return None

    def build(self, image_shape: ImageShape, num_classes: int) -> nn.Module:
        """A fresh network (N, C, H, W) -> (N, K) with PyTorch's default initialisation, from the global generator.

        Raises ValueError where the image shape is infeasible or there are fewer than two classes.
        """
        ...

    def shrunk(self) -> Architecture | None:
        """A cheaper network of the same kind (fewer cells, narrower), an architecture too; None where there is none."""
        return None

    def representative(self) -> Architecture:
        """The first of the space's architectures that computes the same functions: itself where it is alone."""
        return self


class Keyed(Architecture):
    """A dataclass of choices that is called "space:key=value,..."."""

    space: ClassVar[str]

    @property
    def name(self) -> str:
        return f"{self.space}:{','.join(f'{key}={value}' for key, value in self.choices.items())}"

    @property
    def choices(self) -> Mapping[str, Choice]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


class SearchSpace(Hashable, Protocol):
    """A set of architectures, given by the decisions that lead to each; equal where name and code are.

    `size` counts all of them, feasible or not; None where they are without end or were not counted.
    """

    @property
    def name(self) -> str: ...

    @property
    def code(self) -> str: ...

    @property
    def size(self) -> int | None: ...

    def suggest(self, decisions: Decisions) -> Architecture:
        """The architecture that these decisions lead to; it asks for nothing that they do not depend on."""
        ...

    def architectures(self) -> Sequence[Architecture]:
        """All of them, each once, always in the same order; perhaps a sequence that makes them when they are read.

        Raises ValueError where they are without end or more than 200,000.
        """
        ...

    def parse(self, text: str) -> Architecture:
        """The architecture described by what follows `name:`. Raises ValueError with the nearest choices."""
        ...


def check_buildable(architecture: Architecture, image_shape: ImageShape, num_classes: int) -> None:
    """Raise ValueError with one clear line where `build` cannot succeed."""
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image shape {image_shape} is not (channels, height, width), each at least 1")
    if num_classes < 2:
        raise ValueError(f"{num_classes} classes: a classifier needs at least 2")
    obstacle = architecture.obstacle(image_shape)
    if obstacle is not None:
        channels, height, width = image_shape
        raise ValueError(f"{architecture.name} cannot carry {channels} x {height} x {width} images: {obstacle}")
