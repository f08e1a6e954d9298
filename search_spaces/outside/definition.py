"""A search space that a user defines outside of this package: what its adapters tell, and the space made of it."""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from search_spaces.architecture import ENUMERATED, Architecture, ImageShape, check_buildable
from search_spaces.decisions import (
    Choice,
    Decisions,
    RandomDecisions,
    ReplayDecisions,
    UnsteadyError,
    enumerate_decisions,
    estimated_count,
)
from search_spaces.messages import FOREIGN, hint, one_line

NOMINAL_SHAPE: ImageShape = (3, 224, 224)  # at which a builder is asked for its decisions, on the meta device
NOMINAL_CLASSES = 10
COUNTING_S = 10.0  # a space that takes longer to count is sampled
PROBES = 20  # random architectures from which a space's size is guessed before it is counted
STEADY_S = 3.0  # to see whether a space asks the same again


class Definition:
    """What one kind of file says about its space."""

    def decide(self, decisions: Decisions) -> dict[str, Choice]:
        """Everything decided, in the order asked; equal networks have equal decisions."""
        raise NotImplementedError

    def resolved(self, choices: Mapping[str, Choice]) -> Mapping[str, Any]:
        """The decisions as the user reads them: the JSON object of the architecture's name."""
        return choices

    def decided(self, resolved: Mapping[str, Any]) -> Mapping[str, Choice]:
        """The decisions that `resolved` came from. Raises ValueError where it is not of this space."""
        return resolved

    def build(self, choices: Mapping[str, Choice], image_shape: ImageShape, num_classes: int) -> nn.Module:
        """What the user's code makes of them: any exception, any shapes."""
        raise NotImplementedError


@dataclass(frozen=True)
class DefinedSpace:
    """The space of a definition. `code` is a digest of what defines it; `load` gives the space of a name again.

    It is counted, and then enumerated, up to 200,000 architectures and ten seconds; `size` is None beyond.
    """

    name: str
    code: str
    definition: Definition = field(compare=False, repr=False)
    load: Callable[[str], Any] = field(compare=False, repr=False)

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return self.load, (self.name,)  # user code has no place in a message between processes

    @property
    def size(self) -> int | None:
        return None if isinstance(self._all, str) else len(self._all)

    def suggest(self, decisions: Decisions) -> DefinedArchitecture:
        return self._architecture(self.definition.decide(decisions))

    def architectures(self) -> Sequence[Architecture]:
        if isinstance(self._all, str):
            raise ValueError(f"{self.name} cannot be enumerated: {self._all}")
        return self._all

    def parse(self, text: str) -> DefinedArchitecture:
        try:
            given = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.name}: {text!r} is not JSON: {error}") from None
        if not isinstance(given, dict):
            raise ValueError(f"{self.name}: {text!r} is not a JSON object of choices")
        try:
            replay = ReplayDecisions(self.definition.decided(given))
            choices = self.definition.decide(replay)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        unasked = [name for name in self.definition.decided(given) if name not in choices]
        if unasked:
            raise ValueError(f"{self.name}: nothing is decided by {unasked[0]!r} here: {hint(unasked[0], choices)}")
        return self._architecture(choices)

    def _architecture(self, choices: Mapping[str, Choice]) -> DefinedArchitecture:
        return DefinedArchitecture(self, tuple(choices.items()))

    @functools.cached_property
    def _all(self) -> tuple[DefinedArchitecture, ...] | str:
        """All architectures, or why they are not listed."""
        everything: dict[DefinedArchitecture, None] = {}
        try:
            self._check_steady()
            guess = estimated_count(self.definition.decide, PROBES)
            if guess > 10 * ENUMERATED:
                return f"it has about {guess:.2g} architectures"
            start = time.monotonic()
            for choices in enumerate_decisions(self.definition.decide, ENUMERATED):
                everything[self._architecture(choices)] = None
                if time.monotonic() - start > COUNTING_S:
                    return f"it has more architectures than can be built in {COUNTING_S:g} s ({len(everything):,})"
        except UnsteadyError as error:
            raise ValueError(f"{self.name} {error}") from None
        except ValueError as error:
            return str(error)
        return tuple(everything)

    def _check_steady(self) -> None:
        """Raise UnsteadyError where the same answers do not lead to the same decisions."""
        draws, start = RandomDecisions(torch.Generator().manual_seed(0)), time.monotonic()
        for _ in range(PROBES):
            choices = self.definition.decide(draws)
            try:
                again = self.definition.decide(ReplayDecisions(choices))
            except ValueError:
                again = {}
            if again != choices:
                raise UnsteadyError(list(choices))
            if time.monotonic() - start > STEADY_S:
                return


