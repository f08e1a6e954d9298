"""What an architecture and a search space are. A new space is one file and one line in `search_spaces.base.SPACES`."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Mapping
from typing import Protocol

from torch import nn

ImageShape = tuple[int, int, int]  # (C, H, W)
Choice = str | int


class Architecture(Hashable, Protocol):
    """The description of a candidate: a small immutable value that can be hashed, compared and sent to a process.

    `name` is its canonical string: `parse_architecture(name)` gives an equal architecture, and equal names mean equal
    networks. `space` names what it belongs to. `choices` are the decisions it is made of, in a fixed order.
    """

    @property
    def space(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def choices(self) -> Mapping[str, Choice]: ...

    def obstacle(self, image_shape: ImageShape) -> str | None:
        """Why images of this shape cannot be carried and what would help, in one clause; None where they can."""
        ...

    def build(self, image_shape: ImageShape, num_classes: int) -> nn.Module:
        """A fresh network (N, C, H, W) -> (N, K) with PyTorch's default initialisation, from the global generator.

        Raises ValueError where the image shape is infeasible or there are fewer than two classes.
        """
        ...


class SearchSpace(Protocol):
    """A finite set of architectures."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int:
        """The number of architectures, feasible or not."""
        ...

    def architectures(self) -> tuple[Architecture, ...]:
        """All of them, each once, sorted by their choices: always the same order."""
        ...

    def feasible(self, architecture: Architecture, image_shape: ImageShape) -> bool:
        """Whether images of this shape can be carried."""
        ...

    def neighbours(self, architecture: Architecture) -> tuple[Architecture, ...]:
        """Those members of the space that differ from it in exactly one choice, sorted as `architectures` is."""
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


def hint(wrong: str, known: Iterable[Choice]) -> str:
    """A question "did you mean ..." where a choice is near, else all the choices."""
    choices = [str(choice) for choice in known]
    near = difflib.get_close_matches(wrong.lower(), choices, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(choices)}"
