"""A space written as a plain Python class: named choices, and a method that builds a network from what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from search_spaces.architecture import ImageShape
from search_spaces.decisions import Choice, Decisions
from search_spaces.outside.definition import Definition, call_builder, labelled


class ClassDefinition(Definition):
    """An object with `choices`, a mapping from names to sequences of values, and `build`.

    `build(choices)` or `build(choices, image_shape, num_classes)` gets one value of each name and returns a network.
    Raises ValueError, one line, for anything else.
    """

    def __init__(self, defined: Any) -> None:
        choices = defined.choices
        if not isinstance(choices, Mapping) or not choices:
            raise ValueError("its choices are not a mapping from names to values, such as {'width': [16, 32]}")
        self._values: dict[str, dict[Choice, Any]] = {}
        for name, values in choices.items():
            if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
                raise ValueError(f"its choices of {name!r} are not a list of values: {values!r}")
            try:
                self._values[str(name)] = labelled(values)
            except ValueError as error:
                raise ValueError(f"its choices of {name!r}: {error}") from None
        self._build = defined.build

    def decide(self, decisions: Decisions) -> dict[str, Choice]:
        return {name: decisions.suggest_categorical(name, list(values)) for name, values in self._values.items()}

    def build(self, choices: Mapping[str, Choice], image_shape: ImageShape, num_classes: int) -> nn.Module:
        chosen = {name: self._values[name][label] for name, label in choices.items()}
        return call_builder(self._build, chosen, image_shape, num_classes)


def is_plain(defined: object) -> bool:
    """Whether it has what `ClassDefinition` reads."""
    return hasattr(defined, "choices") and callable(getattr(defined, "build", None))
