"""Samplers are asked for an architecture and told what came of it; none of them proposes the same one twice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from search_spaces.base import Architecture, Choice, ImageShape, Restriction, SearchSpace
from search_spaces.decisions import Answering, Decisions, Question, RandomDecisions

TRIES = 20  # proposals in a row that are known or do not fit, before a sampler is helped out by chance
DRAWS = 2_000  # random architectures in a row without a new one: then there seem to be no more


@dataclass(frozen=True)
class Settings:
    """What a sampler works under.

    `restrict`: name of a decision -> the choices that are looked at. `fits`: why an architecture must not be proposed,
    None where it may. `directions`: "maximize" or "minimize" for each objective; the first is the score.
    """

    seed: int
    image_shape: ImageShape
    num_classes: int
    restrict: Restriction = field(default_factory=dict)
    fits: Callable[[Architecture], str | None] = lambda architecture: None  # noqa: ARG005
    directions: tuple[str, ...] = ("maximize",)


class Sampler(Protocol):
    reason: str
    """Why the last answer was None."""

    def ask(self) -> Architecture | None:
        """One that was neither proposed nor told of before; None where there is none left, see `reason`."""
        ...

    def tell(self, architecture: Architecture, values: Sequence[float] | None) -> None:
        """Its objectives, None where it failed; also of those that others proposed."""
        ...


class Brain(Protocol):
    """A strategy, which may repeat itself and propose what does not fit."""

    def propose(self) -> Architecture | None:
        """None where it is at its end."""
        ...

    def learn(self, architecture: Architecture, values: Sequence[float] | None) -> None:
        """What came of its newest proposal of that architecture, or of another's; None takes the proposal back."""
        ...


class Sieve:
    """What may be proposed still: new, within the restriction, feasible for the images, and within the limits."""

    def __init__(self, space: SearchSpace, settings: Settings) -> None:
        self._space = space
        self._settings = settings
        self.seen: set[str] = set()
        self.refused: dict[str, str] = {}  # an example of a name for each reason

    def obstacle(self, architecture: Architecture) -> str | None:
        """Why it must not be proposed, whether new or not."""
        for key, allowed in self._settings.restrict.items():
            if architecture.choices.get(key) not in allowed:
                return f"{key} is {architecture.choices.get(key)}"
        obstacle = architecture.obstacle(self._settings.image_shape) or self._settings.fits(architecture)
        if obstacle is not None:
            self.refused.setdefault(architecture.name, obstacle)
        return obstacle

    def take(self, architecture: Architecture) -> bool:
        """Whether it may be proposed, which it may only once."""
        if architecture.name in self.seen or self.obstacle(architecture) is not None:
            return False
        self.seen.add(architecture.name)
        return True

    def why(self, looked_at: str) -> str:
        """That nothing is left."""
        text = f"{looked_at}: {len(self.seen):,} proposed or known"
        if self.refused:
            name, obstacle = next(iter(self.refused.items()))
            text += f", {len(self.refused):,} do not fit (as {name}: {obstacle})"
        return text


class Listed:
    """One after the other of an order that is known beforehand."""

    def __init__(self, sieve: Sieve, order: Iterator[Architecture], what: str) -> None:
        self._sieve = sieve
        self._order = order
        self._what = what
        self.reason = ""

    def ask(self) -> Architecture | None:
        for architecture in self._order:
            if self._sieve.take(architecture):
                return architecture
        self.reason = self._sieve.why(self._what)
        return None

    def tell(self, architecture: Architecture, values: Sequence[float] | None) -> None:  # noqa: ARG002
        self._sieve.seen.add(architecture.name)


