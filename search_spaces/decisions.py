"""Ways to answer a space that asks what to decide next: at random, as once decided, or in every way there is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

Choice = str | int | float
Decided = TypeVar("Decided")


class UnsteadyError(ValueError):
    """The same answers led to other questions: what comes of them cannot be named."""

    def __init__(self, asked: Sequence[str]) -> None:
        super().__init__(
            f"is another space each time it is asked: after the same answers as before it does not ask for "
            f"{', '.join(asked)} again (let the trial decide what is random)"
        )


class Decisions(Protocol):
    """What a space asks. An Optuna trial is one as it stands; so is every class below.

    Raises ValueError for a question that has no answer.
    """

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number between `low` and `high`, both possible."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


@dataclass(frozen=True)
class Question:
    """What is asked. `values` are all answers in order; None where any number between `low` and `high` is one."""

    name: str
    kind: type  # str: of several choices, of any type; int; float
    values: Sequence[Any] | None
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False

    @property
    def wanted(self) -> str:
        """What an answer is, in words."""
        if self.kind is str:
            return f"one of {', '.join(map(str, self.values or ()))}"
        form = "" if self.kind is int else "g"
        steps = "" if self.step is None else f" in steps of {self.step:{form}}"
        return f"a {'whole ' * (self.kind is int)}number between {self.low:{form}} and {self.high:{form}}{steps}"

    def read(self, given: Any) -> Any:
        """The answer that `given` stands for; None where it stands for none."""
        if self.kind is not str:
            if isinstance(given, bool) or not isinstance(given, int if self.kind is int else int | float):
                return None
            if not self.low <= given <= self.high:
                return None
            if self.values is None:
                return given
            if self.kind is float:  # what was written down may differ in its last digit from the number on the grid
                return next((value for value in self.values if math.isclose(given, value)), None)
        return given if self.values is not None and given in self.values else None

    def put_to(self, decisions: Decisions) -> Any:
        """Somebody else's answer."""
        if self.kind is str:
            return decisions.suggest_categorical(self.name, self.values or ())
        if self.kind is int:
            step = 1 if self.step is None else int(self.step)
            return decisions.suggest_int(self.name, int(self.low), int(self.high), step=step, log=self.log)
        return decisions.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)


class Answering:
    """Decisions by one method that answers every question."""

    def answer(self, question: Question) -> Any:
        raise NotImplementedError

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if not len(choices):
            raise ValueError(f"{name} has no choices")
        return self.answer(Question(name, str, choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if low > high or step < 1:
            raise ValueError(f"{name}: no whole number lies between {low} and {high} in steps of {step}")
        values = range(low, high + 1, step)
        return int(self.answer(Question(name, int, values, low, high, None if step == 1 else step, log)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        values = None
        if step is not None:
            if low > high or step <= 0:
                raise ValueError(f"{name}: no number lies between {low:g} and {high:g} in steps of {step:g}")
            values = [low + number * step for number in range(math.floor((high - low) / step + 1e-9) + 1)]
        return float(self.answer(Question(name, float, values, low, high, step, log)))


class RandomDecisions(Answering):
    """Each independent and uniform (of the logarithm where `log`), drawn from a generator.

    `among`: the values that are asked for, of those decisions that it names; all of them are equally likely then.
    """

    def __init__(self, generator: torch.Generator, among: Mapping[str, Collection[Choice]] | None = None) -> None:
        self._generator = generator
        self._among = among or {}

    def answer(self, question: Question) -> Any:
        values, low, high = question.values, question.low, question.high
        if question.name in self._among:
            values = sorted(self._among[question.name], key=str)
            for value in values:
                if question.read(value) is None:
                    raise ValueError(f"{question.name} is never {value}")
        elif question.log and question.kind is int:
            if low < 1:
                raise ValueError(f"{question.name}: the logarithm of {low} is not a number, begin at 1")
            # The bins of the whole numbers on a logarithmic axis.
            return min(high, max(low, round(math.exp(self._between(math.log(low - 0.5), math.log(high + 0.5))))))
        elif values is None and question.log:
            return min(high, max(low, math.exp(self._between(math.log(low), math.log(high)))))
        if values is None:
            return self._between(low, high)
        if not values:
            raise ValueError(f"{question.name} has no choices")
        return values[int(torch.randint(len(values), (), generator=self._generator, device="cpu"))]

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self._generator, dtype=torch.float64, device="cpu"))


class ReplayDecisions(Answering):
    """As once decided. `fallback` answers what was not decided then, or no longer can be; without one, ValueError."""

    def __init__(self, choices: Mapping[str, Choice], fallback: Answering | None = None) -> None:
        self._choices = choices
        self._fallback = fallback
        self._answered: dict[str, Choice] = {}  # as Optuna does: a name is decided once

    def answer(self, question: Question) -> Any:
        name = question.name
        if name not in self._answered:
            answer = question.read(self._choices[name]) if name in self._choices else None
            if answer is None and self._fallback is not None:
                answer = self._fallback.answer(question)
            elif answer is None:
                given = f"={self._choices[name]} is not" if name in self._choices else " is not given: it is"
                raise ValueError(f"{name}{given} {question.wanted}")
            self._answered[name] = answer
        return self._answered[name]


class Walk(Answering):
    """Follows a path of choice numbers, and takes `beyond` of so many values after its end: the first of each."""

    def __init__(self, path: Sequence[int], beyond: Callable[[int], int] = lambda _: 0) -> None:
        self.path = list(path)
        self.widths: list[int] = []
        self._beyond = beyond
        self._decided: dict[str, Any] = {}

    @property
    def asked(self) -> Collection[str]:
        """What was asked for, by name."""
        return self._decided.keys()

    def answer(self, question: Question) -> Any:
        if question.values is None:
            if question.low == question.high:
                return question.low
            raise ValueError(f"{question.name} is any {question.wanted[2:]}: such a space can only be sampled")
        if question.name not in self._decided:
            depth, width = len(self.widths), len(question.values)
            if depth == len(self.path):
                self.path.append(self._beyond(width))
            self.widths.append(width)
            if self.path[depth] >= width:
                raise UnsteadyError([*self._decided, question.name])
            self._decided[question.name] = question.values[self.path[depth]]
        return self._decided[question.name]


def enumerate_decisions(function: Callable[[Decisions], Decided], limit: int) -> Iterator[Decided]:
    """What the function returns for every way to decide, each once, the last decision varying fastest.

    Raises ValueError for a decision without an end of choices (a float without step), and beyond `limit` results.
    """
    path: list[int] = []
    for count in itertools.count(1):
        walk = Walk(path)
        result = function(walk)
        if count > limit:
            raise ValueError(f"more than {limit:,} architectures: they can be sampled, not enumerated")
        yield result
        if len(walk.path) > len(walk.widths):
            raise UnsteadyError(list(walk.asked))
        path = walk.path
        while path and path[-1] + 1 == walk.widths[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1


def estimated_count(function: Callable[[Decisions], object], walks: int) -> float:
    """About how many ways to decide there are, from random walks; as exact as these agree (Knuth 1975).

    Raises ValueError for a decision without an end of choices.
    """
    generator = torch.Generator().manual_seed(0)
    # The product of the widths of a random path estimates the number of paths without bias.
    products = []
    for _ in range(walks):
        walk = Walk((), lambda width: int(torch.randint(width, (), generator=generator, device="cpu")))
        function(walk)
        products.append(math.prod(walk.widths))
    return sum(products) / walks