@dataclass(frozen=True)
class DefinedArchitecture(Architecture):
    """One architecture of a user's space: its decisions, in the order asked."""

    home: DefinedSpace = field(repr=False)
    items: tuple[tuple[str, Choice], ...]

    @property
    def space(self) -> str:
        return self.home.name

    @property
    def name(self) -> str:
        return f"{self.space}:{canonical_json(self.home.definition.resolved(self.choices))}"

    @property
    def choices(self) -> Mapping[str, Choice]:
        return dict(self.items)

    @property
    def code(self) -> str:
        return self.home.code

    def obstacle(self, image_shape: ImageShape) -> str | None:
        shape = _output_shape(self, tuple(image_shape), NOMINAL_CLASSES)
        if isinstance(shape, str):
            return shape
        if len(shape) != 2 or shape[0] != 2:
            return f"it turns images of shape (2, {_listed(image_shape)}) into {shape}, where (2, classes) is needed"
        return None

    def build(self, image_shape: ImageShape, num_classes: int) -> nn.Module:
        check_buildable(self, image_shape, num_classes)
        shape = _output_shape(self, tuple(image_shape), num_classes)
        if shape != (2, num_classes):
            result = shape if isinstance(shape, str) else f"it gives {shape}"
            raise ValueError(
                f"{self.name} does not fit: for images of shape (2, {_listed(image_shape)}) {result}, "
                f"where {(2, num_classes)} is needed"
            )
        return _bare(self.home.definition.build(self.choices, image_shape, num_classes))


def _bare(network: nn.Module) -> nn.Module:
    """The network without what wraps it or its parts for speed, which gives its weights other names."""
    for module in list(network.modules()):
        for name, part in list(module.named_children()):
            if isinstance(inner := getattr(part, "_orig_mod", None), nn.Module):
                setattr(module, name, inner)
    inner = network.module if isinstance(network, nn.DataParallel) else getattr(network, "_orig_mod", network)
    assert isinstance(inner, nn.Module)
    return inner


def canonical_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def call_builder(builder: Callable[..., Any], first: Any, image_shape: ImageShape, num_classes: int) -> nn.Module:
    """What a user's function makes: `builder(first)`, or with the image shape and classes where it takes three.

    Raises ValueError where that is no network.
    """
    size = (image_shape, num_classes) if positional(builder) >= 3 else ()
    network = builder(first, *size)
    if not isinstance(network, nn.Module):
        raise ValueError(f"it returns a {type(network).__name__}, not a torch.nn.Module")
    return network


def positional(function: Callable[..., Any]) -> int:
    """How many arguments it takes by position; a trailing *args counts as none."""
    import inspect

    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in inspect.signature(function).parameters.values())


def labelled(values: Sequence[Any]) -> dict[Choice, Any]:
    """Values of any kind by what names them in a decision: themselves where text or numbers, else their JSON or repr.

    Functions go by their qualified names, as does what is made of them by `functools.partial`: a repr with an address
    is another one tomorrow. Raises ValueError where two have the same name, and for what has no name that lasts.
    """
    named: dict[Choice, Any] = {}
    for value in values:
        label: Choice
        if isinstance(value, str | int | float):
            label = value
        else:
            try:
                label = json.dumps(value, sort_keys=True, separators=(",", ":"))
            except (TypeError, ValueError):
                label = _lasting(value)
        if label in named:
            raise ValueError(f"the choice {label} stands there twice")
        named[label] = value
    return named


def _lasting(value: Any) -> str:
    """A name of a value that is the same in every process."""
    text = repr(value)
    if not re.search(r" at 0x[0-9a-fA-F]+", text):
        return text
    if isinstance(value, functools.partial):
        named = [f"{key}={_lasting(one)}" for key, one in value.keywords.items()]
        return f"partial({', '.join([*map(_lasting, (value.func, *value.args)), *named])})"
    *inside, last = getattr(value, "__qualname__", "").split(".")
    name = ".".join([*(part for part in inside if not part.startswith("_")), last])
    if not name or "<lambda>" in name:
        what = "a lambda" if name else f"a {type(value).__name__}"
        raise ValueError(
            f"{what} among the choices has no name that lasts: choose among names, "
            "as in {'relu': nn.ReLU, ...}[trial.suggest_categorical(..., ['relu', ...])]"
        )
    module = getattr(value, "__module__", None) or ""
    return name if not module or module.startswith("ftdnas_space_") else f"{module}.{name}"


@functools.lru_cache(maxsize=10_000)
def _output_shape(
    architecture: DefinedArchitecture, image_shape: ImageShape, num_classes: int
) -> tuple[int, ...] | str:
    """The shape that two images turn into, or why they do not, in one clause."""
    for device in ("meta", "cpu"):
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
                network = architecture.home.definition.build(architecture.choices, image_shape, num_classes)
                network, images = _bare(network), torch.zeros(2, *image_shape)
                trained, output = network.train()(images), network.eval()(images)
            for when, given in (("", output), (" while it trains", trained)):
                if not isinstance(given, torch.Tensor):
                    return f"it returns a {type(given).__name__}{when}, not one tensor (N, classes)"
            return tuple(output.shape)
        except FOREIGN as error:
            failure = one_line(error)
            if not isinstance(error, NotImplementedError) and "meta" not in str(error):
                break
            # It needs numbers (.item(), numpy), not only shapes: run with them.
    return f"images of shape (2, {_listed(image_shape)}) end in {failure}"


def _listed(image_shape: ImageShape) -> str:
    return ", ".join(map(str, image_shape))