class Chance:
    """Independent random decisions; when they bring nothing new, what is left of a space that can be enumerated."""

    def __init__(self, space: SearchSpace, settings: Settings, sieve: Sieve) -> None:
        self._space = space
        self._sieve = sieve
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._decisions = RandomDecisions(self._generator)
        self._restrict = settings.restrict
        self._rest: Listed | None = None
        self.reason = ""

    def ask(self) -> Architecture | None:
        if self._rest is None:
            small = self._space.size is not None and self._space.size <= DRAWS
            for _ in range(TRIES if small else DRAWS):
                architecture = self._space.suggest(Restricted(self._decisions, self._restrict))
                if self._sieve.take(architecture):
                    return architecture
            self._rest = self._left_over()
        left = self._rest.ask()
        self.reason = self._rest.reason
        return left

    def tell(self, architecture: Architecture, values: Sequence[float] | None) -> None:  # noqa: ARG002
        self._sieve.seen.add(architecture.name)

    def _left_over(self) -> Listed:
        try:
            everything = self._space.architectures()
        except ValueError:
            return Listed(self._sieve, iter(()), f"{DRAWS:,} random draws of {self._space.name} brought nothing new")
        order = torch.randperm(len(everything), generator=self._generator).tolist()
        return Listed(self._sieve, (everything[row] for row in order), all_of(self._space, everything))


class Adaptive:
    """A brain that learns from the scores.

    A proposal that is known is answered from what is known, one that does not fit with the worst values so far, and
    the brain is asked again; after `tries` of them chance proposes one. So it ends only where nothing new is found.
    """

    def __init__(self, brain: Brain, sieve: Sieve, chance: Chance, directions: Sequence[str], tries: int) -> None:
        self._tries = tries
        self._brain = brain
        self._sieve = sieve
        self._chance = chance
        self._signs = [1.0 if direction == "maximize" else -1.0 for direction in directions]
        self._known: dict[str, tuple[float, ...] | None] = {}
        self.reason = ""

    def ask(self) -> Architecture | None:
        for _ in range(self._tries):
            proposed = self._brain.propose()
            if proposed is None:
                break
            if self._sieve.take(proposed):
                return proposed
            waiting = proposed.name in self._sieve.seen and proposed.name not in self._known
            self._brain.learn(proposed, None if waiting else self._known.get(proposed.name) or self._worst())
        by_chance = self._chance.ask()
        self.reason = self._chance.reason
        return by_chance

    def tell(self, architecture: Architecture, values: Sequence[float] | None) -> None:
        if values is not None and len(values) != len(self._signs):
            raise ValueError(f"{architecture.name} has {len(values)} objectives, the sampler {len(self._signs)}")
        if architecture.name in self._known and self._known[architecture.name] == (values and tuple(values)):
            return
        self._sieve.seen.add(architecture.name)
        self._known[architecture.name] = None if values is None else tuple(values)
        self._brain.learn(architecture, self._known[architecture.name] or self._worst())

    def _worst(self) -> tuple[float, ...] | None:
        known = [values for values in self._known.values() if values is not None]
        if not known:
            return None
        return tuple(sign * min(sign * values[place] for values in known) for place, sign in enumerate(self._signs))


class Restricted(Answering):
    """Decisions of which only the allowed choices are offered. `restrict`: name -> its choices."""

    def __init__(self, inner: Decisions, restrict: Mapping[str, Collection[Choice]]) -> None:
        self._inner = inner
        self._restrict = restrict

    def answer(self, question: Question) -> Any:
        allowed = self._restrict.get(question.name)
        if allowed is None:
            return question.put_to(self._inner)
        if question.kind is float:
            left = sorted(value for value in allowed if question.low <= float(value) <= question.high)
        else:
            left = [value for value in question.values or () if value in allowed]
        if not left:
            raise ValueError(f"{question.name} has none of the choices {', '.join(map(str, allowed))}")
        return self._inner.suggest_categorical(question.name, left)


def all_of(space: SearchSpace, everything: Sequence[Architecture]) -> str:
    """That nothing is left of a space that can be enumerated."""
    return f"all {len(everything):,} architectures of {space.name} were looked at"
