"""Ways to answer a space that asks what to decide next: at random, as once decided, or in every way there is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch

Choice = str | int | float
Decided = TypeVar("Decided")


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


class RandomDecisions:
    """Each independent and uniform (of the logarithm where `log`), drawn from a generator.

    `among`: the values that are asked for, of those decisions that it names; all of them are equally likely then.
    """

    def __init__(self, generator: torch.Generator, among: Mapping[str, Collection[Choice]] | None = None) -> None:
        self._generator = generator
        self._among = among or {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name in self._among:
            return self._pick(name, lambda value: value in choices)
        return choices[self._below(len(_some(name, choices)))]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        values = _range(name, low, high, step)
        if name in self._among:
            return int(self._pick(name, lambda value: value in values))
        if not log:
            return values[self._below(len(values))]
        if low < 1:
            raise ValueError(f"{name}: the logarithm of {low} is not a number, begin at 1")
        # The bins of the whole numbers on a logarithmic axis.
        drawn = math.exp(self._between(math.log(low - 0.5), math.log(high + 0.5)))
        return min(high, max(low, round(drawn)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if name in self._among:
            return float(self._pick(name, lambda value: not isinstance(value, str) and low <= value <= high))
        if step is not None:
            values = _stepped(name, low, high, step)
            return values[self._below(len(values))]
        if log:
            return min(high, max(low, math.exp(self._between(math.log(low), math.log(high)))))
        return self._between(low, high)

    def _pick(self, name: str, known: Callable[[Choice], bool]) -> Any:
        values = _some(name, sorted(self._among[name], key=str))
        unknown = [value for value in values if not known(value)]
        if unknown:
            raise ValueError(f"{name} is never {unknown[0]}")
        return values[self._below(len(values))]

    def _below(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self._generator, device="cpu"))

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self._generator, dtype=torch.float64, device="cpu"))


class ReplayDecisions:
    """As once decided. `fallback` answers what was not decided then, or no longer can be; without one, ValueError.

    `used` collects what was asked and answered, in order.
    """

    def __init__(self, choices: Mapping[str, Choice], fallback: Decisions | None = None) -> None:
        self._choices = choices
        self._fallback = fallback
        self.used: dict[str, Choice] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        fits = name in self._choices and self._choices[name] in choices
        return self._answer(name, fits, f"one of {', '.join(map(str, choices))}", "suggest_categorical", choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        value = self._choices.get(name)
        fits = isinstance(value, int) and not isinstance(value, bool) and value in _range(name, low, high, step)
        said = f"a whole number between {low} and {high}" + (f" in steps of {step}" if step != 1 else "")
        return int(self._answer(name, fits, said, "suggest_int", low, high, step=step, log=log))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        value = self._choices.get(name)
        fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if fits and step is not None:
            # What was written down may differ in its last digit from the number on the grid.
            near = [known for known in _stepped(name, low, high, step) if math.isclose(float(value or 0), known)]
            fits = bool(near)
            self._choices = {**self._choices, name: near[0]} if near else self._choices
        said = f"a number between {low:g} and {high:g}" + (f" in steps of {step:g}" if step is not None else "")
        return float(self._answer(name, fits, said, "suggest_float", low, high, step=step, log=log))

    def _answer(self, name: str, fits: bool, wanted: str, method: str, *question: Any, **more: Any) -> Any:
        if name in self.used:
            return self.used[name]  # as Optuna does: a name is decided once
        if fits:
            self.used[name] = self._choices[name]
        elif self._fallback is not None:
            self.used[name] = getattr(self._fallback, method)(name, *question, **more)
        elif name in self._choices:
            raise ValueError(f"{name}={self._choices[name]} is not {wanted}")
        else:
            raise ValueError(f"{name} is not given: it is {wanted}")
        return self.used[name]


class FirstDecisions:
    """Always the first choice, and the low end."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return _some(name, choices)[0]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:  # noqa: ARG002
        return _range(name, low, high, step)[0]

    def suggest_float(
        self,
        name: str,  # noqa: ARG002
        low: float,
        high: float,  # noqa: ARG002
        *,
        step: float | None = None,  # noqa: ARG002
        log: bool = False,  # noqa: ARG002
    ) -> float:
        return low


def enumerate_decisions(function: Callable[[Decisions], Decided], limit: int) -> Iterator[Decided]:
    """What the function returns for every way to decide, each once, the last decision varying fastest.

    Raises ValueError for a decision without an end of choices (a float without step), and beyond `limit` results.
    """
    path: list[int] = []
    for count in itertools.count(1):
        walk = _Walk(path)
        result = function(walk)
        if count > limit:
            raise ValueError(f"more than {limit:,} architectures: they can be sampled, not enumerated")
        yield result
        path = walk.path
        while path and path[-1] + 1 == walk.widths[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1


class _Walk:
    """Follows a path of choice numbers, and takes the first of each after its end."""

    def __init__(self, path: Sequence[int]) -> None:
        self.path = list(path)
        self.widths: list[int] = []
        self._decided: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, _some(name, choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:  # noqa: ARG002
        return int(self._take(name, _range(name, low, high, step)))

    def suggest_float(
        self,
        name: str,
        low: float,
        high: float,
        *,
        step: float | None = None,
        log: bool = False,  # noqa: ARG002
    ) -> float:
        if step is None:
            if low == high:
                return low
            raise ValueError(f"{name} is any number between {low:g} and {high:g}: such a space can only be sampled")
        return float(self._take(name, _stepped(name, low, high, step)))

    def _take(self, name: str, values: Sequence[Any]) -> Any:
        if name not in self._decided:
            depth = len(self.widths)
            if depth == len(self.path):
                self.path.append(0)
            self.widths.append(len(values))
            self._decided[name] = values[self.path[depth]]
        return self._decided[name]


def _some(name: str, choices: Sequence[Any]) -> Sequence[Any]:
    if not len(choices):
        raise ValueError(f"{name} has no choices")
    return choices


def _range(name: str, low: int, high: int, step: int) -> range:
    if low > high or step < 1:
        raise ValueError(f"{name}: no whole number lies between {low} and {high} in steps of {step}")
    return range(low, high + 1, step)


def _stepped(name: str, low: float, high: float, step: float) -> list[float]:
    if low > high or step <= 0:
        raise ValueError(f"{name}: no number lies between {low:g} and {high:g} in steps of {step:g}")
    count = math.floor((high - low) / step + 1e-9) + 1
    return [low + number * step for number in range(count)]
